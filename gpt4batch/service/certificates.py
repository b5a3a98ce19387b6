"""Which certificates are trusted, for https."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import httpx

from gpt4batch.errors import UsageError
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Iterable


def certificates(urls: Iterable[str]) -> ssl.SSLContext | None:
    """Return the certificates to trust where an address needs them.

    Raises:
        UsageError: They cannot be read.
    """
    return authorities() if any(url.lower().startswith("https") for url in urls) else None


def authorities() -> ssl.SSLContext:
    """Return the certificates to trust; reading them costs the start-up a tenth of a second.

    Raises:
        UsageError: They cannot be read.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        file = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or "certificates"
        raise UsageError(
            tr("cannot read the certificates in {file}: {error}", file=file, error=error)
        ) from None
