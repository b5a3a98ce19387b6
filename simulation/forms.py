"""How the lines of a history stand in its input and its output, by what is spoken.

A plan has lines of asks. A batch file has the same questions as requests, its output rows.
"""

from __future__ import annotations

import json
from typing import Any

GPT4API, OPENAI, BATCH = "gpt4api", "openai", "batch"
SPOKEN = (GPT4API, OPENAI, BATCH)
NOT_READY = {"code": 400, "message": "resource is not ready"}


def fitting(lines: list[dict[str, Any]], spoken: str) -> list[dict[str, Any]]:
    """Return what of some lines can be said: no pictures, for they are none; one ask in a batch."""
    if spoken == GPT4API:
        return lines
    for number, line in enumerate(lines):
        for ask in line["asks"]:
            ask.pop("images", None)
        if spoken == BATCH:
            line["asks"] = [{"content": line["asks"][0]["content"]}]
            line["id"] = line.get("id", f"b-{number}")
    return lines


def input_line(line: dict[str, Any], spoken: str) -> str:
    """Return a line as the input has it."""
    if spoken == BATCH:
        messages = [{"role": "user", "content": line["asks"][0]["content"]}]
        line = {"custom_id": line["id"], "body": {"model": "m", "messages": messages}}
    return json.dumps(line, ensure_ascii=False)


def read_back(doc: dict[str, Any]) -> dict[str, Any]:
    """Return a line of an input or an output as a plan has it."""
    if "body" in doc:
        content = doc["body"]["messages"][-1]["content"]
        return {"id": doc["custom_id"], "asks": [{"content": content}]}
    if "custom_id" not in doc:
        return doc
    response, error = doc["response"], doc["error"]
    line: dict[str, Any] = {"id": doc["custom_id"], "answers": None}
    if error is None and response["status_code"] == 200:
        return line | {"answers": [response["body"]]}
    waits = error is not None and error["code"] == "batch_cancelled"
    return line | {"iErr": NOT_READY if waits else {"message": str(error or response["body"])}}
