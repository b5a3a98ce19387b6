"""Files and what file systems refuse: what only decorates a write is tried, and missed in words.

Network drives, mounted files and folders of other users refuse calls that have nothing to do with
the bytes: a folder that is not synced, a mode that cannot be set, a name that cannot be replaced.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4batch.words import because

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

log = logging.getLogger(__name__)

MIB = 1 << 20

NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}
"""How a file system says that it has no such call."""

NOT_REPLACED = {errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES, *NOT_SUPPORTED}
"""How renaming fails at a file that can be written all the same: it is mounted, or another's."""

NO_LOCKS = {errno.ENOLCK, errno.EBADF, errno.EIO, *NOT_SUPPORTED}
"""How locking fails where the file system has no such locks."""

HELD = {errno.EAGAIN, errno.EACCES}
"""How locking fails where somebody else holds the lock."""

LINKS = 40
"""How many symbolic links are followed, as Linux does."""

WHOLE = ".whole"
"""What is added to the name of a file that is about to be written in place of another one."""

_told: set[str] = set()


def tell_once(text: str, *values: object) -> None:
    """Warn of something that a run goes on without, the first time that it is missed."""
    if (told := text % values) not in _told:
        _told.add(told)
        log.warning(text, *values)


# -- synced ----------------------------------------------------------------------------------


def sync(descriptor: int) -> None:
    """Bring what was written to a file to the disk.

    macOS has no `fdatasync`, and its `fsync` stops at the drive's own memory.

    Raises:
        OSError: The disk refused. A file system that syncs no files at all is only warned of.
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with contextlib.suppress(OSError):  # a network drive
            fcntl.fcntl(descriptor, full)
            return
    try:
        getattr(os, "fdatasync", os.fsync)(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        tell_once(
            "the file system syncs no files (%s): a power cut may cost answers", because(error)
        )


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the file system does such a thing."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        tell_once("%s cannot be synced: %s", folder, because(error))
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        tell_once("%s cannot be synced: %s", folder, because(error))
    finally:
        os.close(descriptor)


# -- replaced --------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(
    path: Path, temporary: Path, *, synced: bool = True, mode: int | None = None
) -> Iterator[IO[bytes]]:
    """Yield a new file that takes the place of another one, atomically, when it is whole.

    Args:
        path: The file to replace.
        temporary: The name of the new one until then, in the same folder.
        synced: The new file is on the disk before it has the name.
        mode: Its mode; else it keeps that of the old one.

    Raises:
        OSError: It cannot be written, and the old file is as it was.
    """
    wanted = mode if mode is not None else _mode_of(path)
    try:
        # Nobody can read it before it has its mode.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o666 if wanted is None else wanted))
        with temporary.open("wb", buffering=MIB) as file:
            yield file
            file.flush()
            if synced:
                sync(file.fileno())
        _set_mode(temporary, wanted)
        _replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if synced:
        sync_folder(path.parent)


def _mode_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode & 0o7777
    except OSError:
        return None


def _set_mode(path: Path, mode: int | None) -> None:
    """Give a file the bits that the umask took away."""
    if mode is None or path.stat().st_mode & 0o7777 == mode:
        return
    try:
        path.chmod(mode)
    except OSError as error:
        tell_once("the file system sets no modes: %s: %s", path, because(error))


def _replace(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
    except OSError as error:
        if error.errno not in NOT_REPLACED or not is_writable_in_place(path):
            raise
        tell_once("%s cannot be replaced (%s): it is written in place", path, because(error))
        temporary.replace(whole_of(path))
        put_back(path)


def is_writable_in_place(path: Path) -> bool:
    """Return whether a file is there and takes bytes."""
    return path.is_file() and os.access(path, os.W_OK)


def whole_of(path: Path) -> Path:
    """Return where the whole content of a file lies while it is written in place."""
    return path.with_name(f".{path.name}{WHOLE}")


def put_back(path: Path) -> None:
    """Write a file in place from its whole content beside it, if there is any.

    A kill in between costs nothing: it is done again.

    Raises:
        OSError: It cannot be written; its content stays beside it.
    """
    beside = whole_of(path)
    if not beside.exists():
        return
    with beside.open("rb") as source, path.open("r+b") as file:
        shutil.copyfileobj(source, file, MIB)
        file.truncate()
        file.flush()
        sync(file.fileno())
    beside.unlink()


def move_aside(path: Path, other: Path) -> None:
    """Give a file another name, which is free; where that is refused, its content.

    Raises:
        OSError: It cannot be done, and the file is as it was.
    """
    try:
        path.rename(other)
    except OSError as error:
        if error.errno not in NOT_REPLACED or not is_writable_in_place(path):
            raise
        _copy(path, other)
        os.truncate(path, 0)


def _copy(path: Path, other: Path) -> None:
    try:
        with path.open("rb") as source, other.open("xb") as file:
            shutil.copyfileobj(source, file, MIB)
            file.flush()
            sync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            other.unlink()
        raise


def open_to_append(path: Path) -> int:
    """Open a file, or make it, and return its descriptor.

    Linux refuses O_CREAT for a file of another user in a sticky folder, which may be written.
    """
    flags = os.O_RDWR | os.O_APPEND
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT, 0o666)


def encodable(name: str) -> str:
    """Return a name that the locale can write, with "_" for what it lacks."""
    encoding = sys.getfilesystemencoding()
    return "".join(character if _has(encoding, character) else "_" for character in name)


def _has(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def descriptor_of(path: str) -> int | None:
    """Return the number of the descriptor that a path such as /dev/stdin or /dev/fd/3 names."""
    process = f"/proc/{os.getpid()}"
    folders = ("/dev/fd", f"{process}/fd", f"{process}/task/{os.getpid()}/fd")
    for _ in range(LINKS):
        folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - links are kept
        if name.isdigit() and os.path.realpath(folder) in folders:
            return int(name)
        try:
            path = os.path.join(folder, os.readlink(path))  # noqa: PTH115, PTH118
        except OSError:
            return None
    return None


# -- locked ----------------------------------------------------------------------------------


def open_lock(path: Path) -> int:
    """Open a lock file, or make it; one of another user is locked without being writable."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Take the lock of an open file without waiting; return False where somebody else holds it.

    A file system may have one kind of lock only. It may have none: None says that it was not taken.
    """
    way = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    for take in (fcntl.flock, fcntl.lockf):
        try:
            take(descriptor, way)
        except OSError as error:
            if error.errno in HELD:
                return False
            if error.errno not in NO_LOCKS:
                raise
        else:
            return True
    return None
