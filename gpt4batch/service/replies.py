"""Replies read: what is in one that answers, and the error that any other one becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt4batch.dialects.base import PLAIN_ANSWER, Answer, Refusal
from gpt4batch.errors import (
    CallError,
    Gpt4BatchError,
    NetworkError,
    QuotaError,
    ReplyError,
    UnclearQuota,
)
from gpt4batch.lines import rawjson
from gpt4batch.service.failures import SHOWN, failure, shortened
from gpt4batch.service.retry import retry_after
from gpt4batch.service.transport import damage_of
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import httpx

    from gpt4batch.dialects.base import Call, Dialect

LONGEST_KEPT = 1 << 16
"""Bytes of a refusal that are kept with the error that it becomes."""

REDIRECTS = (301, 302, 303, 307, 308)


class Replies:
    """Read the replies of a service.

    Args:
        dialect: Says what they mean.
        scrub: Takes secrets out of what is shown or kept.
    """

    def __init__(self, dialect: Dialect, scrub: Callable[[str], str]) -> None:
        self._dialect = dialect
        self._scrub = scrub

    def read(
        self, response: httpx.Response, body: bytes, stage: str, call: Call, now: datetime
    ) -> tuple[bytes, dict[str, Any], Answer]:
        """Return the text of a reply in one line, the object that it is, and what it answers.

        Args:
            response: The reply.
            body: Its body.
            stage: Which call it was.
            call: What was said in it.
            now: The moment at which it came.

        Raises:
            CallError: It is not what was asked for.
            FatalError: The run has to stop.
        """
        if not response.is_success:
            raise self._refusal(response, body, stage, call.said, now)
        doc, raw = self._object(response, body, stage), rawjson.one_line(body)
        if stage != "chat":
            return raw, doc, PLAIN_ANSWER
        found = self._dialect.answer(doc, call.said, call.path)
        if isinstance(found, Refusal):
            raise self._not_an_answer(found, raw)
        return raw, doc, found

    def _object(self, response: httpx.Response, body: bytes, stage: str) -> dict[str, Any]:
        """Return the object that a reply with a good status is."""
        damage = damage_of(response)
        try:
            doc = rawjson.loads(body)
        except rawjson.JSONError as error:
            whole = isinstance(error, rawjson.UntakenError) or rawjson.objects_in(body)
            within = rawjson.objects_within(body) if stage == "chat" else ()
            if damage or whole or any(isinstance(self._dialect.answer(d), Answer) for d in within):
                # It may be an answer that was paid for: another one would be no better.
                kept = rawjson.dumps(self._scrub(body.decode(errors="surrogateescape")))
                text = tr("the reply is {error}", error=error)
                if damage:
                    text = tr("the reply cannot be read: {damage}", damage=damage)
                raise ReplyError(text, kept) from None
            text = tr("the reply is {error}", error=error)
            if body.strip():
                text = tr("{text}: {words}", text=text, words=self._beginning(body))
            raise NetworkError(text, stage=stage, code=response.status_code) from None

        if not isinstance(doc, dict):
            text = tr("the reply is not a JSON object: {words}", words=self._beginning(body))
            raise ReplyError(text, self._scrubbed(rawjson.one_line(body)))
        return doc

    def no_upload(self, path: str, refusal: Refusal, reply: bytes) -> ReplyError:
        """Return the error of a reply to an upload that does not say what the file became."""
        text = tr(
            "the reply to the upload of {path} has {words}",
            path=path,
            words=self._shown(refusal.words),
        )
        return ReplyError(text, self._scrubbed(reply))

    def _refusal(
        self, response: httpx.Response, body: bytes, stage: str, said: str, now: datetime
    ) -> Gpt4BatchError:
        """Return the error of a status that is not a success."""
        code = response.status_code
        refusal = self._dialect.refusal(code, response.headers, body, said)
        text: str = f"{code} {response.reason_phrase}".strip()
        if words := self._shown(refusal.words):
            text = tr("{text}: {words}", text=text, words=words)
        if refusal.advice:
            text = tr("{text} ({advice})", text=text, advice=refusal.advice)
        if code in REDIRECTS:
            target = self._scrub(response.headers.get("location", "")) or tr("nowhere")
            text = tr("{text} to {target}; the token is not sent on", text=text, target=target)
        after = retry_after(response.headers, now)
        error = failure(refusal, text, stage, refusal.after if after is None else after)
        if isinstance(error, CallError) and _is_object(body):
            error.refusal = self._scrubbed(rawjson.one_line(body))
        return error

    def _not_an_answer(self, refusal: Refusal, raw: bytes) -> Gpt4BatchError:
        """Return the error of a reply with status 200 that does not answer its ask."""
        text = self._shown(refusal.words)
        error = failure(refusal, text, "reply", None)
        if isinstance(error, QuotaError | UnclearQuota):
            return error
        kept = ReplyError(text, self._scrubbed(raw))
        kept.usage = refusal.usage
        kept.forgotten = error.forgotten if isinstance(error, CallError) else ""
        return kept

    def _beginning(self, body: bytes) -> str:
        """Return how a reply that is not a JSON object begins, in one short line."""
        return self._shown(body[: SHOWN * 8].decode(errors="replace"))

    def _shown(self, words: str) -> str:
        return shortened(self._scrub(words))

    def _scrubbed(self, reply: bytes) -> bytes:
        """Return a reply that is kept in an error without any secret in it."""
        return self._scrub(reply.decode(errors="surrogateescape")).encode(errors="surrogateescape")


def _is_object(body: bytes) -> bool:
    """Return whether a body is one JSON object, so that a record can hold it as it is."""
    try:
        return isinstance(rawjson.loads(body), dict)
    except rawjson.JSONError:
        return False
