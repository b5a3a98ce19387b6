"""Uploads: a form read as a stream, of which a digest, a size and the picture's size are kept."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Any

import imagesize  # type: ignore[import-untyped]
from aiohttp import BodyPartReader

from gpt4batch.lines.pictures import media_type
from gpt4batch.mock.refusal import Refusal

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

HEAD = 1024 * 1024
"""What is kept of a file while its upload lasts: a picture's size stands somewhere in there."""

CHUNK = 256 * 1024
FIELD = 4096
TYPES = ("multimodal", "my_files")


@dataclass(slots=True)
class Form:
    """What an upload said and brought."""

    conversation_id: str | None = None
    type: str | None = None
    name: str = ""
    size: int = -1
    sha256: str = ""
    head: bytes = b""

    def checked(self) -> Form:
        """Return the form, or refuse it for what is missing or wrong."""
        if self.conversation_id is None:
            raise Refusal(422, "the form field conversation_id is missing (it may be empty)")
        if self.type not in TYPES:
            raise Refusal(422, f"type must be multimodal or my_files, not {self.type!r}")
        if self.size < 0:
            raise Refusal(422, "the form field file is missing")
        return self


async def receive(request: BaseRequest, limit: int) -> Form:
    """Read the form of an upload; memory does not grow with the file.

    Args:
        request: The request that carries it.
        limit: Largest file in bytes.
    """
    if request.content_type != "multipart/form-data":
        raise Refusal(415, f"an upload is multipart/form-data, not {request.content_type}")
    if (request.content_length or 0) > limit + 64 * 1024:
        raise _too_large(limit)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    form = Form()
    try:
        async for part in await request.multipart():
            await _read(part, form, limit)
    except (ValueError, AssertionError) as error:
        raise Refusal(400, f"the form cannot be read: {error}") from error
    return form.checked()


async def _read(part: Any, form: Form, limit: int) -> None:
    if not isinstance(part, BodyPartReader):
        raise Refusal(400, "a form within a form")
    if part.name == "file":
        if form.size >= 0:
            raise Refusal(422, "more than one file in an upload")
        await _read_file(part, form, limit)
    elif part.name in ("conversation_id", "type"):
        value = b""
        while piece := await part.read_chunk(FIELD):
            value += piece
            if len(value) > FIELD:
                raise Refusal(422, f"{part.name} is too long")
        setattr(form, part.name, value.decode("utf-8", "replace"))
    else:
        raise Refusal(422, f"unknown form field {part.name!r}")


async def _read_file(part: BodyPartReader, form: Form, limit: int) -> None:
    if not part.filename:
        raise Refusal(422, "the file has no file name")
    form.name = part.filename.encode("utf-8", "replace").decode()
    form.size = 0
    head = bytearray()
    hashed = sha256()
    while chunk := await part.read_chunk(CHUNK):
        form.size += len(chunk)
        if form.size > limit:
            raise _too_large(limit)
        hashed.update(chunk)
        if len(head) < HEAD:
            head += chunk[: HEAD - len(head)]
    form.sha256 = hashed.hexdigest()
    form.head = bytes(head)


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"the file is larger than {limit} bytes")


def picture_of(form: Form) -> tuple[str, int, int]:
    """Return media type, width and height of the picture, or refuse what is none."""
    kind = media_type(form.head)
    width, height = imagesize.get(BytesIO(form.head)) if kind else (-1, -1)
    if width <= 0 or height <= 0:
        raise Refusal(400, f"{form.name!r} is no PNG, JPEG, GIF or WebP picture")
    return kind, int(width), int(height)


def media_type_of(form: Form) -> str:
    """Return the media type of a file by its content and name; text is text whatever its name."""
    guessed = mimetypes.guess_type(form.name)[0] or ""
    if b"\0" not in form.head:
        return guessed if guessed.startswith("text/") else "text/plain"
    return guessed or "application/octet-stream"
