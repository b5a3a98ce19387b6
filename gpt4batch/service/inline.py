"""The pictures and files that are a part of their ask, read and encoded."""

from __future__ import annotations

from base64 import b64encode
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from gpt4batch.dialects.base import Kind, Upload
from gpt4batch.dialects.openai import is_address
from gpt4batch.errors import AttachmentError
from gpt4batch.lines.pictures import HEAD
from gpt4batch.service.attachments import measure, shown
from gpt4batch.settings import MIB
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from pathlib import Path

    from gpt4batch.dialects.base import Dialect

MOST = 16 * MIB
"""Bytes of encoded files that are kept: a picture goes up again with each ask that follows it."""


class InlineFiles:
    """Reads files, and keeps the last few of them as they are sent.

    Args:
        folder: Where relative paths start from.
        dialect: Says what can be a part of an ask.
    """

    def __init__(self, folder: Path, dialect: Dialect) -> None:
        self._folder = folder
        self._dialect = dialect
        self._known: OrderedDict[tuple[str, int, int], dict[str, Any]] = OrderedDict()
        self._size = 0

    async def read(self, kind: Kind, path: str) -> Upload:
        """Return a file as it is sent; an address of a picture is passed on.

        Raises:
            AttachmentError: It is not there, cannot be read, is too large or of no type that is
                taken.
        """
        if kind is Kind.PICTURE and is_address(path):
            return Upload(kind, {"path": path})
        size, changed = measure(self._folder, path, self._dialect.largest_file)
        key = (path, size, changed)
        note = self._known.get(key)
        if note is None:
            note = await anyio.to_thread.run_sync(self._encoded, path)
            size = len(note["base64"])
            if key not in self._known and size <= MOST:  # another line may have read it meanwhile
                self._known[key] = note
                self._size += size
            while self._size > MOST:
                _, old = self._known.popitem(last=False)
                self._size -= len(old["base64"])
        else:
            self._known.move_to_end(key)
        upload = Upload(kind, note)
        if wrong := self._dialect.unfit(upload):
            raise AttachmentError(
                tr("the attachment {path} {wrong}", path=shown(path), wrong=wrong)
            )
        return upload

    def _encoded(self, path: str) -> dict[str, Any]:
        try:
            content = (self._folder / path).read_bytes()
        except OSError as error:
            text = tr(
                "cannot read the attachment {path}: {reason}",
                path=shown(path),
                reason=because(error),
            )
            raise AttachmentError(text) from error
        return {"path": path, "head": content[:HEAD], "base64": b64encode(content)}
