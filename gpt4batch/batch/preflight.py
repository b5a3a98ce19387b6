"""Everything that can be known of a run before its first call; nothing is written or called.

What a run refuses is refused here by the same code. What would make single lines fail is found by
the same code as well, but fails nothing yet: `fails`. What only looks wrong is a `note`.
"""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from gpt4batch.errors import AttachmentError, Gpt4BatchError, OutputError, UsageError
from gpt4batch.fleet.coordinator import exchange
from gpt4batch.journal.journal import Journal
from gpt4batch.journal.ledger import State
from gpt4batch.journal.source import STDIN, Source
from gpt4batch.lines import rawjson
from gpt4batch.nsq.link import Access, Publisher
from gpt4batch.nsq.spool import Backlog
from gpt4batch.service import credentials
from gpt4batch.service.attachments import measure, picture_format
from gpt4batch.service.certificates import certificates
from gpt4batch.service.transport import proxy_of
from gpt4batch.settings import Settings, endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpt4batch.lines.records import Line

log = logging.getLogger(__name__)

VERSION = 1
ASSUMED_SECONDS = 30.0
"""How long an answer is taken to need where no earlier run tells."""
ASSUMED_BYTES = 4000
SAMPLE = 2000
"""Lines of an earlier run that are looked at for the length of its calls."""

LINE_KEYS = {"id", "asks", "answers", "iErr", "extra", "meta", "model", "gizmo_id"}
ASK_KEYS = {"id", "content", "images", "image", "files", "file"}

Level = Literal["refused", "fails", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong or worth knowing.

    `refused` stops the run before it starts, `fails` costs single lines, `note` nothing.
    """

    level: Level
    about: str
    message: str


@dataclass(slots=True)
class Plan:
    """What a run would do; sizes in bytes, times in seconds."""

    lines: int = 0
    bad_lines: int = 0
    done: int = 0
    to_run: int = 0
    to_fail: int = 0
    chats: int = 0
    uploads: int = 0
    upload_bytes: int = 0
    call_seconds: float = ASSUMED_SECONDS
    call_seconds_from: Literal["assumed", "output"] = "assumed"
    seconds: float = 0.0
    output_bytes: int = 0
    free_bytes: int = 0


@dataclass(slots=True)
class Report:
    """What was found, and the plan where the input could be read."""

    version: int = VERSION
    exit_code: int = 0
    findings: list[Finding] = field(default_factory=list)
    plan: Plan | None = None

    def refuse(self, about: str, error: Gpt4BatchError) -> None:
        """Take note of what stops the run; it would exit with the first such code, or with 2."""
        self.findings.append(Finding("refused", about, str(error)))
        if self.exit_code != UsageError.exit_code:
            self.exit_code = error.exit_code


# -- shared with the run ---------------------------------------------------------------------


def refuse_bad_lines(source: Source, *, skip: bool) -> None:
    """Refuse an input with bad lines, or log them where they are to be skipped.

    Raises:
        UsageError: There are some, each with its place and reason.
    """
    if not source.bad:
        return
    if skip:
        for error in source.bad:
            log.warning("skipped: %s", error)
        return
    listed = "\n".join(f"  {error}" for error in source.bad)
    raise UsageError(
        f"{len(source.bad)} bad line(s) in the input; nothing was called:\n{listed}\n"
        "mend them, or run the good ones with --skip-bad-lines"
    )


def tasks_for(settings: Settings, _: Journal) -> Publisher:
    """Return a publisher of a coordinator's tasks.

    Raises:
        UsageError: The library is missing, or the topic or an address is none.
    """
    place = exchange(settings)
    return Publisher(place.addresses, place.tasks, Backlog(), access=place.access)


def publisher_for(settings: Settings, journal: Journal) -> Publisher:
    """Return the publisher of a run with `-n`.

    Raises:
        UsageError: The library is missing, or the topic or an address is none.
    """
    beside = Path("gpt4batch") if journal.streaming else journal.out
    return Publisher(
        settings.nsqd_tcp_address.split(","),
        settings.nsq_topic,
        beside.with_name(f"{beside.name}.nsq-spool"),
        access=Access(settings.nsq_tls, settings.nsq_ca, settings.nsq_auth_secret),
    )


BESIDE = (
    "{}.lock",
    "{}.inflight",
    "{}.fleet",
    "{}.fleet.new",
    "{}.nsq-spool",
    "{}.nsq-spool.new",
    "{}.nsq-spool-too-big",
    "{}.nsq-spool-too-big.new",
    ".{}.tmp",
    ".{}.snapshot.tmp",
)
"""The files that a run keeps beside its output."""


def refuse_shared_files(settings: Settings) -> None:
    """Refuse flags that name one file, where the one would destroy what the other holds.

    Devices and pipes can be shared, and the output may be the input.

    Raises:
        UsageError: Two name the same file.
    """
    pairs = combinations(_files(settings), 2)
    for (first, one), (second, other) in islice(pairs, 1, None):  # after input and output
        if _same_file(one, other):
            raise UsageError(
                f"{first} and {second} are the same file, {os.path.realpath(other)}: "
                "nothing was called; give each a file of its own"
            )


def _files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield every file of a run with what it is: the input, the output, then the others."""
    out = Path("/dev/stdout" if settings.out == STDIN else settings.out)
    yield f"-i {settings.input}", Path("/dev/stdin" if settings.input == STDIN else settings.input)
    yield f"-o {settings.out}", out
    for flag, name in (("--summary", settings.summary), ("--log-file", settings.log_file)):
        if name:
            yield f"{flag} {name}", Path(name)
    streaming = settings.out == STDIN or (out.exists() and not out.is_file())
    out = Path("gpt4batch") if streaming else Path(os.path.realpath(out))
    for name in BESIDE:
        yield f"{name.format(out.name)} of the run itself", out.with_name(name.format(out.name))


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other) and one.is_file()
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


