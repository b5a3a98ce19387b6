"""What a run refuses before its first call, and `check` by the same code."""

from __future__ import annotations

import logging
import os
import shlex
import stat
from functools import partial
from itertools import combinations, islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from gpt4batch import disk
from gpt4batch.batch import descriptors
from gpt4batch.errors import SHOWN, OutputError, UsageError, first_of
from gpt4batch.journal import names
from gpt4batch.journal.journal import Journal
from gpt4batch.journal.log import is_stream
from gpt4batch.journal.source import STDIN, Source
from gpt4batch.lines.formats.asks import Asks
from gpt4batch.lines.formats.batch import Batch
from gpt4batch.lines.formats.known import form_of
from gpt4batch.price import PRICE
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gpt4batch.dialects.base import Dialect
    from gpt4batch.lines.formats.base import Format
    from gpt4batch.settings import Settings

log = logging.getLogger(__name__)

BLOCK = 4096
"""Bytes that are written to see whether a file system takes any."""
FEWEST = 3
"""An input of at least so many lines, none of them JSON, is not JSONL at all."""


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
    raise UsageError(
        tr(
            "{count} bad line(s) in the input; nothing was called:\n{problems}\n{advice}",
            count=len(source.bad),
            problems=first_of(source.bad),
            advice=what_to_do(source),
        )
    )


def refuse_redo(settings: Settings) -> None:
    """Refuse to ask anew where it is not said which lines, or who should.

    Raises:
        UsageError: It is not.
    """
    if settings.redo and not (settings.only and settings.fix):
        raise UsageError(tr("--redo: name the lines with --only, and the output with -f"))
    if settings.redo and settings.fleet:
        raise UsageError(tr("--redo --fleet: a fleet does not ask anew what is done"))


def refuse_empty(source: Source, journal: Journal, *, fix: bool) -> None:
    """Refuse an input without lines that would move an earlier output aside for nothing.

    Raises:
        UsageError: It has none, and there is such an output.
    """
    if len(source) or fix or journal.streaming or not journal.out.exists():
        return
    if journal.out.stat().st_size:
        raise UsageError(
            tr(
                "the input {path} has no lines; the output {out} is left as it is",
                path=source.path,
                out=journal.out,
            )
        )


def what_to_do(source: Source) -> str:
    """Return what helps against the bad lines of an input."""
    if len(source) == source.bad_count >= FEWEST and all(
        error.reason.startswith("not ") for error in source.bad[:FEWEST]
    ):
        return tr(
            '{path} is not JSONL: each line must be a JSON object such as {{"id": "q-1", '
            '"asks": [{{"content": "…"}}]}}; to make it from a table: gpt4batch convert '
            "{name}",
            path=source.path,
            name=shlex.quote(source.path),
        )
    all_of = tr("; all of them: gpt4batch check --json -i {path}", path=shlex.quote(source.path))
    more = all_of if len(source.bad) > SHOWN else ""
    return tr("fix them, or run the good ones with --skip-bad-lines{more}", more=more)


def refuse_bad_results(journal: Journal, *, skip: bool) -> None:
    """Refuse an output that cannot be read, unless what can be read of it is to be taken.

    Raises:
        UsageError: More of it is damaged than a crash leaves.
    """
    if journal.findings.is_refused and not skip:
        raise UsageError(journal.findings.refusal())


def forms_for(dialect: Dialect, options: Mapping[str, Any]) -> Callable[[bytes], Format]:
    """Return what chooses the form of an input by its first line.

    Args:
        dialect: Says what it cannot do with a line.
        options: What the flags of the run say of every ask.
    """
    asks = Asks(partial(dialect.wrong, options=options))
    batch = Batch(str(options.get("model") or "")) if dialect.takes_requests else None
    return partial(form_of, asks=asks, batch=batch)


