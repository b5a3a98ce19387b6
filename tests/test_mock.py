from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
import zlib
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import imagesize  # type: ignore[import-untyped]
import orjson
import pytest

from gpt4batch.cli import mocksvc
from gpt4batch.errors import UsageError
from gpt4batch.mock.assets import BLOCK, asset_bytes
from gpt4batch.mock.limits import Limit
from gpt4batch.mock.recent import Recent
from gpt4batch.mock.replies import answer_text
from gpt4batch.mock.server import MockService
from gpt4batch.mock.settings import MockSettings
from gpt4batch.mock.stats import Stats
from gpt4batch.settings import flags_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CHAT = "/standard/all-tools"
GIZMO = "/concurrent/gizmos"
UPLOAD = "/standard/uploaded"
TOKEN = "/console/access_token"
ACCOUNT = {"email": "mock@example.com", "password": "mock-password", "ttl": 60}


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


HEADER = (3).to_bytes(4) + (2).to_bytes(4) + b"\x08\x02\x00\x00\x00"
PIXELS = chunk(b"IDAT", zlib.compress(b"\0" * 20))
PNG = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", HEADER) + PIXELS + chunk(b"IEND", b"")
JPEG = (
    b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    b"\xff\xc0\x00\x11\x08\x00\x02\x00\x03\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01\xff\xd9"
)
GIF = b"GIF89a\x03\x00\x02\x00\x00\x00\x00;"
WEBP = (
    b"RIFF\x1e\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x01\x00\x00"
    + b"\0" * 8
)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


class Caller:
    """A client that holds the token and knows the two kinds of call."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def chat(self, message: str = "hello", url: str = CHAT, **fields: Any) -> httpx.Response:
        return await self.http.post(url, json={"message": message, "model": "gpt-4", **fields})

    async def upload(
        self,
        content: bytes = b"module example\n",
        name: str = "go.mod",
        kind: str = "my_files",
        conversation: str = "",
    ) -> httpx.Response:
        fields = {"conversation_id": conversation, "type": kind}
        return await self.http.post(UPLOAD, data=fields, files={"file": (name, content)})

    async def stats(self) -> dict[str, Any]:
        seen: dict[str, Any] = (await self.http.get("/stats")).json()
        return seen


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[MockService, Caller]]:
    async with (
        MockService(MockSettings(**settings)) as service,
        httpx.AsyncClient(
            base_url=service.origin,
            headers={"Authorization": f"Bearer {service.token}"},
            trust_env=False,
            timeout=10,
            verify=False,
        ) as http,
    ):
        yield service, Caller(http)


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with serving() as (_, caller):
        yield caller


async def until(caller: Caller, seen: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask for the stats until they are as wanted."""
    with anyio.fail_after(10):
        stats = await caller.stats()
        while not seen(stats):
            stats = await caller.stats()
    return stats


def text_of(reply: Any) -> str:
    return str(reply["contents"][-1]["message"]["content"]["parts"][0])


