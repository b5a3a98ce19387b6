"""The API key of a service with chat completions: where it comes from, and who needs none."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gpt4batch.dialects.services import ANY, service_of
from gpt4batch.errors import UsageError
from gpt4batch.service import credentials
from gpt4batch.service.private_addresses import is_fake, is_private
from gpt4batch.settings import header_of
from gpt4batch.words import tr

if TYPE_CHECKING:
    from gpt4batch.settings import Settings, WorkerSettings

VARIABLE = "OPENAI_API_KEY"
KEY_HEADERS = frozenset({"authorization", "api-key", "x-api-key"})
REFUSED = tr(
    "{reason}; is the key one of this service, and is -u its address? Set "
    "OPENAI_API_KEY (or GPT4BATCH_TOKEN, --token, --token-file) to a key that is "
    "valid, then run again with -f"
)


def read_key(settings: Settings | WorkerSettings) -> str:
    """Return the key to send; empty where a header has it, or a service at home needs none.

    The token that `authsvc` stores belongs to another service and is never read here.

    Raises:
        UsageError: A service outside of this network would be called without a key.
    """
    if settings.token.strip() or settings.token_file:
        return credentials.read_token(settings.token, settings.token_file)
    if key := os.environ.get(VARIABLE, "").strip():
        return credentials.clean(key, tr("in {variable}", variable=VARIABLE))
    if any(header_of(text)[0].lower() in KEY_HEADERS for text in settings.header):
        return ""
    host = urlsplit(settings.url).hostname or ""
    if service_of(settings.url) is ANY and _is_at_home(host):
        return ""
    raise UsageError(
        tr(
            "no key for {host}: set {variable} (or GPT4BATCH_TOKEN, --token, "
            "--token-file; for a header of its own, --header 'Name: value'). Only "
            "services on this machine or in a private network are called without one",
            host=host,
            variable=VARIABLE,
        )
    )


def _is_at_home(host: str) -> bool:
    """Return whether a host is this machine, or one in a private network, as its name says."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(is_private(text) and not is_fake(text) for text in found)
