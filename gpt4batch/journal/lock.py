"""The lock of an output: one run writes it at a time."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from gpt4batch import disk
from gpt4batch.errors import OutputError, UsageError
from gpt4batch.journal.names import LOCK, beside
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


class Lock:
    """The lock beside an output, which the system drops with the process that holds it.

    The file goes with a run that ends, so whoever locks it looks whether it is still that file.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._path = beside(out, LOCK)
        self._fd = -1
        self._locked: bool | None = None

    def take(self) -> None:
        """Become the only run that writes the output.

        Raises:
            UsageError: Another run does.
            OutputError: The folder cannot be written.
        """
        try:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            while not self._is_there():
                self._close()
                self._fd = disk.open_lock(self._path)
                self._locked = disk.lock(self._fd)
                if self._locked is False:
                    self._close()
                    raise self._taken()
            if self._locked is None:
                log.warning("%s cannot be locked: run nothing else with this output", self._path)
            disk.put_back(self._out)  # a killed run's
        except OSError as error:
            raise self._unusable(error) from None

    def look(self) -> None:
        """Refuse what `take` would refuse, without making a file.

        Raises:
            UsageError: Another run writes the output.
            OutputError: The lock cannot be opened.
        """
        if not os.path.lexists(self._path):
            return
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return  # the run has ended in this moment
        except OSError as error:
            raise self._unusable(error) from None
        try:
            if disk.lock(descriptor, shared=True) is False:
                raise self._taken()
        except OSError as error:
            raise self._unusable(error) from None
        finally:
            os.close(descriptor)

    def give_back(self) -> None:
        """Let another run have the output."""
        if self._locked and self._is_there():
            with suppress(OSError):  # another user's may stay
                self._path.unlink()
        self._close()

    def _is_there(self) -> bool:
        """Tell whether the file that is open is the one beside the output."""
        if self._fd < 0:
            return False
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._fd), self._path.lstat())
        return False

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _taken(self) -> UsageError:
        return UsageError(
            tr(
                "another run is writing {out} (it holds {path}); wait for it to end, or "
                "choose another output with -o",
                out=self._out,
                path=self._path,
            )
        )

    def _unusable(self, error: OSError) -> OutputError:
        if os.path.lexists(self._path):
            return OutputError(
                tr(
                    "cannot use the lock {path}: {reason}; if no run is on, remove it (or have "
                    "its owner do so), or choose another output with -o",
                    path=self._path,
                    reason=because(error),
                )
            )
        return OutputError(
            tr("cannot write beside {out}: {reason}", out=self._out, reason=because(error))
        )