def refuse_error_file(settings: Settings, source: Source, journal: Journal) -> None:
    """Refuse a file of its own for failures where the output has no rows, or no file.

    Raises:
        UsageError: The input is no batch file, the output a stream, or it is there and no file.
    """
    if not settings.error_file:
        return
    if source.form.name != Batch.name:
        raise UsageError(
            tr(
                "--error-file {error_file}: {path} is no OpenAI batch file; lines that fail "
                "stand in the output (gpt4batch results OUT --failed lists them)",
                error_file=settings.error_file,
                path=source.path,
            )
        )
    path = Path(settings.error_file)
    if path.exists() and not path.is_file():
        raise UsageError(
            tr("--error-file {error_file}: is there and no file", error_file=settings.error_file)
        )
    if journal.streaming:
        raise UsageError(
            tr(
                "--error-file {error_file}: needs an output file, -o FILE",
                error_file=settings.error_file,
            )
        )


def refuse_unpriced(settings: Settings) -> None:
    """Refuse a budget in money where nobody said what tokens cost.

    Raises:
        UsageError: There is no price.
    """
    if settings.max_cost and settings.priced is None:
        raise UsageError(
            tr("--max-cost {max_cost:g}: needs {price}", max_cost=settings.max_cost, price=PRICE)
        )


def refuse_shared_files(settings: Settings) -> None:
    """Refuse flags that name one file, where the one would destroy what the other holds.

    Devices and pipes can be shared, and the output may be the input.

    Raises:
        UsageError: Two name the same file.
    """
    files = [(flag, path, _identity(path)) for flag, path in _files(settings)]
    for (first, _, one), (second, other, two) in islice(combinations(files, 2), 1, None):
        # The first pair are input and output, which may be the same.
        if one == two and one is not None:
            raise UsageError(
                tr(
                    "{first} and {second} are the same file, {path}: nothing was called; "
                    "give each a file of its own",
                    first=first,
                    second=second,
                    path=os.path.realpath(other),
                )
            )


def _files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield every file of a run with what it is: the input, the output, then the others."""
    out = Path("/dev/stdout" if settings.out == STDIN else settings.out)
    number = disk.descriptor_of(str(out))
    yield f"-i {settings.input}", Path("/dev/stdin" if settings.input == STDIN else settings.input)
    yield f"-o {settings.out}", out
    for flag, name in _others(settings):
        yield f"{flag} {name}", Path(name)
    streaming = number is not None or is_stream(out)
    out = Path("gpt4batch") if streaming else Path(os.path.realpath(out))
    for path in (names.beside(out, name) for name in names.ALL):
        yield tr("{name} of the run itself", name=path.name), path


def _others(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the files beside input and output that flags name."""
    for flag, name in (
        ("--summary", settings.summary),
        ("--log-file", settings.log_file),
        ("--error-file", settings.error_file),
    ):
        if name:
            yield flag, name


