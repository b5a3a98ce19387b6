"""What a refusal means: its codes first, then its status, then its words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gpt4batch.dialects.base import Reason, Refusal
from gpt4batch.dialects.services import ANY
from gpt4batch.dialects.waits import told_in_fields, told_in_words
from gpt4batch.dialects.wordings import CODES, NOT_THE_THREAD, PREFIX, QUOTED, SUFFIX, WORDINGS
from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gpt4batch.dialects.services import Service
    from gpt4batch.dialects.wordings import Wording

TEXT_FIELDS = (
    *("error", "message", "detail", "msg", "errmsg", "error_msg", "error_message"),
    *("error_description", "errors", "Message", "base_resp", "status_msg"),
)
CODE_FIELDS = ("code", "error_code", "errcode", "status", "reason", "limit_source", "type")
CODE_HOLDERS = ("error", "innererror", "inner_error", "metadata", "details", "detail", "errors")
QUOTA_NAMES = ("quotaId", "quotaMetric", "quota_limit")
PASSING = frozenset({408, 409, 425})
SOON = 300.0
"""Seconds: a longer wait is not that of a limit a minute."""
LONGEST_BODY = 1 << 16
DEEPEST = 10
"""How deep in a reply codes and words are looked for."""


def refusal_of(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    said: str = "",
    service: Service = ANY,
) -> Refusal:
    """Read a reply with an error status.

    Args:
        status: The status.
        headers: The headers.
        body: The body.
        said: The user's text, which the reply may repeat.
        service: What is known of the service.
    """
    try:
        doc = rawjson.loads(body)
    except rawjson.JSONError:  # a text that is no JSON is its own
        doc, text = None, re.sub(r"<[^<>]*>", " ", body[:LONGEST_BODY].decode(errors="replace"))
    else:
        text = error_text(doc)
    own = Words(text, said, _quota_names(doc), quotes=status != 429)
    after = told_in_fields(doc)
    if after is None:
        after = own.wait()
    named = "retry-after" in headers or "retry-after-ms" in headers
    waits = named if after is None else after <= SOON
    reason = _by_codes(doc, status, service)
    if reason is None and status == 402:
        told = named or after is not None
        reason = Reason.UNCLEAR_QUOTA if told else Reason.EMPTY_ACCOUNT
    reason = reason or _by_words(own, status, waits=waits) or _otherwise(status, own, waits=waits)
    return Refusal(reason, status, text, after)


def meaning_of_error(doc: Any, said: str = "", status: int = 200, service: Service = ANY) -> Reason:
    """Return what an error inside a reply with status 200 means.

    Args:
        doc: The error.
        said: The user's text, which it may repeat.
        status: The status that it names itself.
        service: What is known of the service.
    """
    own = Words(error_text(doc), said)
    reason = _by_codes(doc, status, service)
    if reason is None and status == 402:
        reason = Reason.EMPTY_ACCOUNT
    return reason or _by_words(own, status, waits=False) or Reason.REJECTED


def status_in(doc: Any) -> int:
    """Return the status that an error with status 200 names itself, else 200."""
    holders = (doc, doc.get("error"), doc.get("message")) if isinstance(doc, dict) else ()
    for holder in holders:
        code = holder.get("code") if isinstance(holder, dict) else None
        text = str(code) if isinstance(code, str | int) else ""
        if text.isascii() and text.isdigit() and 400 <= int(text) < 600:
            return int(text)
    return 200


class Words:
    """The error text of a service, without what it quotes or repeats of the user's text.

    Args:
        text: The error text.
        said: The user's text.
        names: Names of quotas that the reply gives elsewhere.
        quotes: The text may quote the user; a 429, which was not read for its content, does not.
    """

    def __init__(self, text: str, said: str, names: str = "", *, quotes: bool = True) -> None:
        self.whole = " ".join(text.split())
        unquoted = QUOTED.sub(" … ", self.whole) if quotes else self.whole
        self.own = f"{unquoted} {names}"
        bare = SUFFIX.sub("", self.whole).strip(" .!。\uff01")
        self._bare = (bare, PREFIX.sub("", bare))
        self._said = _folded(said)

    def find(self, wording: Wording) -> bool:
        """Return whether a wording stands in the text and is the service's own."""
        if wording.whole:
            return any(wording.pattern.fullmatch(text) for text in self._bare)
        if len(self.whole) > wording.longest:
            return False
        found = wording.pattern.finditer(self.own)
        return any(_folded(match.group()) not in self._said for match in found)

    def wait(self) -> float | None:
        """Return the seconds that the text asks to wait."""
        found = told_in_words(self.own)
        return None if found is None or _folded(found[1]) in self._said else found[0]


def _folded(text: str) -> str:
    return "".join(text.split()).casefold()


def error_text(doc: Any, depth: int = DEEPEST) -> str:
    """Return the words of an error in the shapes that services use."""
    if isinstance(doc, str):
        return doc
    if not depth:
        return ""
    if isinstance(doc, list):
        return error_text(doc[0], depth - 1) if doc else ""
    if not isinstance(doc, dict):
        return ""
    texts = [text for name in TEXT_FIELDS if (text := error_text(doc.get(name), depth - 1))]
    return ": ".join(dict.fromkeys(texts))


def _codes(doc: Any, depth: int = DEEPEST) -> Iterator[str]:
    """Yield the codes of an error, those that say more first."""
    if isinstance(doc, list) and depth > 0:
        for item in doc[:20]:
            yield from _codes(item, depth - 1)
    if not isinstance(doc, dict) or depth <= 0:
        return
    for name in CODE_HOLDERS:
        value = doc.get(name)
        if isinstance(value, str):
            yield value.casefold()
        else:
            yield from _codes(value, depth - 1)
    for name in CODE_FIELDS:
        if isinstance(value := doc.get(name), str):
            yield value.casefold()


def _by_codes(doc: Any, status: int, service: Service) -> Reason | None:
    if status == 401:
        return Reason.AUTH
    if status in service.statuses:
        return service.statuses[status]
    for code in _codes(doc):
        if found := service.codes.get(code) or CODES.get(code):
            return found
    return None


def _by_words(own: Words, status: int, *, waits: bool) -> Reason | None:
    for wording in WORDINGS:
        if (not wording.statuses or status in wording.statuses) and own.find(wording):
            limit = wording.passing and waits and status == 429
            return Reason.RATE_LIMIT if limit else wording.reason
    return None


def _quota_names(doc: Any, depth: int = DEEPEST) -> str:
    """Return the names of the quotas that an error is about, as Google's services give them."""
    if isinstance(doc, list) and depth > 0:
        return " ".join(_quota_names(item, depth - 1) for item in doc[:20])
    if not isinstance(doc, dict) or depth <= 0:
        return ""
    names = [value for name in QUOTA_NAMES if isinstance(value := doc.get(name), str)]
    names += [_quota_names(doc.get(name), depth - 1) for name in ("error", "details", "violations")]
    return " ".join(name for name in names if name)


def _otherwise(status: int, own: Words, *, waits: bool) -> Reason:
    """Return what a status means where nothing else is known."""
    if status == 429:
        return Reason.RATE_LIMIT
    if status == 503 and waits:
        return Reason.CROWDED
    if status in PASSING or status >= 500:
        return Reason.TRANSIENT
    if status in (404, 410) and not re.search(NOT_THE_THREAD, own.whole, re.IGNORECASE):
        return Reason.HISTORY_LOST
    return Reason.REJECTED
