"""A file that is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gpt4batch.errors import OutputError, UsageError
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def refuse_taken(path: str, sources: Sequence[str], *, force: bool) -> None:
    """Refuse a file that is there already, or that is one of those which are read.

    Raises:
        UsageError: It is.
    """
    for source in sources:
        with contextlib.suppress(OSError):
            if Path(path).samefile(source):
                raise UsageError(
                    tr("-o {path}: is the file that is read; name another one", path=path)
                )
    if os.path.isfile(path) and not force:  # noqa: PTH113
        raise UsageError(tr("-o {path}: is there already; --force replaces it", path=path))


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[IO[bytes]]:
    """Give a file to write; it gets its name when it is complete.

    Raises:
        OutputError: It cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        if target.is_dir():
            raise OutputError(tr("-o {path}: is a folder", path=path))
        with _told(path), target.open("wb") as device:
            yield device
        return
    draft = target.with_name(f".gpt4batch-{os.getpid()}.tmp")
    try:
        with _told(path), draft.open("xb") as file:
            yield file
            file.flush()
            with contextlib.suppress(OSError):  # some network drives refuse it
                os.fsync(file.fileno())
        with _told(path):
            draft.replace(target)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            tr("-o {path}: cannot be written: {reason}", path=path, reason=because(error))
        ) from None