def error_of(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert error["code"] == response.status_code
    return str(error["message"])


# Answers


async def test_chat_gets_a_reply_with_the_documented_keys_in_their_order(caller: Caller) -> None:
    reply = (await caller.chat()).json()
    assert list(reply) == ["created", "message_id", "conversation_id", "end_turn", "contents"]
    entry = reply["contents"][0]
    assert list(entry) == ["conversation_id", "error", "message"]
    message = entry["message"]
    assert " ".join(message) == (
        "author content create_time end_turn id metadata recipient status update_time weight"
    )
    assert message["id"] == reply["message_id"]
    assert entry["conversation_id"] == reply["conversation_id"]
    assert message["metadata"]["model_slug"] == "gpt-4"
    assert isinstance(reply["created"], int)


@pytest.mark.parametrize("edition", ["standard", "concurrent"])
async def test_both_editions_answer_on_all_three_routes(caller: Caller, edition: str) -> None:
    form = {"conversation_id": "", "type": "my_files"}
    file = {"file": ("a.txt", b"a")}
    uploaded = await caller.http.post(f"/{edition}/uploaded", data=form, files=file)
    chat = await caller.chat(url=f"/{edition}/all-tools")
    gizmo = await caller.chat(url=f"/{edition}/gizmos", gizmo_id="g-1")
    assert [uploaded.status_code, chat.status_code, gizmo.status_code] == [200] * 3
    assert gizmo.json()["contents"][0]["message"]["metadata"]["gizmo_id"] == "g-1"


async def test_answer_text_follows_from_seed_message_and_digests(caller: Caller) -> None:
    file = (await caller.upload(b"one")).json()
    conversation = file["conversation_id"]
    picture = (await caller.upload(PNG, "a.png", "multimodal", conversation)).json()
    reply = await caller.chat(
        "你好 \u2028",
        conversation_id=conversation,
        parts=[picture["part"]],
        attachments=[file["attachment"]],
    )
    digests = [sha256(PNG).hexdigest(), sha256(b"one").hexdigest()]
    assert text_of(reply.json()) == answer_text("你好 \u2028", digests)
    assert all(digest in text_of(reply.json()) for digest in digests)


async def test_seed_decides_text_and_ids() -> None:
    replies = []
    for seed in (1, 1, 2):
        async with serving(seed=seed) as (_, caller):
            replies.append((await caller.chat()).json())
    first, same, other = [(r["message_id"], r["conversation_id"], text_of(r)) for r in replies]
    assert first == same
    assert not set(first) & set(other)


async def test_answer_size_lengthens_the_text() -> None:
    async with serving(answer_size=5000) as (_, caller):
        text = text_of((await caller.chat()).json())
    assert 5000 <= len(text) < 5020
    assert text == answer_text("hello", size=5000)


async def test_attachment_is_opened_in_entries_before_the_answer(caller: Caller) -> None:
    file = (await caller.upload()).json()
    reply = await caller.chat(
        conversation_id=file["conversation_id"], attachments=[file["attachment"]]
    )
    messages = [entry["message"] for entry in reply.json()["contents"]]
    assert [message["author"]["role"] for message in messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert [message["content"]["content_type"] for message in messages] == [
        "text",
        "text",
        "code",
        "tether_browsing_display",
        "text",
    ]
    assert messages[1]["content"]["parts"] == ["hello"]
    assert messages[1]["metadata"]["attachments"][0]["id"] == file["attachment"]["id"]
    assert messages[4]["metadata"]["parent_id"] == messages[3]["id"]


async def test_latency_less_jitter_is_kept() -> None:
    async with serving(latency=0.05, jitter=0.5) as (_, caller):
        start = time.monotonic()
        await caller.chat()
        assert time.monotonic() - start >= 0.024


# Conversations


async def test_conversation_goes_on_under_its_id_with_the_last_message(caller: Caller) -> None:
    first = (await caller.chat()).json()
    second = await caller.chat(
        "more",
        conversation_id=first["conversation_id"],
        parent_message_id=first["message_id"],
    )
    assert second.status_code == 200
    assert second.json()["conversation_id"] == first["conversation_id"]
    assert second.json()["message_id"] != first["message_id"]


async def test_same_message_twice_begins_two_conversations(caller: Caller) -> None:
    replies = [(await caller.chat()).json() for _ in range(2)]
    assert len({reply["conversation_id"] for reply in replies}) == 2
    assert len({reply["message_id"] for reply in replies}) == 2


async def test_unknown_conversation_is_not_found(caller: Caller) -> None:
    chat = await caller.chat(conversation_id="nowhere")
    upload = await caller.upload(conversation="nowhere")
    assert (chat.status_code, upload.status_code) == (404, 404)
    assert error_of(chat) == error_of(upload) == "conversation nowhere not found"


@pytest.mark.parametrize("parent", ["", "another"])
async def test_parent_that_is_not_the_last_message_is_a_conflict(
    caller: Caller, parent: str
) -> None:
    first = (await caller.chat()).json()
    response = await caller.chat(
        "more", conversation_id=first["conversation_id"], parent_message_id=parent
    )
    assert response.status_code == 409
    assert first["message_id"] in error_of(response)


async def test_parent_without_conversation_is_refused(caller: Caller) -> None:
    response = await caller.chat(parent_message_id="x")
    assert (response.status_code, error_of(response)) == (
        400,
        "parent_message_id without conversation_id",
    )


async def test_last_ask_repeated_gets_the_same_ids_and_is_counted(caller: Caller) -> None:
    first = (await caller.chat()).json()
    place = {
        "conversation_id": first["conversation_id"],
        "parent_message_id": first["message_id"],
    }
    replies = [(await caller.chat("more", **place)).json() for _ in range(2)]
    assert replies[0]["message_id"] == replies[1]["message_id"]
    twice = (await caller.stats())["answered_twice"]
    assert twice == {"count": 1, "examples": [{"message": "more", "times": 2}]}


async def test_upload_begins_a_conversation_that_its_chat_renames(caller: Caller) -> None:
    file = (await caller.upload()).json()
    assert file["conversation_id"].startswith("internal-")
    reply = (
        await caller.chat(conversation_id=file["conversation_id"], attachments=[file["attachment"]])
    ).json()
    assert not reply["conversation_id"].startswith("internal-")
    next_file = (await caller.upload(conversation=reply["conversation_id"])).json()
    assert next_file["conversation_id"] == reply["conversation_id"]


async def test_forgotten_conversations_keep_memory_bounded() -> None:
    async with serving(history=3) as (_, caller):
        first = (await caller.chat("0")).json()
        for number in range(1, 10):
            await caller.chat(str(number))
        response = await caller.chat("more", conversation_id=first["conversation_id"])
    assert response.status_code == 404


def test_recent_keeps_the_last_and_at_most_twice_as_many() -> None:
    recent: Recent[int, int] = Recent(10)
    for number in range(1000):
        recent.put(number, number)
        assert all(recent.get(key) == key for key in range(max(0, number - 9), number + 1))
        assert len(recent) <= 20


# Strictness of chats


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "the body is no JSON"),
        (b"[]", 400, "the body must be a JSON object"),
        (b'{"model": "gpt-4"}', 422, "message is missing"),
        (b'{"message": "", "model": "gpt-4"}', 422, "message is empty"),
        (b'{"message": 1, "model": "gpt-4"}', 422, "message must be a string"),
        (b'{"message": "a"}', 422, "model is missing"),
        (b'{"message": "a", "model": "m", "spam": 1}', 422, "unknown field 'spam'"),
        (b'{"message": "a", "model": "m", "parts": {}}', 422, "parts must be a list of objects"),
        (b'{"message": "a", "model": "m", "attachments": ["x"]}', 422, "attachments must be"),
        (
            b'{"message": "a", "model": "m", "history_and_training_disabled": "no"}',
            422,
            "history_and_training_disabled must be true or false",
        ),
        (
            b'{"message": "a", "model": "m", "parts": [{"asset_pointer": "file-service://x"}]}',
            400,
            "parts: asset_pointer 'file-service://x' was never uploaded",
        ),
    ],
)
async def test_wrong_chat_is_refused_with_what_was_wrong(
    caller: Caller, body: bytes, status: int, words: str
) -> None:
    headers = {"Content-Type": "application/json"}
    response = await caller.http.post(CHAT, content=body, headers=headers)
    assert response.status_code == status
    assert words in error_of(response)
    assert (await caller.stats())["refusals"][0]["message"] == error_of(response)


