"""Errors in the shapes that OpenAI-compatible services give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt4batch.mock.refusal import Refusal

WAIT = "Retry-After"
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
SHAPES = ("nested", "number", "flat", "list", "text")


def shaped(refusal: Refusal, shape: str) -> Any:
    """Return the body of a refusal.

    Args:
        refusal: What is wrong.
        shape: `nested` is OpenAI's, `number` the same with the status for its code, as vLLM has
            it, `flat` that of older vLLM, `list` that of Gemini, which names its waits there and
            nowhere else, `text` words and nothing else.
    """
    status = refusal.status
    kind = refusal.kind or ("server_error" if status >= 500 else "invalid_request_error")
    if shape == "text":
        return {"error": refusal.message}
    if shape == "flat":
        name = "BadRequestError" if status < 500 else "InternalServerError"
        told = {"object": "error", "message": refusal.message, "type": name}
        return {**told, "param": refusal.param, "code": status}
    if shape == "list":
        name = "RESOURCE_EXHAUSTED" if status == 429 else "INVALID_ARGUMENT"
        error: dict[str, Any] = {"code": status, "message": refusal.message, "status": name}
        if wait := refusal.headers.get(WAIT):
            error["details"] = [{"@type": RETRY_INFO, "retryDelay": f"{wait}s"}]
        return [{"error": error}]
    code = status if shape == "number" else refusal.code
    error = {"message": refusal.message, "type": kind, "param": refusal.param, "code": code}
    return {"error": error}
