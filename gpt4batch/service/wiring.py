"""What it takes to call the service: sockets, token and downloads, from the settings."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
import httpx

from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.dialects.base import CHAT
from gpt4batch.dialects.known import GPT4API, dialect_for
from gpt4batch.errors import AuthError, UsageError
from gpt4batch.service import credentials, keys
from gpt4batch.service.certificates import certificates
from gpt4batch.service.downloads import Downloads
from gpt4batch.service.links import Links, guard
from gpt4batch.service.proxies import proxy_of
from gpt4batch.service.token_service import fetch_token
from gpt4batch.service.tokens import Tokens
from gpt4batch.service.transport import AiohttpTransport
from gpt4batch.settings import MIB, Settings, WorkerSettings, header_of, moved
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gpt4batch.control import Control
    from gpt4batch.dialects.base import Dialect
    from gpt4batch.errors import RetryableError

log = logging.getLogger(__name__)


def endpoints(
    settings: Settings | WorkerSettings, dialect: Dialect | None = None
) -> dict[str, str]:
    """Return the addresses to call by name; those of a rehearsal are all on its own host."""
    dialect = dialect or dialect_for(settings)
    addresses = dialect.addresses(settings.url, settings.upload_url)
    if settings.origin:
        return {name: moved(url, settings.origin) for name, url in addresses.items()}
    return addresses


def sockets(addresses: Mapping[str, str], proxy: str) -> AiohttpTransport:
    """Return the transport for some addresses.

    Raises:
        UsageError: The certificates or the proxy cannot be used.
    """
    for url in addresses.values():
        proxy_of(url, proxy)
    return AiohttpTransport(proxy=proxy, verify=certificates(addresses.values()))


def first_token(settings: Settings | WorkerSettings, dialect: Dialect) -> str:
    """Return the token or key to begin with; the stored token is that of gpt4api alone.

    Raises:
        UsageError: No usable one was found.
    """
    if dialect is GPT4API:
        return credentials.read_token(settings.token, settings.token_file)
    return keys.read_key(settings)


def headers(settings: Settings | WorkerSettings) -> dict[str, str]:
    """Return the headers that the user adds to each call, by their names in lower case."""
    return {name.lower(): value for name, value in map(header_of, settings.header)}


def tokens(
    settings: Settings | WorkerSettings,
    token: str,
    transport: httpx.AsyncBaseTransport,
    control: Control,
    clock: Clock = SYSTEM,
) -> Tokens:
    """Return the token or key that every call carries, and what may come in its place.

    Raises:
        UsageError: GPT4BATCH_TOKEN_URL is not an address.
    """
    if dialect_for(settings) is GPT4API:
        return _renewed(settings, token, transport, control, clock)
    again = credentials.again_in("" if settings.token.strip() else settings.token_file)
    more = headers(settings)
    return Tokens(token, headers=more, stored=again, advice=keys.REFUSED, clock=clock)


def _renewed(
    settings: Settings | WorkerSettings,
    token: str,
    transport: httpx.AsyncBaseTransport,
    control: Control,
    clock: Clock,
) -> Tokens:
    """Return a token of gpt4api, which renews itself where the environment has the credentials."""
    more = headers(settings)
    account, rehearsal = credentials.account(), bool(settings.origin)
    stored: Callable[[], list[str]] = list
    if not rehearsal and (account or not settings.token):
        stored = credentials.tokens_again(settings.token, settings.token_file)
    if account is None:
        secrets = (os.environ.get("GPT4BATCH_PASSWORD", ""),)
        return Tokens(token, headers=more, secrets=secrets, stored=stored, clock=clock)
    if rehearsal:
        account = replace(account, url=settings.origin + urlsplit(account.url).path)

    async def pause(error: RetryableError, delay: float) -> None:
        log.warning("no new token yet: %s; again in %.1f s", error, delay)
        with control.waiting():
            await anyio.sleep(delay)

    async def fetch() -> str:
        found = await fetch_token(transport, account, retries=settings.retries, pause=pause)
        try:
            credentials.clean(found.token, tr("that {url} gave", url=account.url))
        except UsageError as error:
            raise AuthError(str(error)) from None
        if not rehearsal:  # a rehearsal's must not replace the real one
            _keep(found)
        return found.token

    secrets = (account.password,)
    return Tokens(token, fetch, headers=more, secrets=secrets, stored=stored, clock=clock)


def _keep(found: credentials.Credentials) -> None:
    """Store a new token; where that is not possible, this run has it all the same."""
    try:
        credentials.store(found)
    except (OSError, UsageError) as error:  # UsageError: no home folder
        why = because(error) if isinstance(error, OSError) else error
        log.warning("the new token could not be stored, only this run has it: %s", why)


def downloads(
    folder: Path,
    settings: Settings | WorkerSettings,
    addresses: Mapping[str, str],
    transport: httpx.AsyncBaseTransport,
    control: Control,
    clock: Clock = SYSTEM,
) -> Downloads:
    """Return what fetches the files that answers link to into a folder."""
    hosts = {httpx.URL(url).host for url in addresses.values()}
    public = guard(frozenset(hosts), allow_private=settings.allow_private_downloads)
    return Downloads(
        folder,
        settings.download_prefix,
        Links(transport, addresses[CHAT], public),
        control,
        retries=settings.retries,
        max_size=settings.max_download_size * MIB,
        min_speed=settings.download_min_speed,
        clock=clock,
        synced=getattr(settings, "fsync", "") != "never",
    )