async def test_gizmos_without_gizmo_id_is_refused(caller: Caller) -> None:
    response = await caller.chat(url=GIZMO)
    assert (response.status_code, error_of(response)) == (422, "gizmo_id is missing")


async def test_chat_that_is_not_json_by_its_type_is_refused(caller: Caller) -> None:
    response = await caller.http.post(CHAT, content=b"{}")
    assert response.status_code == 415


async def test_attachment_described_otherwise_than_uploaded_is_refused(caller: Caller) -> None:
    file = (await caller.upload()).json()
    changed = {**file["attachment"], "size": 1}
    response = await caller.chat(conversation_id=file["conversation_id"], attachments=[changed])
    assert response.status_code == 400
    assert "is not described as its upload's reply did" in error_of(response)


async def test_attachment_of_another_conversation_is_refused(caller: Caller) -> None:
    file = (await caller.upload()).json()
    place = {"conversation_id": file["conversation_id"], "attachments": [file["attachment"]]}
    assert (await caller.chat(**place)).status_code == 200
    response = await caller.chat("other", attachments=[file["attachment"]])
    assert response.status_code == 400
    assert "belongs to another conversation" in error_of(response)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", CHAT, 405), ("DELETE", "/stats", 405), ("POST", "/files/x", 405), ("GET", "/no", 404)],
)
async def test_wrong_method_or_path_is_refused(
    caller: Caller, method: str, path: str, status: int
) -> None:
    response = await caller.http.request(method, path)
    assert response.status_code == status
    assert error_of(response)


# Tokens


@pytest.mark.parametrize("header", [None, "mock-token", "Bearer", "Bearer wrong", "Basic x"])
async def test_call_without_the_bearer_token_is_unauthorized(
    caller: Caller, header: str | None
) -> None:
    del caller.http.headers["Authorization"]
    if header is not None:
        caller.http.headers["Authorization"] = header
    for response in (await caller.chat(), await caller.upload()):
        assert response.status_code == 401
        assert "token" in error_of(response)


async def test_empty_token_accepts_any() -> None:
    async with serving(token="") as (_, caller):
        caller.http.headers["Authorization"] = "Bearer anything"
        assert (await caller.chat()).status_code == 200


async def test_issued_token_is_accepted(caller: Caller) -> None:
    issued = (await caller.http.post(TOKEN, json=ACCOUNT)).json()
    assert list(issued) == ["access_token", "expired_at", "username"]
    assert 50 < issued["expired_at"] - time.time() <= 60
    assert issued["username"] == "mock@example.com"
    caller.http.headers["Authorization"] = f"Bearer {issued['access_token']}"
    assert (await caller.chat()).status_code == 200
    assert (await caller.stats())["tokens_issued"] == 1


@pytest.mark.parametrize(
    ("order", "status", "words"),
    [
        ({**ACCOUNT, "password": "wrong"}, 401, "wrong email or password"),
        ({**ACCOUNT, "email": "you@example.com"}, 401, "wrong email or password"),
        ({"email": "mock@example.com"}, 422, "password is missing"),
        ({**ACCOUNT, "ttl": "60"}, 422, "ttl must be"),
        ({**ACCOUNT, "name": "x"}, 422, "unknown field 'name'"),
        ([], 400, "must be a JSON object"),
    ],
)
async def test_wrong_order_of_a_token_is_refused(
    caller: Caller, order: Any, status: int, words: str
) -> None:
    response = await caller.http.post(TOKEN, json=order)
    assert response.status_code == status
    assert words in error_of(response)


