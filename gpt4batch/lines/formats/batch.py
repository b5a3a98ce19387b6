"""OpenAI's batch files: a line is one request, a row of the output its response or its error.

Source: the Batch API's guide and its OpenAPI description (`BatchRequestInput`,
`BatchRequestOutput`). In our own form such a line is a conversation of a single ask; the request
itself stands verbatim under the key `openai_batch`.
"""

from __future__ import annotations

import re
from typing import Any

from gpt4batch.errors import NO_STATUS, NOT_READY
from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import (
    BATCH,
    KEY,
    Ask,
    BadLine,
    Line,
    LongNumber,
    decoded,
    kind_of,
    line_of,
    manner_of,
    parse_line,
)
from gpt4batch.lines.reading import listed, mapped, text_of
from gpt4batch.lines.record import BAD_LINE, LOG_MARK
from gpt4batch.usage import usage_of
from gpt4batch.words import tr

CHAT = "/v1/chat/completions"
"""Where a line goes that names no address."""

OURS = "gpt4batch-"
"""How the `id` of our own rows begins; 32 digits follow, of what was asked."""

URL = re.compile(r"/(?!/)[\w./:~%+-]*")
LONGEST_TITLE = 300
"""Characters of what is shown for a request without any text."""

CANCELLED = "batch_cancelled"
NOT_RUN_YET = (CANCELLED, "batch_expired")
"""The codes of rows that stand for requests that were never made."""

FOREIGN = tr(
    "results of another tool are taken by their custom_id alone: whether a request was edited since"
    " then is not known"
)


