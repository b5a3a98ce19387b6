"""The command `authsvc`: fetch a token and store it."""

from __future__ import annotations

import getpass
import sys

import typer

from gpt4batch.cli.flags import interactive, say
from gpt4batch.errors import UsageError
from gpt4batch.settings import AuthSettings

SETTINGS = AuthSettings
HELP = (
    "Fetch a token and store it in ~/.gpt4api-sk.pub.",
    "获取批量脚本认证:取得令牌并保存到 ~/.gpt4api-sk.pub.",
)


def action(settings: AuthSettings) -> None:
    """Fetch a token with email and password, and store it."""
    import anyio

    if not settings.email:
        raise UsageError("-e EMAIL is missing: the address of the account")
    where, expires = anyio.run(_fetch, settings, _password(settings))
    until = say(f", good until {expires}", f",有效期至 {expires}") if expires else ""
    typer.echo(say(f"token stored in {where}{until}", f"令牌已保存到 {where}{until}"))


async def _fetch(settings: AuthSettings, password: str) -> tuple[str, str]:
    import httpx

    from gpt4batch import credentials
    from gpt4batch.client import fetch_token
    from gpt4batch.transport import AiohttpTransport

    verify = httpx.create_ssl_context() if settings.url.startswith("https") else None
    async with AiohttpTransport(proxy=settings.proxy, verify=verify) as transport:
        found = await fetch_token(transport, settings.url, settings.email, password, settings.ttl)
    try:
        where = credentials.store(found)
    except OSError as error:
        raise UsageError(
            f"cannot store the token in {credentials.stored_path()}: {error.strerror}"
        ) from None
    expires = found.expires
    return str(where), expires.astimezone().strftime("%Y-%m-%d %H:%M") if expires else ""


def _password(settings: AuthSettings) -> str:
    """Return the password: the flag's, a pipe's, or what is typed unseen."""
    if settings.password:
        return settings.password
    if not interactive():
        found = sys.stdin.readline().rstrip("\r\n") if sys.stdin is not None else ""
    else:
        try:
            found = getpass.getpass(say("Password: ", "密码: "))
        except EOFError:
            found = ""
    if not found:
        raise UsageError("no password: type it when asked, pipe it in, or set GPT4BATCH_PASSWORD")
    return found