async def test_issued_token_expires_after_token_ttl() -> None:
    async with serving(token_ttl=0.1) as (_, caller):
        issued = (await caller.http.post(TOKEN, json=ACCOUNT)).json()
        caller.http.headers["Authorization"] = f"Bearer {issued['access_token']}"
        response = await caller.chat()
        with anyio.fail_after(5):
            while response.status_code == 200:
                response = await caller.chat()
        assert (response.status_code, "expired" in error_of(response)) == (401, True)


async def test_token_is_refused_after_its_calls_until_a_new_one_is_fetched() -> None:
    async with serving(token_calls=2) as (_, caller):
        statuses = [(await caller.chat()).status_code for _ in range(3)]
        issued = (await caller.http.post(TOKEN, json=ACCOUNT)).json()
        caller.http.headers["Authorization"] = f"Bearer {issued['access_token']}"
        statuses += [(await caller.chat()).status_code for _ in range(3)]
    assert statuses == [200, 200, 401, 200, 200, 401]


# Uploads


@pytest.mark.parametrize(
    ("content", "name", "media_type"),
    [
        (PNG, "a.png", "image/png"),
        (JPEG, "a.jpg", "image/jpeg"),
        (GIF, "a.bin", "image/gif"),
        (WEBP, "a.webp", "image/webp"),
    ],
)
async def test_picture_is_measured_by_its_content(
    caller: Caller, content: bytes, name: str, media_type: str
) -> None:
    reply = (await caller.upload(content, name, "multimodal")).json()
    part = reply["part"]
    assert list(reply) == ["conversation_id", "attachment", "part"]
    assert reply["attachment"] is None
    assert re.fullmatch(r"file-service://file-\w{24}", part.pop("asset_pointer"))
    assert part == {
        "name": name,
        "size_bytes": len(content),
        "width": 3,
        "height": 2,
        "mimeType": media_type,
    }


@pytest.mark.parametrize("content", [b"", b"hello", PNG[:12], b"\xff\xd8\xff", b"%PDF-1.7"])
async def test_picture_that_is_none_is_refused(caller: Caller, content: bytes) -> None:
    response = await caller.upload(content, "a.png", "multimodal")
    assert response.status_code == 400
    assert error_of(response) == "'a.png' is no PNG, JPEG, GIF or WebP picture"


@pytest.mark.parametrize(
    ("name", "content", "media_type"),
    [
        ("go.mod", b"module x\n", "text/plain"),
        ("表 格.csv", b"a,b\n", "text/csv"),
        ("a.pdf", b"%PDF\0", "application/pdf"),
        ("blob", b"\0\1", "application/octet-stream"),
        ("empty", b"", "text/plain"),
    ],
)
async def test_file_is_described_by_name_size_and_type(
    caller: Caller, name: str, content: bytes, media_type: str
) -> None:
    reply = (await caller.upload(content, name)).json()
    assert reply["part"] is None
    attachment = reply["attachment"]
    assert re.fullmatch(r"file-\w{24}", attachment.pop("id"))
    assert attachment == {"name": name, "size": len(content), "mimeType": media_type}


async def test_same_file_twice_gets_two_ids(caller: Caller) -> None:
    ids = {(await caller.upload()).json()["attachment"]["id"] for _ in range(2)}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"conversation_id": "", "type": "picture"}, 422, "type must be multimodal or my_files"),
        ({"conversation_id": ""}, 422, "type must be multimodal or my_files"),
        ({"type": "my_files"}, 422, "conversation_id is missing"),
        ({"conversation_id": "", "type": "my_files", "x": "y"}, 422, "unknown form field 'x'"),
    ],
)
async def test_wrong_form_is_refused(
    caller: Caller, fields: dict[str, str], status: int, words: str
) -> None:
    response = await caller.http.post(UPLOAD, data=fields, files={"file": ("a", b"a")})
    assert response.status_code == status
    assert words in error_of(response)


async def test_form_without_file_is_refused(caller: Caller) -> None:
    fields = {"conversation_id": (None, ""), "type": (None, "my_files")}
    response = await caller.http.post(UPLOAD, files=fields)
    assert (response.status_code, error_of(response)) == (422, "the form field file is missing")


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
async def test_upload_that_is_no_form_is_refused(caller: Caller, kind: str) -> None:
    response = await caller.http.post(UPLOAD, content=b"{}", headers={"Content-Type": kind})
    assert response.status_code in (400, 415, 422)
    assert error_of(response)


@pytest.mark.parametrize("excess", [1, 2_000_000])
async def test_upload_beyond_the_largest_size_is_refused(excess: int) -> None:
    async with serving(max_upload_size=1) as (_, caller):
        at_most = await caller.upload(bytes(1024 * 1024))
        beyond = await caller.upload(bytes(1024 * 1024 + excess))
    assert at_most.status_code == 200
    assert (beyond.status_code, error_of(beyond)) == (413, "the file is larger than 1048576 bytes")