# -- the check -------------------------------------------------------------------------------


async def check(settings: Settings) -> Report:
    """Look at everything a run with these settings would need."""
    with ExitStack() as stack:
        return await _Check(settings, stack).report()


class _Check:
    """One look: each part goes on where another one was refused."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._found = Report()
        out = None if settings.out == STDIN else Path(settings.out).resolve()
        self._journal = Journal(out, fsync=settings.fsync)
        stack.callback(self._journal.close)

    async def report(self) -> Report:
        settings, journal = self._settings, self._journal
        if self._calls:
            self._try("token", self._token)
            self._try("network", self._network)
        self._try("files", lambda: refuse_shared_files(settings))
        self._try("output", journal.look_at_lock)
        self._try("output", self._output)
        self._try("input", self._input)
        if self._calls:
            self._addresses()
        if settings.fleet:
            await self._reach(tasks_for)
        if settings.enable_nsq:
            await self._reach(publisher_for)
        if self._found.plan is not None:
            self._sum_up(self._found.plan)
        return self._found

    @property
    def _calls(self) -> bool:
        """Tell whether this process calls the service: a fleet's workers have their own tokens."""
        return not self._settings.mock and not self._settings.fleet

    def _note(self, level: Level, about: str, message: str) -> None:
        self._found.findings.append(Finding(level, about, message))
        if level == "fails":
            self._found.exit_code = self._found.exit_code or 1

    def _try(self, about: str, look: Callable[[], None]) -> None:
        try:
            look()
        except Gpt4BatchError as error:
            self._found.refuse(about, error)

    # -- token and network -------------------------------------------------------------------

    def _token(self) -> None:
        settings = self._settings
        credentials.read_token(settings.token, settings.token_file)
        credentials.account()

    def _network(self) -> None:
        addresses = endpoints(self._settings)
        certificates(addresses)
        for url in (addresses.chat, addresses.upload):
            proxy_of(url, self._settings.proxy)

    def _addresses(self) -> None:
        """Note addresses that do not look as if they belonged together."""
        addresses = endpoints(self._settings)
        chat, upload = addresses.chat, addresses.upload
        for what, part in (("hosts", _host), ("editions", _edition), ("folders", _folder)):
            if part(chat) != part(upload):
                text = f"-u and -l name different {what}: {part(chat)} and {part(upload)}"
                self._note("note", "addresses", f"{text}; leave out -l to call the one beside -u")
                break
        if (last := _last(chat)) not in ("all-tools", "gizmos"):
            text = f"-u ends in /{last}; the service's addresses end in /all-tools or /gizmos"
            self._note("note", "addresses", text)
        if (last := _last(upload)) != "uploaded":
            text = f"-l ends in /{last}; the service's address for uploads ends in /uploaded"
            self._note("note", "addresses", text)
        if self._settings.gizmo_id and _last(addresses.gizmos) != "gizmos":
            text = f"-z is set, but its calls go to {addresses.gizmos}, which is not .../gizmos"
            self._note("note", "addresses", text)

    async def _reach(self, publisher: Callable[[Settings, Journal], Publisher]) -> None:
        try:
            await publisher(self._settings, self._journal).reach()
        except UsageError as error:
            self._found.refuse("nsq", error)

    # -- files -------------------------------------------------------------------------------

    def _output(self) -> None:
        settings, out = self._settings, self._journal.out
        if not self._journal.streaming:
            names_fit(out, moved=not settings.fix)
        if settings.out != STDIN:
            writable(out, "output")
        for path, what in ((settings.summary, "--summary"), (settings.log_file, "--log-file")):
            if path:
                try:
                    writable(Path(path).resolve(), what, folder_too=False)
                except OutputError as error:
                    raise UsageError(str(error)) from None

    def _downloads(self, folder: Path) -> None:
        if self._settings.enable_download:
            writable(folder / "file", "downloads")

    def _input(self) -> None:
        settings = self._settings
        source = Source(settings.input)
        self._stack.callback(source.close)
        self._journal.open(source, fix=settings.fix, repair=False)
        self._try("downloads", lambda: self._downloads(download_folder(settings, source).resolve()))
        for error in source.bad:
            level: Level = "fails" if settings.skip_bad_lines else "refused"
            self._note(level, "input", str(error))
        self._try("input", lambda: _refuse_quietly(source, skip=settings.skip_bad_lines))
        self._found.plan = self._plan(source)

    # -- the plan ----------------------------------------------------------------------------

    def _plan(self, source: Source) -> Plan:
        ledger = self._journal.ledger
        plan = Plan(lines=len(ledger), bad_lines=source.bad_count, done=ledger.count(State.DONE))
        survey = _Survey(source, plan, self._note)
        for index in self._to_run(source):
            survey.take(self._journal.line(index))
        survey.tell()
        if not plan.to_run:
            self._note("note", "plan", f"there is nothing to run: {_why_none(plan)}")
        self._learn(plan)
        return plan

    def _to_run(self, source: Source) -> Iterator[int]:
        left = self._settings.limit or -1
        for index, state in enumerate(self._journal.ledger.states):
            if state != State.DONE and not source.bad_reason(index) and left:
                left -= 1
                yield index

    def _learn(self, plan: Plan) -> None:
        """Take the length of calls and answers from lines of an earlier run."""
        ledger = self._journal.ledger
        done = [index for index, state in enumerate(ledger.states) if state == State.DONE]
        seconds, size = [], 0
        sample = done[:: max(1, len(done) // SAMPLE)]
        for index in sample:
            line = self._journal.line(index)
            size += len(line.raw)
            seconds += [_seconds(ask) for ask in line.meta.get("asks") or ()]
        known = [value for value in seconds if value > 0]
        if known:
            plan.call_seconds, plan.call_seconds_from = sum(known) / len(known), "output"
        each = size / len(sample) if sample else ASSUMED_BYTES * plan.chats / max(plan.to_run, 1)
        plan.output_bytes = round(each * plan.lines)

    def _sum_up(self, plan: Plan) -> None:
        """Work out how long it takes, and whether disk and token last."""
        settings = self._settings
        calls = plan.chats + plan.uploads
        paced = calls / settings.qps if settings.qps else 0.0
        at_once = min(settings.goroutine, max(plan.to_run, 1))
        held = calls * plan.call_seconds / at_once
        plan.seconds = max(paced + plan.call_seconds, held) if calls else 0.0
        if settings.out != STDIN:
            where = nearest(self._journal.out.parent)
            plan.free_bytes = shutil.disk_usage(where).free
            if plan.free_bytes < 2 * plan.output_bytes:
                text = f"{where} has {plan.free_bytes:,} bytes free; the output is expected to need"
                more = f"{2 * plan.output_bytes:,}, as it is written once more at the end"
                self._note("note", "disk", f"{text} {more}; downloads come on top")
        self._compare_token(plan)

    def _compare_token(self, plan: Plan) -> None:
        settings = self._settings
        if not self._calls or settings.token or settings.token_file:
            return
        try:
            expires = credentials.load().expires
        except UsageError:
            return  # refused already
        if expires is None or (expires - datetime.now(UTC)).total_seconds() > plan.seconds:
            return
        when = credentials.shown(expires)
        text = f"the stored token expires at {when}, before the run is expected to end"
        how = "set GPT4BATCH_EMAIL and GPT4BATCH_PASSWORD, and the run renews it itself"
        self._note("note", "token", f"{text}; {how}")


class _Survey:
    """Look at the lines to run: their attachments, keys and ids, and what they cost."""

    def __init__(self, source: Source, plan: Plan, note: Callable[[Level, str, str], None]) -> None:
        self._source = source
        self._plan = plan
        self._note = note
        self._sizes: dict[str, int] = {}
        self._ids: dict[int, int] = {}
        self._equal: list[tuple[int, int]] = []
        self._unknown: dict[str, int] = {}

    def take(self, line: Line) -> None:
        """Count one line."""
        plan = self._plan
        plan.to_run += 1
        self._look_at_keys(line)
        if line.id is not None:
            first = self._ids.setdefault(hash(line.id), line.number)
            if first != line.number:
                self._equal.append((line.number, first))
        for ask in line.asks[line.answered :]:
            sizes = [self._size(line, path, picture=True) for path in ask.images]
            sizes += [self._size(line, path, picture=False) for path in ask.files]
            if -1 in sizes:
                plan.to_fail += 1
                return
            plan.chats += 1
            plan.uploads += len(sizes)
            plan.upload_bytes += sum(sizes)

    def _size(self, line: Line, path: str, *, picture: bool) -> int:
        """Return the size of an attachment, or -1 for one that cannot be sent."""
        where = f"{self._source.path}:{line.number}"
        if path in self._sizes:
            size = self._sizes[path]
            if size < 0:
                self._note("fails", "attachments", f"{where}: {path} cannot be sent either")
            return size
        try:
            size = measure(self._source.folder, path)[0]
        except AttachmentError as error:
            self._note("fails", "attachments", f"{where}: {error}")
            size = -1
        else:
            self._look_at_content(where, path, size, picture=picture)
        self._sizes[path] = size
        return size

    def _look_at_content(self, where: str, path: str, size: int, *, picture: bool) -> None:
        if not size:
            self._note("note", "attachments", f"{where}: {path} is empty")
        elif picture and not picture_format(self._source.folder / path):
            text = f"{where}: {path} is sent as a picture, but its first bytes are of none"
            self._note("note", "attachments", f"{text}; other files belong into files")

    def _look_at_keys(self, line: Line) -> None:
        doc = rawjson.loads(line.raw)
        for ask in doc["asks"]:
            for name in ask.keys() - ASK_KEYS:
                self._unknown.setdefault(f"asks[].{name}", line.number)
        for name in doc.keys() - LINE_KEYS:
            self._unknown.setdefault(name, line.number)

    def tell(self) -> None:
        """Note what holds for the input as a whole."""
        path = self._source.path
        for name, number in sorted(self._unknown.items()):
            fate = "is not sent" if name.startswith("asks[].") else "comes back unchanged"
            text = f"{path}:{number}: the key {name} is not known here: it {fate}"
            self._note("note", "keys", text)
        if self._equal:
            number, first = self._equal[0]
            text = f"{path}:{number}: the id is that of line {first} again"
            more = f", and {len(self._equal) - 1} more such" if len(self._equal) > 1 else ""
            advice = "results are told apart by their asks and order"
            self._note("note", "ids", f"{text}{more}; {advice}")


def _refuse_quietly(source: Source, *, skip: bool) -> None:
    """Refuse bad lines as a run does; each of them is a finding of its own already."""
    if source.bad and not skip:
        number = len(source.bad)
        raise UsageError(f"{number} bad line(s): mend them, or use --skip-bad-lines")


def _why_none(plan: Plan) -> str:
    """Return why there is no line to run."""
    if not plan.lines:
        return "the input has no lines"
    if not plan.bad_lines:
        return "every line is done"
    return "every good line is done" if plan.done else "every line is bad"


def _seconds(ask: object) -> float:
    value = ask.get("seconds") if isinstance(ask, dict) else None
    return float(value) if isinstance(value, int | float) else 0.0


def download_folder(settings: Settings, source: Source) -> Path:
    """Return where downloads go; those of a rehearsal stay apart from the user's own files."""
    if settings.download_dir:
        return Path(settings.download_dir)
    if not settings.mock:
        return source.folder
    out = Path(settings.out).absolute()
    if settings.out == STDIN or (out.exists() and not out.is_file()):
        out = source.folder / source.stem  # the output is no file that a folder could lie beside
    return out.with_name(f"{out.stem}.rehearsal")


def nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))


