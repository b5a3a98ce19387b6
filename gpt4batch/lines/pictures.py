"""What a picture is by its first bytes."""

from __future__ import annotations

import re

HEAD = 16
"""So many bytes tell."""

SIGNATURES = tuple(
    (re.compile(beginning, re.DOTALL), name)
    for beginning, name in (
        (rb"\x89PNG\r\n\x1a\n", "PNG"),
        (rb"\xff\xd8\xff", "JPEG"),
        (rb"GIF8[79]a", "GIF"),
        (rb"RIFF....WEBP", "WebP"),
        (rb"BM", "BMP"),
        (rb"II\*\0|MM\0\*", "TIFF"),
        (rb"....ftypheic", "HEIC"),
        (rb"....ftypmif1", "HEIF"),
        (rb"....ftypavif", "AVIF"),
    )
)

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "GIF": "image/gif",
    "WebP": "image/webp",
}
"""The formats that services take and browsers show."""


def picture_format(head: bytes) -> str:
    """Return the name of a picture's format, or an empty text for anything else."""
    return next((name for beginning, name in SIGNATURES if beginning.match(head)), "")


def media_type(head: bytes) -> str:
    """Return the media type of a picture that can be sent and shown, else an empty text."""
    return MEDIA_TYPES.get(picture_format(head), "")