async def test_form_that_comes_in_single_bytes_is_read_whole(caller: Caller) -> None:
    conversation = (await caller.chat()).json()["conversation_id"]
    form = (
        '--edge\r\nContent-Disposition: form-data; name="conversation_id"\r\n\r\n'
        f"{conversation}\r\n"
        '--edge\r\nContent-Disposition: form-data; name="type"\r\n\r\nmy_files\r\n'
        '--edge\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n'
        "--edge--\r\n"
    ).encode()

    async def body() -> AsyncIterator[bytes]:
        for byte in form:
            yield bytes([byte])

    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    reply = (await caller.http.post(UPLOAD, content=body(), headers=headers)).json()
    assert reply["conversation_id"] == conversation
    assert reply["attachment"]["size"] == 3


async def test_form_field_without_end_is_refused(caller: Caller) -> None:
    response = await caller.upload(conversation="x" * 5000)
    assert (response.status_code, error_of(response)) == (422, "conversation_id is too long")


async def test_large_upload_costs_no_memory(caller: Caller) -> None:
    size, piece = 40 * 1024 * 1024, bytes(range(256)) * 256
    head = (
        '--edge\r\nContent-Disposition: form-data; name="conversation_id"\r\n\r\n\r\n'
        '--edge\r\nContent-Disposition: form-data; name="type"\r\n\r\nmy_files\r\n'
        '--edge\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
    )

    async def body() -> AsyncIterator[bytes]:
        yield head.encode()
        for _ in range(size // len(piece)):
            yield piece
        yield b"\r\n--edge--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    tracemalloc.start()
    try:
        response = await caller.http.post(UPLOAD, content=body(), headers=headers)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert response.json()["attachment"]["size"] == size
    assert peak < 6 * 1024 * 1024


# Faults


async def call_of(caller: Caller, fault: str) -> httpx.Response:
    return await caller.chat(f"[[mock:{fault}]]")


async def test_call_limit_lets_through_what_it_allows_and_names_the_wait() -> None:
    async with serving(limit_qps=5, retry_after=2.5) as (_, caller):
        responses: list[httpx.Response] = []

        async def one(number: int) -> None:
            responses.append(await caller.chat(str(number)))

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(one, number)
        seen = await caller.stats()
    refused = [response for response in responses if response.status_code == 429]
    assert len(refused) == 3
    assert {response.headers["Retry-After"] for response in refused} == {"2.5"}
    assert seen["faults"] == {"limit-qps": 3}
    assert seen["worst_window"] == 8


def test_call_limit_slides_with_the_calls_it_let_through() -> None:
    limit = Limit(2)
    moments = [0.0, 0.6, 0.7, 0.99, 1.0, 1.5, 1.6, 9.0]
    assert [limit.allows(moment) for moment in moments] == [
        True,
        True,
        False,
        False,
        True,
        False,
        True,
        True,
    ]


def test_call_limit_below_one_waits_for_more_than_a_second() -> None:
    limit = Limit(0.5)
    assert [limit.allows(moment) for moment in (0.0, 1.9, 2.0)] == [True, False, True]


async def test_retry_after_can_be_a_date_or_left_out() -> None:
    async with serving(rate_limit_rate=1, retry_after=30, retry_after_date=True) as (_, caller):
        value = (await caller.chat()).headers["Retry-After"]
    assert 28 < parsedate_to_datetime(value).timestamp() - time.time() <= 31
    async with serving(rate_limit_rate=1, retry_after=0) as (_, caller):
        response = await caller.chat()
    assert (response.status_code, "Retry-After" in response.headers) == (429, False)


@pytest.mark.parametrize(("rate", "status"), [("rate_limit_rate", 429), ("error_rate", 500)])
async def test_rate_of_a_status_gives_it(rate: str, status: int) -> None:
    async with serving(**{rate: 1.0}) as (_, caller):
        responses = [await caller.chat(), await caller.upload()]
        seen = await caller.stats()
    assert [response.status_code for response in responses] == [status] * 2
    assert sum(seen["faults"].values()) == 2
    assert seen["chats_answered"] == 0


async def test_reset_breaks_the_connection() -> None:
    async with serving(reset_rate=1) as (_, caller):
        with pytest.raises(httpx.ReadError):
            await caller.chat()
        with pytest.raises(httpx.ReadError):
            await caller.upload()


async def test_cut_reply_is_shorter_than_its_length() -> None:
    async with (
        serving(cut_rate=1) as (_, caller),
        caller.http.stream("POST", CHAT, json={"message": "a", "model": "m"}) as got,
    ):
        assert got.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
            await got.aread()


async def test_garbage_is_no_json() -> None:
    async with serving(garbage_rate=1) as (_, caller):
        for number in range(6):
            response = await caller.chat(str(number))
            assert response.status_code == 200
            with pytest.raises(orjson.JSONDecodeError):
                orjson.loads(response.content)


async def test_empty_reply_has_no_contents() -> None:
    async with serving(empty_rate=1, asset_rate=1) as (_, caller):
        replies = [(await caller.chat(str(number))).json() for number in range(12)]
        upload = (await caller.upload()).json()
    assert not any(reply.get("contents") for reply in replies)
    assert {repr(reply.get("contents", "absent")) for reply in replies} == {
        "[]",
        "None",
        "'absent'",
    }
    assert upload["attachment"] is None
    assert upload["part"] is None


async def test_content_error_stands_in_the_contents() -> None:
    async with serving(content_error_rate=1) as (_, caller):
        reply = (await caller.chat()).json()
        assert (await caller.upload()).status_code == 200
    assert reply["contents"][0]["error"] == "the mock service fails on purpose"


async def test_quota_is_used_up_by_answers() -> None:
    async with serving(quota=2) as (_, caller):
        responses = [await caller.chat(str(number)) for number in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 402]
    assert error_of(responses[2]) == "the quota of the account is used up"


async def test_fault_leaves_the_conversation_where_it_was(caller: Caller) -> None:
    first = (await caller.chat()).json()
    place = {
        "conversation_id": first["conversation_id"],
        "parent_message_id": first["message_id"],
    }
    with pytest.raises(httpx.RemoteProtocolError):
        await caller.chat("[[mock:cut*1]]", **place)
    assert (await caller.chat("[[mock:cut*1]]", **place)).status_code == 200
    seen = await caller.stats()
    assert seen["answered_twice"]["count"] == 0
    assert seen["faults"] == {"cut": 1}


@pytest.mark.parametrize(
    ("directive", "statuses"),
    [
        ("503*2", [503, 503, 200]),
        ("rate-limit*1", [429, 200, 200]),
        ("404", [404, 404, 404]),
        ("nonsense", [422, 422, 422]),
    ],
)
async def test_message_can_direct_its_own_fault(
    caller: Caller, directive: str, statuses: list[int]
) -> None:
    responses = [await call_of(caller, directive) for _ in range(3)]
    assert [response.status_code for response in responses] == statuses


async def statuses_by_message(seed: int, messages: list[str]) -> dict[str, list[int]]:
    async with serving(seed=seed, error_rate=0.3, rate_limit_rate=0.2) as (_, caller):
        found: dict[str, list[int]] = {}
        for message in messages:
            response = await caller.chat(message)
            found.setdefault(message, []).append(response.status_code)
    return found


async def test_faults_follow_from_seed_call_and_try_whatever_the_order() -> None:
    messages = [str(number) for number in range(30)] * 2
    first = await statuses_by_message(1, messages)
    assert first == await statuses_by_message(1, messages[::-1])
    assert first != await statuses_by_message(2, messages)
    assert any(len(set(statuses)) == 2 for statuses in first.values())
    counted = [status for statuses in first.values() for status in statuses]
    assert {status: counted.count(status) > 0 for status in counted} == {
        200: True,
        429: True,
        500: True,
    }


async def test_hanging_calls_do_not_hold_up_the_end() -> None:
    failures: list[Exception] = []
    async with anyio.create_task_group() as group, serving(hang_rate=1) as (service, caller):

        async def hang(number: int) -> None:
            try:
                await caller.chat(str(number))
            except httpx.TransportError as error:
                failures.append(error)

        for number in range(20):
            group.start_soon(hang, number)
        await until(caller, lambda seen: seen["faults"].get("hang") == 20)
        start = time.monotonic()
        await service.__aexit__(None, None, None)
        assert time.monotonic() - start < 1
    assert len(failures) == 20


async def test_calls_under_way_do_not_hold_up_the_end() -> None:
    async with anyio.create_task_group() as group, serving(latency=60) as (service, caller):

        async def wait() -> None:
            with pytest.raises(httpx.TransportError):
                await caller.chat()

        group.start_soon(wait)
        await until(caller, lambda seen: bool(seen["concurrency"]["now"]))
        start = time.monotonic()
        await service.__aexit__(None, None, None)
        assert time.monotonic() - start < 1


async def test_call_given_up_by_its_client_is_not_answered() -> None:
    async with serving(latency=60) as (_, caller):
        async with anyio.create_task_group() as group:
            group.start_soon(caller.chat)
            await until(caller, lambda seen: bool(seen["concurrency"]["now"]))
            group.cancel_scope.cancel()
        seen = await until(caller, lambda seen: bool(seen["abandoned"]))
    assert seen["chats_answered"] == 0
    assert seen["concurrency"] == {"now": 0, "peak": 1}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"error_rate": 1.5}, "--error-rate 1.5: a share is 0 to 1"),
        ({"error_rate": 0.6, "hang_rate": 0.6}, "together more than 1"),
        ({"latency": -1.0}, "--latency -1: must not be below 0"),
        ({"port": 70000}, "--port 70000: ports end at 65535"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        MockSettings(**settings)


async def test_port_that_is_taken_is_refused_in_one_line() -> None:
    async with serving() as (service, _):
        port = urlsplit(service.origin).port
        with pytest.raises(UsageError, match=rf"cannot listen on 127.0.0.1:{port}: .*--port"):
            async with MockService(MockSettings(port=port or 0)):
                pass


# Downloads


def name_of(link: str) -> str:
    return parse_qs(urlsplit(link).query)["rscd"][0].removeprefix("attachment; filename=")


@asynccontextmanager
async def hosting(size: int, **settings: Any) -> AsyncIterator[tuple[Caller, str, bytes]]:
    """Serve one answer with a download and give its address and the bytes it must have."""
    async with serving(asset_rate=1, asset_size=size, **settings) as (_, caller):
        link = (await caller.chat()).json()["downloads"][0]
        del caller.http.headers["Authorization"]
        yield caller, link, asset_bytes(name_of(link), size)


@pytest.mark.parametrize("size", [0, 1, 7, 4096, BLOCK, 3 * BLOCK + 5])
async def test_download_has_the_bytes_of_its_name_and_size(size: int) -> None:
    async with hosting(size) as (caller, link, expected):
        response = await caller.http.get(link)
        head = await caller.http.head(link)
    assert response.content == expected
    assert len(expected) == size
    assert head.headers["Content-Length"] == response.headers["Content-Length"] == str(size)
    assert head.headers["ETag"] == response.headers["ETag"]
    assert not head.content


async def test_answers_with_several_downloads_name_them_all_differently() -> None:
    async with serving(asset_rate=1, asset_count=4) as (_, caller):
        links = (await caller.chat()).json()["downloads"]
        assert len({(await caller.http.get(link)).content for link in links}) == 4
    assert len({name_of(link) for link in links}) == 4
    assert all("rscd=attachment%3B%20filename%3D" in link for link in links)
    assert not all(name_of(link).isascii() for link in links)


async def test_asset_rate_is_the_share_of_answers_with_downloads() -> None:
    async with serving(asset_rate=0.5) as (_, caller):
        replies = [(await caller.chat(str(number))).json() for number in range(40)]
    assert 8 < sum("downloads" in reply for reply in replies) < 32


def test_asset_that_is_named_a_picture_is_one() -> None:
    picture = asset_bytes("chart-1.png", 4096)
    assert len(picture) == 4096
    assert imagesize.get(io.BytesIO(picture)) == (96, 64)
    assert picture != asset_bytes("chart-2.png", 4096)
    assert asset_bytes("chart-1.png", 4096, 50) == picture[50:]
    assert len(asset_bytes("chart-1.png", 10)) == 10


def test_blocks_of_an_asset_differ() -> None:
    content = asset_bytes("a", 3 * BLOCK)
    assert len({content[start : start + BLOCK] for start in range(0, len(content), BLOCK)}) == 3
    assert asset_bytes("a", 3 * BLOCK, 100_000) == content[100_000:]
    assert asset_bytes("a", 100) != asset_bytes("b", 100)


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=70000-", slice(70000, None)),
        ("bytes=-5", slice(-5, None)),
        ("bytes=99990-200000", slice(99990, None)),
    ],
)
async def test_range_gives_its_part(wanted: str, part: slice) -> None:
    start, stop, _ = part.indices(100_000)
    async with hosting(100_000) as (caller, link, expected):
        etag = (await caller.http.head(link)).headers["ETag"]
        for headers in ({"Range": wanted}, {"Range": wanted, "If-Range": etag}):
            response = await caller.http.get(link, headers=headers)
            assert response.status_code == 206
            assert response.content == expected[part]
            assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/100000"
        assert (await caller.stats())["files"]["ranged"] == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=10-", "If-Range": '"another"'},
        {"Range": "lines=1-2"},
        {"Range": "bytes=1-2,4-5"},
    ],
)
async def test_range_that_does_not_apply_gives_the_whole(headers: dict[str, str]) -> None:
    async with hosting(1000) as (caller, link, expected):
        response = await caller.http.get(link, headers=headers)
    assert (response.status_code, response.content) == (200, expected)


