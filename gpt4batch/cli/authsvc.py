"""The command `authsvc`: fetch a token and store it."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

import typer

from gpt4batch.cli.flags import interactive
from gpt4batch.errors import UsageError
from gpt4batch.settings import AuthSettings
from gpt4batch.words import because, say, spoken, tr

if TYPE_CHECKING:
    import ssl

    from gpt4batch.service.credentials import Credentials

SETTINGS = AuthSettings
HELP = tr("Fetch a token and store it in ~/.gpt4api-sk.pub.")
EXAMPLES = ("gpt4batch authsvc -e me@example.com",)


def action(settings: AuthSettings) -> None:
    """Fetch a token with email and password, and store it."""
    import anyio

    from gpt4batch.service.certificates import authorities
    from gpt4batch.service.credentials import stored_path
    from gpt4batch.service.proxies import proxy_of

    if not settings.email:
        raise UsageError(tr("-e EMAIL is missing: the address of the account"))
    stored_path()  # refused before a token is made that nobody could keep
    proxy_of(settings.url, settings.proxy)  # so is one that cannot be used
    verify = authorities() if settings.url.lower().startswith("https") else None
    password = _text(_password(settings), tr("password"))
    found = anyio.run(
        _fetch, settings, _text(settings.email, tr("email address")), password, verify
    )
    where, expires = _stored(found, settings.url)
    text = tr("token stored in {path}", path=where)
    if expires:
        text = tr("token stored in {path}, good until {moment}", path=where, moment=expires)
    typer.echo(spoken(text))


async def _fetch(
    settings: AuthSettings, email: str, password: str, verify: ssl.SSLContext | None
) -> Credentials:
    from gpt4batch.service.credentials import Account
    from gpt4batch.service.token_service import fetch_token
    from gpt4batch.service.transport import AiohttpTransport

    async with AiohttpTransport(proxy=settings.proxy, verify=verify) as transport:
        account = Account(email, password, settings.url, settings.ttl)
        return await fetch_token(transport, account)


def _stored(found: Credentials, url: str) -> tuple[str, str]:
    """Store a token and return where, and until when it is good.

    Raises:
        UsageError: A batch would refuse it, or it cannot be stored.
    """
    from gpt4batch.service import credentials

    credentials.clean(found.token, tr("that {url} gave", url=url))
    until = credentials.shown(found.expires) if found.expires else ""
    if found.expired:
        raise UsageError(
            tr(
                "the token that {url} gave expired at {moment} already; nothing was stored: "
                "is this machine's clock right?",
                url=url,
                moment=until,
            )
        )
    try:
        return str(credentials.store(found)), until
    except OSError as error:
        raise UsageError(
            tr(
                "cannot store the token in {path}: {reason}",
                path=credentials.stored_path(),
                reason=because(error),
            )
        ) from None


def _password(settings: AuthSettings) -> str:
    """Return the password: the flag's, a pipe's, or what is typed unseen."""
    if settings.password:
        return settings.password
    try:
        if interactive():
            found = getpass.getpass(say("Password: "))
        else:
            found = sys.stdin.readline().rstrip("\r\n") if sys.stdin is not None else ""
    except EOFError:
        found = ""
    except UnicodeDecodeError:
        raise _no_text(tr("password")) from None
    if not found:
        raise UsageError(
            tr("no password: type it when asked, pipe it in, or set GPT4BATCH_PASSWORD")
        )
    return found


def _text(given: str, what: str) -> str:
    """Refuse bytes that are not text: JSON could not carry them."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise _no_text(what) from None
    return given


def _no_text(what: str) -> UsageError:
    return UsageError(
        tr("the {what} is not UTF-8 text: is the terminal set to another encoding?", what=what)
    )
