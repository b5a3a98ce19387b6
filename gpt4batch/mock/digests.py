"""Ids and chances as pure functions of what was asked."""

from __future__ import annotations

from hashlib import blake2b

LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def digest(*parts: object) -> bytes:
    """Return 32 bytes that depend on the parts and on where one ends and the next begins."""
    data = [
        part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        for part in parts
    ]
    return blake2b(
        b"".join([b"%d:%b" % (len(part), part) for part in data]), digest_size=32
    ).digest()


def uuid_of(key: bytes) -> str:
    """Return the digest as a UUID of version 4."""
    text = key.hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:32]}"


def letters_of(key: bytes, length: int) -> str:
    """Return the digest as up to 32 letters and digits."""
    return "".join([LETTERS[byte % 62] for byte in key[:length]])


def chance_of(key: bytes, place: int = 0) -> float:
    """Return one of the four numbers from 0 to 1 that a digest holds."""
    return int.from_bytes(key[8 * place : 8 * place + 8]) / 2**64