class Batch:
    """Lines of a batch file, each a request that is passed on as it stands.

    Args:
        model: Goes into the bodies that name none.
    """

    name = "batch"

    def __init__(self, model: str = "") -> None:
        self._model = model
        self._lines: dict[int, tuple[int, bytes]] = {}
        """The number and the key of the line with each custom_id."""
        self.foreign = False
        """Whether rows of other tools were read back."""

    @staticmethod
    def knows(doc: Any) -> bool:
        """Return whether a decoded line is one of a batch file."""
        return isinstance(doc, dict) and ("custom_id" in doc or BATCH in doc)

    def parse(self, raw: bytes, index: int = 0, number: int = 0) -> Line:
        """Return a line of an input.

        Raises:
            BadLine: It is not of the right shape.
        """
        try:
            line = self._line(decoded(raw), raw, index, number)
        except LongNumber:
            line = self._line(decoded(raw, rawjson.exact), raw, index, number)
        before, _ = self._lines.setdefault(_place(line.id), (number, line.key))
        if before != number:
            raise BadLine(
                tr("custom_id {id!r} stands in line {before} already", id=line.id, before=before)
            )
        return line

    def _line(self, doc: dict[str, Any], raw: bytes, index: int, number: int) -> Line:
        if BATCH in doc and "custom_id" not in doc:  # of a log, which is in our own form
            return line_of(doc, raw, index, number)
        self._check(doc)
        request = {"url": doc.get("url") or CHAT, "body": doc["body"]}
        own = {"id": doc["custom_id"], "asks": [{"content": _title(doc)}], BATCH: request}
        return line_of(own, raw, index, number)

    def _check(self, doc: dict[str, Any]) -> None:
        custom_id = doc.get("custom_id")
        if isinstance(custom_id, bool) or not isinstance(custom_id, str | int) or custom_id == "":
            kind = (
                tr("is missing")
                if custom_id in (None, "")
                else tr("must be text, not {kind}", kind=kind_of(custom_id))
            )
            raise BadLine(tr("custom_id {kind}", kind=kind))
        if "asks" in doc:
            raise BadLine(tr("it has custom_id and asks: a file has lines of one kind"))
        method = doc.get("method") or "POST"
        if not isinstance(method, str) or method.upper() != "POST":
            raise BadLine(tr("method {method!r}: only POST is made", method=method))
        url = doc.get("url") or CHAT
        if not isinstance(url, str):
            raise BadLine(tr("url must be text, not {kind}", kind=kind_of(url)))
        if not URL.fullmatch(url) or ".." in url:
            raise BadLine(
                tr(
                    "url {url!r}: must be a path below the service's address, such as {chat}",
                    url=url,
                    chat=CHAT,
                )
            )
        self._check_body(doc)

    def _check_body(self, doc: dict[str, Any]) -> None:
        body = doc.get("body")
        if not isinstance(body, dict):
            what = (
                tr("is missing")
                if body is None
                else tr("must be an object, not {kind}", kind=kind_of(body))
            )
            reason = tr("body {what}", what=what)
            if "params" in doc:
                reason += tr("; params are those of another service's batches")
            raise BadLine(reason)
        if body.get("stream"):
            raise BadLine(
                tr("stream in the body: leave it out, and set --stream for the whole run")
            )
        model = body.get("model")
        if model is not None and not isinstance(model, str):
            raise BadLine(tr("body.model must be text, not {kind}", kind=kind_of(model)))
        if not model and not self._model:
            raise BadLine(tr("body.model is missing: name it there, or for all lines by -m"))

    def line(self, raw: bytes, index: int = 0, number: int = 0) -> Line:
        """Return a line of an input that `parse` took, ready to be asked: read only once."""
        known = dict(rawjson.members(raw))
        doc = rawjson.loads(raw)
        if "custom_id" not in known or isinstance(doc["custom_id"], float):
            return parse_line(self.own(raw), index, number)
        url, title, body = doc.get("url") or CHAT, _title(doc), known["body"]
        options = {BATCH: {"url": url, "body": doc["body"]}}
        text = _own(known["custom_id"], title, url, body)
        asks = (Ask(None, title),)
        line = Line(text, asks, doc["custom_id"], options, index=index, number=number)
        line.cut = url, body
        try:
            line.manner = manner_of(line)
        except LongNumber:
            return parse_line(text, index, number)
        return line

    def own(self, raw: bytes) -> bytes:
        """Return the text of a line of an input as our own form has it."""
        known = dict(rawjson.members(raw))
        if "custom_id" not in known:
            return raw
        doc = rawjson.loads(raw)
        return _own(known["custom_id"], _title(doc), doc.get("url") or CHAT, known["body"])

    # -- rows --------------------------------------------------------------------------------

    def row(self, record: bytes) -> bytes:
        """Return a record of our own form as a row of a batch output."""
        known = dict(rawjson.members(record, before=BATCH))
        trouble = known.get("iErr", b"null")
        error = rawjson.loads(trouble)
        if error and error.get("stage") == BAD_LINE and "line" in error:
            return _bad_row(error)
        answer = known["answers"][1:-1].strip() if known["answers"] != b"null" else b""
        kept = error and error.get("reply") is not None
        reply = dict(rawjson.members(trouble))["reply"] if kept else b""
        response, failure = _outcome(answer, error, reply)
        key = text_of(mapped(rawjson.loads(known.get("meta", b"null"))).get("key"))
        row = {
            "id": OURS + (key if KEY.fullmatch(key) else parse_line(record).key.hex()),
            "custom_id": rawjson.Fragment(known["id"]),
            "response": response,
            "error": failure,
        }
        return rawjson.dumps(row)

    def result(self, row: bytes) -> bytes:
        """Return the record that a row of an output stands for; a record of our own form itself."""
        if row.startswith(LOG_MARK) or b'"custom_id"' not in row:
            return row
        try:
            doc = decoded(row)
        except BadLine:
            return row
        if "custom_id" not in doc or not ({"response", "error"} & doc.keys()):
            return row
        known = dict(rawjson.members(row))
        record: dict[str, Any] = {
            "id": rawjson.Fragment(known["custom_id"]),
            "asks": [{"content": ""}],
        }
        record |= _read_back(doc, known)
        usage = usage_of(mapped(mapped(doc.get("response")).get("body")).get("usage"))
        record["meta"] = {"key": self._key_of_row(doc).hex()}
        if usage is not None and record["answers"]:
            record["meta"] |= {"asks": [{"tokens": usage}]}
        return rawjson.dumps(record)

    def notes(self) -> list[str]:
        """Return what is worth knowing of the rows that were read back."""
        return [FOREIGN] if self.foreign else []

    def _key_of_row(self, doc: dict[str, Any]) -> bytes:
        """Return the key of the line that a row answers; for a row of others by its custom_id."""
        row_id = text_of(doc.get("id"))
        if row_id.startswith(OURS) and KEY.fullmatch(row_id.removeprefix(OURS)):
            return bytes.fromhex(row_id.removeprefix(OURS))
        self.foreign |= "line" not in mapped(doc.get("error"))  # else a bad line, told by us
        known = self._lines.get(_place(doc["custom_id"]))
        return known[1] if known else bytes(16)


def _place(custom_id: Any) -> int:
    """Return by what a custom_id is known: a million of them would be much text to keep."""
    return hash(repr(custom_id))  # numbers have hashes that others have as well


def failed(row: bytes) -> bool:
    """Return whether a row of an output tells of anything but a success."""
    doc = rawjson.loads(row)
    return doc["error"] is not None or doc["response"]["status_code"] != 200


def _own(custom_id: bytes, title: str, url: str, body: bytes) -> bytes:
    parts = (custom_id, rawjson.dumps(title), BATCH.encode(), rawjson.dumps(url), body)
    text = b'{"id":%b,"asks":[{"content":%b}],"%b":{"url":%b,"body":%b}}' % parts
    return rawjson.one_line(text)


