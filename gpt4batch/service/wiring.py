"""What it takes to call the service: sockets, token and downloads, from the settings."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from gpt4batch.errors import AuthError, UsageError
from gpt4batch.service import credentials
from gpt4batch.service.certificates import certificates
from gpt4batch.service.client import Client, fetch_token
from gpt4batch.service.downloads import Downloads, guard
from gpt4batch.service.tokens import Tokens
from gpt4batch.service.transport import AiohttpTransport, proxy_of
from gpt4batch.settings import MIB, AuthSettings, Endpoints, Settings, WorkerSettings

if TYPE_CHECKING:
    from gpt4batch.control import Control

log = logging.getLogger(__name__)


def sockets(addresses: Endpoints, proxy: str) -> AiohttpTransport:
    """Return the transport for some addresses.

    Raises:
        UsageError: The certificates or the proxy cannot be used.
    """
    for url in (addresses.chat, addresses.upload, addresses.gizmos):
        proxy_of(url, proxy)
    return AiohttpTransport(proxy=proxy, verify=certificates(addresses))


def tokens(token: str, transport: AiohttpTransport, origin: str = "") -> Tokens:
    """Return the token, which renews itself where the environment holds the credentials.

    Raises:
        UsageError: The address that issues tokens is none.
    """
    account = credentials.account()
    if account is None:
        return Tokens(token, secrets=(os.environ.get("GPT4BATCH_PASSWORD", ""),))
    email, password, url = account.email, account.password, account.url
    if origin:
        url = origin + urlsplit(url).path

    async def fetch() -> str:
        found = await fetch_token(transport, url, email, password, AuthSettings().ttl)
        try:
            credentials.clean(found.access_token, f"that {url} gave")
        except UsageError as error:
            raise AuthError(str(error)) from None
        if origin:
            return found.access_token  # a rehearsal's, which must not replace the real one
        try:
            credentials.store(found)
        except (OSError, UsageError) as error:  # it is good all the same
            log.warning("the new token could not be stored: %s", error)
        return found.access_token

    return Tokens(token, fetch, secrets=(password,))


def downloads(
    folder: Path,
    settings: Settings | WorkerSettings,
    addresses: Endpoints,
    client: Client,
    control: Control,
) -> Downloads:
    """Return what fetches the files that answers link to into a folder."""
    hosts = {httpx.URL(url).host for url in (addresses.chat, addresses.upload)}
    return Downloads(
        folder,
        settings.download_prefix,
        client.open_url,
        guard(frozenset(hosts), allow_private=settings.allow_private_downloads),
        control,
        retries=settings.retries,
        max_size=settings.max_download_size * MIB,
    )