def names_fit(out: Path, *, moved: bool) -> None:
    """Refuse an output whose name leaves no room for those of the files beside it.

    Args:
        out: The output.
        moved: It is to be moved aside if it is there.

    Raises:
        OutputError: There is no room.
    """
    longest = f".{out.name}.snapshot.tmp"
    if moved and out.exists() and out.stat().st_size:
        longest = max(longest, f"{out.name}.20260101-000000", key=len)
    most = os.pathconf(nearest(out.parent), "PC_NAME_MAX")
    if (size := len(os.fsencode(longest))) > most:
        own = len(os.fsencode(out.name))
        raise OutputError(
            f"cannot write beside {out}: its name has {own} bytes, which makes {size} with what is "
            f"added for a moment, and {most} fit; choose a shorter one with -o"
        )


def writable(path: Path, what: str, *, folder_too: bool = True) -> None:
    """Refuse a file that cannot be written, without writing it.

    Args:
        path: The file.
        what: What it is.
        folder_too: A folder that is not there would be made.

    Raises:
        OutputError: It is a folder, or it or its folder may not be written.
    """
    if path.is_dir():
        raise OutputError(f"cannot write {what} to {path}: it is a folder")
    if path.exists():
        if not os.access(path, os.W_OK):
            raise OutputError(f"cannot write {what} to {path}: permission denied")
        return
    folder = nearest(path.parent) if folder_too else path.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {what} to {path}: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {what} to {path}: {folder} may not be written")


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _edition(url: str) -> str:
    return next((name for name in ("standard", "concurrent") if f"/{name}/" in url), "neither")


def _folder(url: str) -> str:
    return urlsplit(url).path.rstrip("/").rpartition("/")[0]


def _last(url: str) -> str:
    return urlsplit(url).path.rstrip("/").rpartition("/")[2]
