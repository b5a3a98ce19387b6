"""The token: where it comes from and where it is kept."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4batch import disk
from gpt4batch.errors import UsageError
from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import BOM
from gpt4batch.settings import DEFAULT_TOKEN_URL, DEFAULT_TTL, address
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

HOW = tr("fetch one with: gpt4batch authsvc -e EMAIL")

LAST_SECOND = 253402300799
"""The end of the year 9999 as a time stamp; what is greater can only be milliseconds."""


def stored_path() -> Path:
    """Return where credentials are kept: the original's file, which either tool reads.

    Raises:
        UsageError: This user has no home folder.
    """
    try:
        return Path.home() / ".gpt4api-sk.pub"
    except RuntimeError:
        raise UsageError(
            tr(
                "this user has no home folder to keep the token in: set HOME, or give the "
                "token by --token-file or GPT4BATCH_TOKEN"
            )
        ) from None


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token with the moment it expires, as the token service gave it."""

    token: str
    expired_at: Any = None
    username: str = ""

    @classmethod
    def from_reply(cls, raw: bytes) -> Credentials | None:
        """Read `{"access_token", "expired_at", "username"}`; None if it holds no token."""
        try:
            doc = rawjson.loads(raw.removeprefix(BOM))
        except rawjson.JSONError:
            return None
        token = doc.get("access_token") if isinstance(doc, dict) else None
        if not isinstance(token, str) or not token.strip():
            return None
        return cls(token.strip(), doc.get("expired_at"), str(doc.get("username") or ""))

    @property
    def expires(self) -> datetime | None:
        """Return when the token expires, where its form is known: a time stamp or an ISO date."""
        value = self.expired_at
        if isinstance(value, str):
            value = _from_text(value.strip())
        if isinstance(value, datetime):
            return _aware(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            return None
        try:
            return datetime.fromtimestamp(value / 1000 if value > LAST_SECOND else value, UTC)
        except (OverflowError, ValueError, OSError):
            return None

    @property
    def expired(self) -> bool:
        """Return whether the token is known to have expired."""
        expires = self.expires
        return expires is not None and expires <= datetime.now(UTC)


def _from_text(text: str) -> datetime | float | None:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _aware(moment: datetime) -> datetime | None:
    """Return a moment with its time zone; None for the year 1, Go's unset date."""
    if moment.year <= 1:
        return None
    if moment.tzinfo:
        return moment
    try:
        return moment.astimezone()
    except (OverflowError, ValueError, OSError):  # the last hours of the year 9999
        return moment.replace(tzinfo=datetime.now().astimezone().tzinfo)


def shown(moment: datetime) -> str:
    """Return a moment in local time; where the local year has no number, in its own zone."""
    try:
        return moment.astimezone().strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return moment.strftime("%Y-%m-%d %H:%M %Z")


@dataclass(frozen=True, slots=True)
class Account:
    """The account that a token is fetched for, where, and for how many seconds."""

    email: str
    password: str
    url: str
    ttl: int = DEFAULT_TTL


def account() -> Account | None:
    """Return the account that the environment names.

    Raises:
        UsageError: GPT4BATCH_TOKEN_URL is not an address.
    """
    email = os.environ.get("GPT4BATCH_EMAIL", "")
    password = os.environ.get("GPT4BATCH_PASSWORD", "")
    if not email or not password:
        return None
    url = os.environ.get("GPT4BATCH_TOKEN_URL") or DEFAULT_TOKEN_URL
    return Account(email, password, address(url, "GPT4BATCH_TOKEN_URL"))


def store(credentials: Credentials, path: Path | None = None) -> Path:
    """Write the credentials atomically, readable by their owner only."""
    path = path or stored_path()
    document = {
        "access_token": credentials.token,
        "expired_at": credentials.expired_at,
        "username": credentials.username,
    }
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)  # mkstemp made it with mode 0600: the token is never readable by others
    with disk.replacing(path, Path(temporary), mode=0o600) as file:
        file.write(rawjson.dumps(document))
    return path


def load() -> Credentials:
    """Return the stored credentials.

    Raises:
        UsageError: They are missing, cannot be read, or have expired.
    """
    path = stored_path()
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(tr("no token: {path} is not there; {how}", path=path, how=HOW)) from None
    except OSError as error:
        raise UsageError(
            tr("cannot read the token in {path}: {reason}", path=path, reason=because(error))
        ) from None
    _keep_private(path)
    credentials = Credentials.from_reply(raw)
    if credentials is None:
        raise UsageError(tr("{path} holds no token; {how}", path=path, how=HOW))
    if credentials.expires and credentials.expired:
        raise UsageError(
            tr(
                "the token in {path} expired at {moment}; {how}",
                path=path,
                moment=shown(credentials.expires),
                how=HOW,
            )
        )
    return credentials


def _keep_private(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o077:
        return
    try:
        path.chmod(0o600)
    except OSError:
        log.warning("%s can be read by others (mode %03o) and could not be changed", path, mode)
    else:
        log.warning("%s could be read by others (mode %03o): changed to 600", path, mode)


def read_token(token: str, token_file: str) -> str:
    """Return the token to use: the given one, the one in a file, or the stored one.

    Raises:
        UsageError: No usable token was found.
    """
    if token.strip():
        return clean(token.strip(), "in --token")
    if not token_file:
        return clean(load().token, tr("in {path}", path=stored_path()))
    path = Path(token_file)
    try:
        raw, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise UsageError(
            tr(
                "cannot read --token-file {token_file}: {reason}",
                token_file=token_file,
                reason=because(error),
            )
        ) from None
    if stat.S_ISREG(mode) and mode & 0o077:  # the file is the user's own, so its mode stays
        text = "%s can be read by others (mode %03o): chmod 600 %s"
        log.warning(text, path, stat.S_IMODE(mode), path)
    credentials = Credentials.from_reply(raw)
    text = credentials.token if credentials else raw.decode("utf-8-sig", "replace").strip()
    if not text:
        raise UsageError(tr("--token-file {token_file} is empty", token_file=token_file))
    return clean(text, tr("in {path}", path=token_file))


def tokens_again(token: str, token_file: str) -> Callable[[], list[str]]:
    """Return how to read the token again where it came from, and where runs store a renewed one.

    Beside a token that was given by itself or in a file of its own, the stored one counts only once
    it has changed: before, it may be another account's.
    """
    own = not token.strip() and not token_file
    before = "" if own else _read_again("")

    def read() -> list[str]:
        found = [_read_again(token_file)] if token_file and not token.strip() else []
        return [text for text in (*found, _read_again("")) if text and text != before]

    return read


def again_in(token_file: str) -> Callable[[], list[str]]:
    """Return how to read a key again out of the file that it was given in, if in any."""
    return lambda: [text] if token_file and (text := _read_again(token_file)) else []


def _read_again(token_file: str) -> str:
    """Return the token in a file, by default the usual one, or an empty text."""
    try:
        return read_token("", token_file)
    except (UsageError, RuntimeError, OSError):
        return ""


def clean(token: str, where: str) -> str:
    """Return a token without the `Bearer` of the header that it was copied from.

    Raises:
        UsageError: It holds what no header can carry, such as a second line.
    """
    if token[:7].lower() == "bearer ":
        token = token[7:].strip()
    if not token.isascii() or not token.isprintable():
        raise UsageError(
            tr(
                "the token {where} is not valid: it contains line breaks or odd characters",
                where=where,
            )
        )
    return token
