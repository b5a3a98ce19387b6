"""The `viewsvc` command: a local web page over outputs, or a report as one file."""

from __future__ import annotations

import signal
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gpt4batch.errors import UsageError
from gpt4batch.price import Price
from gpt4batch.settings import check, flag
from gpt4batch.words import say, spoken, tr

if TYPE_CHECKING:
    from gpt4batch.view.server import Show

HELP = tr("Look at one or several outputs in the browser, while the run is on or after it.")
EXAMPLES = (
    "gpt4batch viewsvc out.jsonl -i questions.jsonl --open",
    "gpt4batch viewsvc out.jsonl --export report.html",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to show and where."""

    outputs: tuple[str, ...] = flag(
        (),
        "outputs",
        "Outputs to look at; two of one input can be compared.",
        argument=True,
    )
    input: str = flag(
        "",
        "in/i",
        "Input file: its lines that did not run yet are shown too. Left empty: attachments are "
        "looked for in the output's folder.",
    )
    download_dir: str = flag(
        "",
        "download-dir/d",
        "Folder of the downloads. Left empty: the input file's folder.",
    )
    host: str = flag(
        "127.0.0.1",
        "host",
        "Address to listen on; others than loopback show your data to the network.",
    )
    port: int = flag(0, "port", "Port to listen on; 0 is a free one.")
    open: bool = flag(False, "open", "Open the browser.")
    export: str = flag(
        "",
        "export",
        "Write a report as one HTML file instead of serving; it needs no server and no network.",
    )
    export_size: float = flag(10.0, "export-size", "Largest size of the report in MiB.")

    price: str = flag(
        "",
        "price",
        "What a million tokens cost: in=0.15,cached=0.075,out=0.60",
    )

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        check(self)
        Price.read(self.price)
        if not self.outputs:
            raise UsageError(tr("viewsvc: name an output, such as: gpt4batch viewsvc out.jsonl"))
        if self.port > 65535:
            raise UsageError(tr("--port {port}: must be at most 65535", port=self.port))


SETTINGS = Settings


def action(settings: Settings) -> None:
    """Serve the page until Ctrl-C, or write the report."""
    show = shown(settings)
    if settings.export:
        from gpt4batch.view.report import export

        note = export(show, Path(settings.export), int(settings.export_size * 1024 * 1024))
        typer.echo(spoken(note), err=True)
        return
    import anyio

    anyio.run(serve, settings, show)


def shown(settings: Settings) -> Show:
    """Open the outputs."""
    from gpt4batch.view.files import Folders
    from gpt4batch.view.index import Output
    from gpt4batch.view.server import Show

    source = Path(settings.input) if settings.input and settings.input != "-" else None
    price = Price.read(settings.price)
    outputs = [Output(Path(name), source, price) for name in settings.outputs]
    attachments = (source or Path(settings.outputs[0])).parent
    downloads = Path(settings.download_dir) if settings.download_dir else attachments
    return Show(outputs, Folders(attachments, downloads))


async def serve(settings: Settings, show: Show) -> None:
    """Serve the page until a signal comes."""
    import anyio

    from gpt4batch.view.server import is_loopback
    from gpt4batch.view.server import serve as start

    server = await start(show, settings.host, settings.port)
    try:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            if not is_loopback(settings.host):
                typer.echo(warning(settings.host), err=True)
            typer.echo(server.url)
            typer.echo(say("Ctrl-C ends it."), err=True)
            if settings.open:
                await anyio.to_thread.run_sync(webbrowser.open, server.url)
            async for _ in signals:
                break
    finally:
        await server.close()


def warning(host: str) -> str:
    """Return the warning for an address that others can reach."""
    return say(
        "gpt4batch: warning: --host {host}: whoever reaches this machine and learns the address "
        "below sees your data; it goes over the network unencrypted",
        host=host,
    )
