"""The command line: flags and environment to settings, errors to exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import resource
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from gpt4batch import __version__
from gpt4batch.cli.defects import unexpected
from gpt4batch.cli.flags import command_of, rewrite
from gpt4batch.cli.frame import Command, Group
from gpt4batch.cli.streams import tell
from gpt4batch.errors import Gpt4BatchError, OutputError, UsageError
from gpt4batch.lines.steering import printable
from gpt4batch.settings import flags_of
from gpt4batch.words import because, lend_catalogue, say, spoken, tr

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (
    "batchsvc",
    "check",
    "viewsvc",
    "results",
    "convert",
    "authsvc",
    "mocksvc",
    "worksvc",
)

ALL_FLAGS = "--help-all"

UNWRITABLE = {errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC}
"""How a standard output that cannot be written fails; typer ends quietly at a broken pipe."""


def module_of(command: str) -> Any:
    """Return a command's module, which has `SETTINGS`, `action`, `HELP` and `EXAMPLES`.

    Only that of the command that is run is loaded: all of them take 30 ms.
    """
    return importlib.import_module(f"gpt4batch.cli.{command}")


def application(words: Sequence[str] = (), *, brief: bool = False) -> typer.Typer:
    """Return the typer application with every command, or only the one that `words` begin with.

    Args:
        words: What was typed.
        brief: The help of a command shows its common flags only, where it has some.
    """
    app = typer.Typer(
        name="gpt4batch",
        cls=Group,
        help=say("Run a JSONL file of prompts, pictures and files against a ChatGPT-like service."),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(top)
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        module = module_of(name)
        few = brief and any(spec.common for _, _, spec in flags_of(module.SETTINGS))
        command = command_of(module.SETTINGS, module.action, brief=few)
        more = say("All flags: {command}", command=f"gpt4batch {name} --help-all") if few else None
        app.command(name, cls=Command, help=help_of(module), epilog=more)(command)
    return app


def help_of(module: Any) -> str:
    """Return what a command does, and below it how it is called."""
    examples = "\n".join(f"  {example}" for example in module.EXAMPLES)
    return f"{spoken(module.HELP)}\n\n\b\n{examples}"  # \b: the rows stay as they are


def show_version(value: bool) -> None:
    """Print the version and exit."""
    if value:
        typer.echo(f"gpt4batch {__version__}")
        raise typer.Exit


def top(
    version: bool = typer.Option(False, "--version", callback=show_version, is_eager=True),
) -> None:
    """Hold the options that come before a command."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with the contract's code."""
    words = sys.argv[1:] if argv is None else argv
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the token
    lend_catalogue()
    try:
        given = prepared(words)
        app = application(words, brief="--help" in given and ALL_FLAGS not in words)
        sys.exit(app(given, standalone_mode=True))
    except Gpt4BatchError as error:
        tell(printable(f"gpt4batch: {spoken(error)}"))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told in words
        refusal = explained(error) or UsageError(unexpected(error, begun=False))
        if "debug" in (*words, os.environ.get("GPT4BATCH_LOG_LEVEL")):
            tell(printable("".join(traceback.format_exception(error))))
        tell(printable(f"gpt4batch: {spoken(refusal)}"))
        sys.exit(refusal.exit_code)


def explained(error: Exception) -> Gpt4BatchError | None:
    """Return what an error of the system means that any command can meet; None is a defect."""
    if isinstance(error, UnicodeEncodeError):
        name = error.object[error.start : error.end]
        return UsageError(
            tr(
                "the locale's encoding, {encoding}, lacks {name!r}: set LC_ALL",
                encoding=error.encoding,
                name=name,
            )
        )
    if not isinstance(error, OSError):
        return None
    if isinstance(error, FileNotFoundError) and not has_working_folder():
        return UsageError(
            tr("the working folder is gone: go to one that is there and run this again")
        )
    if error.errno in UNWRITABLE and error.filename is None:
        return OutputError(tr("standard output cannot be written: {reason}", reason=because(error)))
    return None


def has_working_folder() -> bool:
    """Return whether the working folder is still there."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return False
    return True


def prepared(words: list[str]) -> list[str]:
    """Return argv with the flags of its command rewritten."""
    words = ["--help" if word == ALL_FLAGS else word for word in words]
    for place, word in enumerate(words):
        if word in COMMANDS:
            flags = [spec for _, _, spec in flags_of(module_of(word).SETTINGS)]
            return [*words[: place + 1], *rewrite(words[place + 1 :], flags)]
    return words