def _identity(path: Path) -> tuple[int, int] | str | None:
    """Return what is the same for every name of a file; None for what can be shared."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def lines_at_once(settings: Settings, *, reachable: bool = False) -> int:
    """Return how many lines are held at once, which the descriptors may make fewer than `-g`.

    Args:
        settings: The settings of the run.
        reachable: Count the descriptors that the run could be given, not those that there are.

    Raises:
        UsageError: There are too few for a single line.
    """
    wanted = settings.goroutine
    most = descriptors.at_once(wanted, limit=descriptors.reachable() if reachable else None)
    if most < 1:
        raise UsageError(
            tr(
                "a process may open too few files here to run a single line: {needed} are "
                "needed (ulimit -n)",
                needed=descriptors.needed(1),
            )
        )
    return most


def too_few_descriptors(settings: Settings, most: int) -> str:
    """Return what is told where fewer lines are held at once than `-g` asks for."""
    wanted = settings.goroutine
    return tr(
        "{most} lines at once instead of -g {wanted}, which needs {needed} open "
        "files: raise the limit (ulimit -n), or choose -g {most}",
        most=most,
        wanted=wanted,
        needed=descriptors.needed(wanted),
    )


NO_FILE = {stat.S_IFDIR: tr("it is a folder"), stat.S_IFSOCK: tr("it is a socket")}
"""What can be named as an output and takes no bytes."""


# -- what cannot be written --------------------------------------------------------------------


def refuse_output(settings: Settings, journal: Journal) -> None:
    """Refuse an output that cannot be written, or not be put in order at the end.

    Raises:
        OutputError: It cannot.
    """
    if journal.streaming:
        return
    out = journal.out
    writable(out, tr("the output"))
    names_fit(out, moved=not settings.fix)
    folder = nearest(out.parent)
    if problem := _why_not(folder, os.W_OK | os.X_OK) or _why_full(folder):
        raise OutputError(
            tr(
                "cannot write beside {out}, where the output is put in order: {folder}: {problem}",
                out=out,
                folder=folder,
                problem=problem,
            )
        )


def refuse_other_files(settings: Settings) -> None:
    """Refuse a file beside the output that cannot be written.

    Raises:
        UsageError: It cannot.
    """
    for flag, path in _others(settings):
        try:
            writable(Path(os.path.realpath(path)), flag, folder_too=False)
        except OutputError as error:
            raise UsageError(str(error)) from None


def writable(path: Path, what: str, *, folder_too: bool = True) -> None:
    """Refuse a file that cannot be written, without writing it.

    Args:
        path: The file.
        what: What it is.
        folder_too: A folder that is not there would be made.

    Raises:
        OutputError: It is a folder, or it or its folder may not be written.
    """
    try:
        mode = path.stat().st_mode
        problem = NO_FILE.get(stat.S_IFMT(mode)) or _why_not(path, os.W_OK)
    except FileNotFoundError:
        folder = nearest(path.parent) if folder_too else path.parent
        problem = (
            tr("is not a folder") if not folder.is_dir() else _why_not(folder, os.W_OK | os.X_OK)
        )
        problem = problem and tr("{folder}: {problem}", folder=folder, problem=problem)
    except OSError as error:
        problem = because(error)
    if problem:
        raise OutputError(
            tr("cannot write {what} to {path}: {problem}", what=what, path=path, problem=problem)
        )


def _why_not(path: Path, access: int) -> str | None:
    """Return why a file or folder may not be written, or None where it may."""
    if os.access(path, access):
        return None
    try:
        read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError as error:
        return because(error)
    return tr("the file system is read-only") if read_only else tr("permission denied")


def _why_full(folder: Path) -> str | None:
    """Return why nothing can be written where no room is said to be left, or None where it can."""
    try:
        if not os.statvfs(folder).f_bavail:  # root may write there all the same: it is tried
            with TemporaryFile(dir=folder, buffering=0) as file:
                file.write(bytes(BLOCK))
    except OSError as error:
        return because(error)
    return None


def nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next((path for path in (folder, *folder.parents) if os.path.lexists(path)), Path("/"))


def names_fit(out: Path, *, moved: bool) -> None:
    """Refuse an output whose name leaves no room for those of the files beside it.

    Args:
        out: The output.
        moved: It is to be moved aside if it is there.

    Raises:
        OutputError: There is no room.
    """
    longest = names.beside(out, names.SNAPSHOT).name
    if moved and out.exists() and out.stat().st_size:
        longest = max(longest, f"{out.name}.20260101-000000", key=len)
    try:
        most = os.pathconf(nearest(out.parent), "PC_NAME_MAX")
    except OSError:
        return  # a file system that does not tell
    if (size := len(os.fsencode(longest))) > most:
        own = len(os.fsencode(out.name))
        raise OutputError(
            tr(
                "cannot write beside {out}: its name has {own} bytes, which makes {size} "
                "with what is added for a moment, and {most} fit; choose a shorter one with "
                "-o",
                out=out,
                own=own,
                size=size,
                most=most,
            )
        )