async def test_range_beyond_the_end_is_refused() -> None:
    async with hosting(1000) as (caller, link, _):
        response = await caller.http.get(link, headers={"Range": "bytes=1000-"})
    assert (response.status_code, response.headers["Content-Range"]) == (416, "bytes */1000")


async def test_host_without_ranges_gives_the_whole() -> None:
    async with hosting(1000, ranges=False) as (caller, link, expected):
        response = await caller.http.get(link, headers={"Range": "bytes=10-"})
    assert (response.status_code, response.content) == (200, expected)
    assert "Accept-Ranges" not in response.headers


async def test_link_that_was_changed_is_refused() -> None:
    async with hosting(10, asset_expire_after=60) as (caller, link, expected):
        assert (await caller.http.get(link)).content == expected
        changed = await caller.http.get(link.replace("size=10", "size=11"))
    assert changed.status_code == 403
    assert "not signed" in error_of(changed)


async def test_link_that_has_expired_is_refused() -> None:
    async with hosting(10, asset_expire_after=0.05) as (caller, link, _):
        late = await caller.http.get(link)
        with anyio.fail_after(5):
            while late.status_code == 200:
                late = await caller.http.get(link)
    assert late.status_code == 403
    assert "has expired" in error_of(late)


@pytest.mark.parametrize("query", ["", "?size=x&sig=y", "?size=1&sig=&se=z"])
async def test_address_that_was_never_given_out_is_refused(caller: Caller, query: str) -> None:
    assert (await caller.http.get(f"/files/a.png{query}")).status_code == 403