def _title(doc: dict[str, Any]) -> str:
    """Return the text that a request is about, for whoever shows it."""
    body = mapped(doc.get("body"))
    asked = [item for item in listed(body.get("messages")) if mapped(item).get("role") == "user"]
    for value in (
        mapped(asked[-1] if asked else None).get("content"),
        body.get("input"),
        body.get("prompt"),
    ):
        if text := _text(value):
            return text
    return rawjson.dumps(body).decode(errors="replace")[:LONGEST_TITLE]


def said_before(body: dict[str, Any]) -> str:
    """Return what stands in a request before the last message of the user, for people."""
    messages = [mapped(item) for item in listed(body.get("messages"))]
    last = max((n for n, item in enumerate(messages) if item.get("role") == "user"), default=0)
    told = [(text_of(item.get("role")), _text(item.get("content"))) for item in messages[:last]]
    if len(told) == 1 and told[0][0] == "system":
        return told[0][1]
    return "\n\n".join(f"{role}: {text}" for role, text in told)


def _text(value: Any) -> str:
    """Return the text of a content in any of its shapes."""
    if isinstance(value, str):
        return value.strip() and value
    pieces = [
        item
        if isinstance(item, str)
        else text_of(mapped(item).get("text")) or _text(mapped(item).get("content"))
        for item in listed(value)
    ]
    return "\n\n".join(piece for piece in pieces if piece.strip())


def _outcome(answer: bytes, error: dict[str, Any] | None, reply: bytes) -> tuple[Any, Any]:
    """Return `response` and `error` of a row; a reply that is kept goes in as it was written."""
    if answer and not error:
        return _response(200, answer), None
    error = error or {"code": NOT_READY, "message": "it was not run"}
    code, message = error.get("code"), text_of(error.get("message"))
    if error.get("stage") is None and code == NOT_READY and not answer:
        return None, {"code": CANCELLED, "message": "This request was not made; run again with -f."}
    if error.get("stage") == "reply" and reply:  # a success by its status, and no answer
        return _response(200, reply), {"code": "no_answer", "message": message}
    told = isinstance(error.get("reply"), dict) and error.get("stage") == "chat"
    if isinstance(code, int) and 300 <= code < 600 and told:
        return _response(code, reply), None
    refused = code not in (NOT_READY, NO_STATUS) or (code, error.get("stage")) == (400, "chat")
    if isinstance(code, int) and 300 <= code < 600 and refused:
        body = {"error": {"message": message, "type": None, "param": None, "code": None}}
        return _response(code, rawjson.dumps(body)), None
    late = "no answer within" in message
    return None, {"code": "request_timeout" if late else "request_failed", "message": message}


def _response(status: int, body: bytes) -> dict[str, Any]:
    named = mapped(rawjson.loads(body)).get("id")
    request_id = named if isinstance(named, str) else ""
    return {"status_code": status, "request_id": request_id, "body": rawjson.Fragment(body)}


def _bad_row(error: dict[str, Any]) -> bytes:
    """Return the row of a bad line of the input, whose text is kept in it."""
    try:
        doc = rawjson.loads(error["line"].encode())
        custom_id = doc.get("custom_id") if isinstance(doc, dict) else None
    except rawjson.JSONError:
        custom_id = None
    trouble = {"code": "invalid_request", "message": error.get("message"), "line": error["line"]}
    return rawjson.dumps({"id": None, "custom_id": custom_id, "response": None, "error": trouble})


def _read_back(doc: dict[str, Any], known: dict[str, bytes]) -> dict[str, Any]:
    """Return `answers` and `iErr` of the record that a row stands for.

    A success has no `error`, status 200 and a body without an error; tools differ in all else.
    """
    response, trouble = doc.get("response"), doc.get("error")
    body = mapped(response).get("body")
    status = mapped(response).get("status_code")
    if not trouble and status == 200 and isinstance(body, dict) and not body.get("error"):
        text = dict(rawjson.members(known["response"]))["body"]
        return {"answers": [rawjson.Fragment(text)]}
    code = mapped(trouble).get("code")
    if code in NOT_RUN_YET:
        return {"answers": None, "iErr": {"code": NOT_READY, "message": "resource is not ready"}}
    words = text_of(mapped(mapped(body).get("error")).get("message"))
    error: dict[str, Any] = {
        "code": status if isinstance(status, int) and status else 501,
        "message": text_of(mapped(trouble).get("message")) or words or f"status {status}",
        "stage": "reply" if trouble and status == 200 else "chat",
    }
    if body is not None:
        error["reply"] = rawjson.Fragment(dict(rawjson.members(known["response"]))["body"])
    return {"answers": None, "iErr": error}
