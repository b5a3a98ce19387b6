"""What the services under measurement answer, as bytes made once."""

from __future__ import annotations

import orjson

TEXT = (
    "The second shelf holds eleven jars, four of them open. "
    "第二层架子上有十一个罐子, 其中四个没有盖好。"
    "Counting from the left, the third is honey and the seventh is salt; 其余的标签看不清楚。"
) * 2

CONVERSATION = "6f0c1b52-8f43-4a0e-9a55-0d3b6a1f2c77"
MESSAGE = "c1d2a8de-77b0-4f0f-8a3e-5be6a9f41d20"

REPLY = {
    "created": 1708834483,
    "message_id": MESSAGE,
    "conversation_id": CONVERSATION,
    "end_turn": True,
    "contents": [
        {
            "conversation_id": CONVERSATION,
            "error": None,
            "message": {
                "author": {"metadata": {}, "name": None, "role": "assistant"},
                "content": {"content_type": "text", "parts": [TEXT]},
                "create_time": 1708834483.542442,
                "end_turn": True,
                "id": MESSAGE,
                "metadata": {
                    "citations": [],
                    "finish_details": {"stop_tokens": [100260], "type": "stop"},
                    "gizmo_id": None,
                    "is_complete": True,
                    "message_type": "next",
                    "model_slug": "gpt-4",
                    "parent_id": "4df09d39-4ebe-41de-ac2a-1697ee36561e",
                },
                "recipient": "all",
                "status": "finished_successfully",
                "update_time": None,
                "weight": 1,
            },
        }
    ],
}

CHAT = orjson.dumps(REPLY)

COMPLETION = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1708834483,
        "model": "gpt-4",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 60, "completion_tokens": 120, "total_tokens": 180},
        "system_fingerprint": "fp_1",
    }
)

UPLOADED = orjson.dumps(
    {
        "conversation_id": "internal-1",
        "attachment": {
            "id": "file-1",
            "name": "part.bin",
            "size": 104857600,
            "mimeType": "application/octet-stream",
        },
        "part": None,
    }
)


def with_downloads(links: list[str]) -> bytes:
    """Return the reply with links to files."""
    return orjson.dumps({**REPLY, "downloads": links})


def with_usage(usage: dict[str, int]) -> bytes:
    """Return the completion with what it took."""
    return orjson.dumps({**orjson.loads(COMPLETION), "usage": usage})