async def test_token_sent_to_the_file_host_is_noticed() -> None:
    async with hosting(10) as (caller, link, _):
        await caller.http.get(link)
        await caller.http.get(link, headers={"Authorization": "Bearer leaked"})
        assert (await caller.stats())["files"] == {
            "downloads": 2,
            "ranged": 0,
            "with_authorization": 1,
        }


async def test_download_faults_fail_the_download() -> None:
    async with hosting(1000, asset_error_rate=1) as (caller, link, _):
        assert (await caller.http.get(link)).status_code == 500
    async with hosting(200_000, asset_cut_rate=1) as (caller, link, _):
        with pytest.raises(httpx.RemoteProtocolError):
            await caller.http.get(link)


# Stats


async def test_stats_count_calls_by_route_and_status(caller: Caller) -> None:
    await caller.chat()
    await caller.chat(conversation_id="nowhere")
    await caller.upload()
    await caller.http.get("/nowhere")
    seen = await caller.stats()
    assert seen["calls"] == {
        CHAT: {"200": 1, "404": 1},
        UPLOAD: {"200": 1},
        "other": {"404": 1},
    }
    assert seen["arrivals"] == sum(seen["by_second"].values()) == 3
    assert (seen["chats_answered"], seen["uploads_answered"]) == (1, 1)
    assert seen["bytes"]["in"] > 15
    assert seen["bytes"]["out"] > 500


async def test_same_ask_answered_again_is_counted_with_an_example(caller: Caller) -> None:
    for message in ("a", "b", "a", "a"):
        await caller.chat(message)
    assert (await caller.stats())["answered_twice"] == {
        "count": 2,
        "examples": [{"message": "a", "times": 2}, {"message": "a", "times": 3}],
    }


def test_worst_window_is_the_most_arrivals_in_any_second() -> None:
    stats = Stats(10)
    for moment in (10.0, 10.9, 11.1, 11.2, 11.85, 12.3, 20.0):
        stats.arrive(moment)
        stats.leave()
    # 10.9, 11.1, 11.2 and 11.85, across the turn of the second.
    assert stats.worst_window == 4
    assert stats.to_dict()["seconds"] == 10.0


async def test_concurrency_counts_calls_at_the_same_time() -> None:
    async with serving(latency=60) as (_, caller):
        async with anyio.create_task_group() as group:
            for number in range(7):
                group.start_soon(caller.chat, str(number))
            await until(caller, lambda seen: seen["concurrency"] == {"now": 7, "peak": 7})
            group.cancel_scope.cancel()
        await until(caller, lambda seen: seen["concurrency"] == {"now": 0, "peak": 7})


async def test_index_says_what_this_is(caller: Caller) -> None:
    response = await caller.http.get("/")
    assert "embedded service" in response.text
    assert f"{caller.http.base_url}/standard/uploaded" in response.text


# The command


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_command_serves_until_a_signal_and_says_what_it_saw(stop: signal.Signals) -> None:
    code = (
        "from gpt4batch.cli import mocksvc;"
        "mocksvc.action(mocksvc.SETTINGS(port=0, error_rate=1, access_log='-'))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    shown = process.stdout.readline()
    while "gpt4batch batchsvc --token mock-token" not in shown:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        shown += line
    address = re.search(r"-u (\S+)", shown)
    assert address is not None
    response = httpx.post(
        address[1],
        json={"message": "a", "model": "m"},
        headers={"Authorization": "Bearer mock-token"},
        trust_env=False,
    )
    process.send_signal(stop)
    out, err = process.communicate(timeout=10)
    assert response.status_code == 500
    assert process.returncode == 0
    assert "Calls: 1" in out
    assert "Faults: error 1" in out
    assert f"POST {CHAT} 500" in err


def test_every_setting_is_a_flag_explained_in_both_languages() -> None:
    flags = [spec for _, _, spec in flags_of(mocksvc.SETTINGS)]
    assert {spec.long for spec in flags} >= {"port", "latency", "limit-qps", "access-log"}
    assert all(spec.help.isascii() for spec in flags)
    assert mocksvc.SETTINGS().port == 8787
    assert MockSettings().port == 0
