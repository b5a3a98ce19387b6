from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

import gpt4batch
from gpt4batch.lines import rawjson
from gpt4batch.mock.replies import answer_text
from gpt4batch.settings import DEFAULT_URL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench, Scripted

    from gpt4batch.mock.server import MockService

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    Scripting = Callable[[Handler], Any]
    Serving = Callable[..., MockService]

GIF = b"GIF89a\x03\x00\x02\x00\x00\x00\x00;"


def reply_to(body: dict[str, Any], turn: int) -> dict[str, Any]:
    """Return the answer of a service that changes the ids with every turn."""
    return {
        "message_id": f"m-{turn}",
        "conversation_id": f"c-{turn}",
        "contents": [{"error": None, "message": {"content": {"parts": [body["message"]]}}}],
    }


class Service:
    """Answer everything, with what a test wants to see in the next call."""

    PART: dict[str, Any] = {  # noqa: RUF012 - read only
        "name": "img.png",
        "asset_pointer": "file-service://file-1",
        "size_bytes": 295320,
        "width": 1024,
        "height": 768,
        "mimeType": "image/webp",
        "future": {"kept": [1.5]},
    }
    FILE: dict[str, Any] = {  # noqa: RUF012 - read only
        "id": "file-2",
        "name": "go.mod",
        "size": 90,
        "mimeType": "text/plain",
    }

    def __init__(self) -> None:
        self.chats: list[tuple[str, dict[str, Any]]] = []
        self.uploads: list[dict[str, bytes]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/uploaded"):
            form = await fields_of(request)
            self.uploads.append(form)
            picture = form["type"] == b"multimodal"
            reply = {
                "conversation_id": form["conversation_id"].decode() or "internal-1",
                "attachment": None if picture else self.FILE,
                "part": self.PART if picture else None,
            }
            return web.json_response(reply)
        body = rawjson.loads(await request.read())
        self.chats.append((request.path, body))
        return web.json_response(reply_to(body, len(self.chats)))


async def fields_of(request: web.BaseRequest) -> dict[str, bytes]:
    """Return the fields of a form by name, the file's name as `filename`."""
    boundary = request.headers["Content-Type"].partition("boundary=")[2].encode()
    found: dict[str, bytes] = {}
    for piece in (await request.read()).split(b"--" + boundary)[1:-1]:
        head, _, value = piece[2:-2].partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode()
        found[name] = value
        if b"filename=" in head:
            found["filename"] = head.partition(b'filename="')[2].partition(b'"')[0]
    return found


async def test_asks_of_a_line_are_one_conversation_threaded_by_ids(
    bench: Bench, scripted: Scripting
) -> None:
    bench.write(bench.line(1, "one", "two", "three"))
    service = Service()
    async with scripted(service) as server:
        await bench.run(server.origin, model="gpt-4")
    assert [body for _, body in service.chats] == [
        {"message": "one", "model": "gpt-4", "history_and_training_disabled": True},
        {
            "message": "two",
            "model": "gpt-4",
            "conversation_id": "c-1",
            "parent_message_id": "m-1",
            "history_and_training_disabled": True,
        },
        {
            "message": "three",
            "model": "gpt-4",
            "conversation_id": "c-2",
            "parent_message_id": "m-2",
            "history_and_training_disabled": True,
        },
    ]
    assert {path for path, _ in service.chats} == {"/standard/all-tools"}


async def test_attachments_go_up_first_and_belong_to_their_own_ask(
    bench: Bench, scripted: Scripting
) -> None:
    (bench.folder / "img").mkdir()
    (bench.folder / "img" / "1.png").write_bytes(GIF)
    (bench.folder / "go.mod").write_bytes(b"module x\n")
    line = bench.line(1, "one", "two", "three")
    line["asks"][0] |= {"images": ["img/1.png"], "files": ["go.mod"]}
    line["asks"][2] |= {"file": str(bench.folder / "go.mod")}
    bench.write(line)
    service = Service()
    async with scripted(service) as server:
        summary = await bench.run(server.origin)
        authorized = [headers.get("authorization") for _, _, headers, _ in server.requests]
    assert summary.done == 1
    assert set(authorized) == {"Bearer mock-token"}
    assert service.uploads == [
        {"conversation_id": b"", "type": b"multimodal", "file": GIF, "filename": b"1.png"},
        {
            "conversation_id": b"internal-1",
            "type": b"my_files",
            "file": b"module x\n",
            "filename": b"go.mod",
        },
        {
            "conversation_id": b"c-2",
            "type": b"my_files",
            "file": b"module x\n",
            "filename": b"go.mod",
        },
    ]
    first, second, third = (body for _, body in service.chats)
    assert first["conversation_id"] == "internal-1"
    assert "parent_message_id" not in first
    assert first["parts"] == [Service.PART]
    assert first["attachments"] == [Service.FILE]
    assert not {"parts", "attachments"} & set(second)
    assert third["conversation_id"] == "c-2"
    assert third["attachments"] == [Service.FILE]
    assert "parts" not in third


async def test_paths_are_relative_to_the_folder_of_the_input(
    bench: Bench, service: MockService
) -> None:
    (bench.folder / "deep").mkdir()
    (bench.folder / "deep" / "a.txt").write_bytes(b"a")
    line = bench.line(1, "one")
    line["asks"][0]["files"] = ["a.txt"]
    bench.write(line, name="deep/in.jsonl")
    assert (await bench.run(service.origin, input="deep/in.jsonl")).done == 1


@pytest.mark.parametrize(
    ("settings", "line", "path", "model", "gizmo"),
    [
        ({}, {}, "all-tools", "gpt-4-gizmo", None),
        ({"model": "gpt-4"}, {"model": "m-2"}, "all-tools", "m-2", None),
        ({}, {"gizmo_id": "g-2"}, "all-tools", "gpt-4-gizmo", "g-2"),
        ({"gizmo_id": "g-1"}, {}, "all-tools", "gpt-4-gizmo", "g-1"),
        ({"gizmo_id": "g-1"}, {"gizmo_id": "g-2"}, "all-tools", "gpt-4-gizmo", "g-2"),
    ],
)
async def test_model_and_gizmo_of_a_line_come_before_the_flags(
    bench: Bench, scripted: Scripting, settings: Any, line: Any, path: str, model: str, gizmo: Any
) -> None:
    bench.write(bench.line(1, "one", **line))
    service = Service()
    async with scripted(service) as server:
        await bench.run(server.origin, **settings)
    [(called, body)] = service.chats
    assert called == f"/standard/{path}"
    assert (body["model"], body.get("gizmo_id")) == (model, gizmo)
    assert {name: bench.read()[0][name] for name in line} == line


@pytest.mark.parametrize(("gizmo", "end"), [("g-1", "gizmos"), ("", "all-tools")])
async def test_gizmo_with_the_address_left_alone_calls_gizmos(
    bench: Bench, scripted: Scripting, gizmo: str, end: str
) -> None:
    bench.write(bench.line(1, "one"))
    service = Service()
    async with scripted(service) as server:
        settings = bench.settings("", url=DEFAULT_URL, gizmo_id=gizmo)
        await gpt4batch.run(replace(settings, origin=server.origin))
    assert service.chats[0][0] == f"/standard/{end}"


async def test_history_is_switched_on_by_the_flag(bench: Bench, scripted: Scripting) -> None:
    bench.write(bench.line(1, "one"))
    service = Service()
    async with scripted(service) as server:
        result = await bench.call(*bench.batchsvc(server.origin, "-s=false"))
    assert result.code == 0
    assert service.chats[0][1]["history_and_training_disabled"] is False


async def test_reply_is_kept_whole(bench: Bench, scripted: Scripting) -> None:
    text = rb'{"z":1.00000000000000000001,"contents":[{"error":null,"m":"\ud83d"}],"a":{"b":[]}}'

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=text.replace(b",", b",\n "), content_type="application/json")

    bench.write(bench.line(1, "one"))
    async with scripted(handler) as server:
        await bench.run(server.origin)
    raw = (bench.folder / "out.jsonl").read_bytes()
    for part in (rb'"z":1.00000000000000000001', rb'"m":"\ud83d"', b'"a":{"b":[]}'):
        assert part in raw
    assert list(bench.read()[0]["answers"][0]) == ["z", "contents", "a"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b'{"contents":[],"n":1.00000000000000000001}', "no contents"),
        (b'{"contents":null}', "no contents"),
        (b'{"detail":"Our systems are a bit busy"}', "Our systems are a bit busy"),
        (b'{"contents":[{"error":"over the cap","message":null}]}', "over the cap"),
        (b'{"contents":[{"error":null},{"error":{"message":"blocked"}}]}', "blocked"),
        (b"[1, 2]", "not a JSON object"),
    ],
)
async def test_reply_that_is_no_answer_fails_the_line_and_is_kept_verbatim(
    bench: Bench, scripted: Scripting, reply: bytes, words: str
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if rawjson.loads(await request.read())["message"] == "one":
            return web.json_response(reply_to({"message": "one"}, 1))
        return web.Response(body=reply, content_type="application/json")

    bench.write(bench.line(1, "one", "two"))
    async with scripted(handler) as server:
        first = await bench.run(server.origin)
        second = await bench.run(server.origin, fix=True)
        assert [body["message"] for body in server.bodies()] == ["one", "two", "two"]
    assert (first.failed, first.exit_code, second.exit_code) == (1, 1, 1)
    [line] = bench.read()
    assert len(line["answers"]) == 1
    assert line["iErr"]["stage"] == "reply"
    assert words in line["iErr"]["message"]
    assert b'"reply":' + reply in (bench.folder / "out.jsonl").read_bytes()


# Going on


async def test_line_that_failed_half_way_goes_on_at_its_first_unanswered_ask(
    bench: Bench, service: MockService
) -> None:
    contents = ["one", "two", "three [[mock:400*1]]", "four"]
    bench.write(bench.line(1, *contents))
    first = await bench.run(service.origin)
    assert (first.failed, first.chats) == (1, 3)
    before = bench.read()[0]
    assert len(before["answers"]) == 2
    second = await bench.run(service.origin, fix=True)
    assert (second.done, second.chats) == (1, 2)
    after = bench.read()[0]
    assert after["answers"][:2] == before["answers"]
    assert [
        answer["contents"][-1]["message"]["content"]["parts"][0] for answer in after["answers"]
    ] == [answer_text(content) for content in contents]
    assert len({answer["conversation_id"] for answer in after["answers"]}) == 1
    assert service.stats.answered_twice == 0
    assert len(after["meta"]["asks"]) == 4


async def test_conversation_that_the_service_forgot_begins_anew(
    bench: Bench, serving: Serving
) -> None:
    bench.write(bench.line(1, "one", "two [[mock:400*1]]", "three"))
    async with serving() as service:
        await bench.run(service.origin)
    before = bench.read()[0]
    async with serving(seed=1) as service:
        summary = await bench.run(service.origin, fix=True)
        # The directive is met by a service that has not seen it: once more it fails and goes on.
        assert summary.failed == 1
        summary = await bench.run(service.origin, fix=True)
        assert summary.done == 1
    after = bench.read()[0]
    texts = [
        answer["contents"][-1]["message"]["content"]["parts"][0] for answer in after["answers"]
    ]
    assert texts == [answer_text(text, seed=1) for text in ("one", "two [[mock:400*1]]", "three")]
    assert after["meta"]["superseded"] == before["answers"]


async def test_refusal_in_a_conversation_of_this_run_fails_the_line(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "one", "two [[mock:404]]"))
    summary = await bench.run(service.origin)
    assert (summary.failed, summary.chats) == (1, 2)
    assert len(bench.read()[0]["answers"]) == 1


def refusing(last: str, status: int, words: str) -> Handler:
    """Answer every ask but one; take every upload."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if "uploaded" in request.path:
            return web.json_response({"conversation_id": "c", "attachment": {"id": "x"}})
        body = rawjson.loads(await request.read())
        if body["message"] == last:
            return web.json_response({"detail": words}, status=status)
        return web.json_response(reply_to(body, 1))

    return handler


def half_way(bench: Bench) -> None:
    """Write a line whose second ask has an attachment."""
    (bench.folder / "a.txt").write_bytes(b"a")
    line = bench.line(1, "one", "two")
    line["asks"][1]["files"] = ["a.txt"]
    bench.write(line)


def asked(server: Scripted) -> list[str]:
    """Return the messages of the chats so far."""
    chats = [body for _, path, _, body in server.requests if "uploaded" not in path]
    return [rawjson.loads(body)["message"] for body in chats]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (409, "a message is already being generated"),
        (400, "Invalid request: the conversation is too long"),
        (400, "invalid attachment type"),
        (404, "The model gpt-9 does not exist"),
        (400, "this conversation already exists"),
    ],
)
async def test_refusal_that_is_no_forgetting_costs_no_earlier_ask(
    bench: Bench, scripted: Scripting, status: int, words: str
) -> None:
    half_way(bench)
    async with scripted(refusing("two", status, words)) as server:
        for _ in range(3):
            summary = await bench.run(server.origin, fix=True, retries=0)
            assert (summary.exit_code, words in summary.failures[0]["message"]) == (1, True)
        found = asked(server)
    assert found.count("one") == 1
    assert found.count("two") <= 5


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "Not Found"),
        (400, "conversation not found"),
        (409, "parent_message_id is not the last message"),
        (400, "invalid conversation_id"),
        (422, "会话不存在"),
    ],
)
async def test_line_begins_anew_once_where_that_does_not_help(
    bench: Bench, scripted: Scripting, status: int, words: str
) -> None:
    half_way(bench)
    async with scripted(refusing("two", status, words)) as server:
        for _ in range(4):
            assert (await bench.run(server.origin, fix=True)).exit_code == 1
        assert asked(server).count("one") == 2
        assert len(server.requests) < 20
    [done] = bench.read()
    assert len(done["answers"]) == 1
    assert len(done["meta"]["superseded"]) == 1


async def test_meta_of_somebody_else_is_no_note(bench: Bench, service: MockService) -> None:
    (bench.folder / "a.txt").write_bytes(b"a")
    one = bench.line(1, "one", meta={"uploads": ["a.txt"], "asks": [3]})
    one["asks"][0]["files"] = ["a.txt"]
    bench.write(one, bench.line(2, "two", meta={"asks": 5, "calls": "x", "superseded": 1}))
    summary = await bench.run(service.origin, fix=True)
    assert (summary.done, summary.chats, service.stats.uploads_answered) == (2, 2, 1)


async def test_times_of_a_half_way_line_of_the_original_stand_at_their_asks(
    bench: Bench, scripted: Scripting
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(reply_to(rawjson.loads(await request.read()), 2))

    answer = reply_to({"message": "one"}, 1)
    bench.write(bench.line(1, "one", "two", answers=[answer]))
    async with scripted(handler) as server:
        summary = await bench.run(server.origin, fix=True)
    assert [list(ask) for ask in bench.read()[0]["meta"]["asks"]] == [[], ["seconds", "attempts"]]
    assert summary.latency


async def test_upload_without_what_it_becomes_says_why(bench: Bench, scripted: Scripting) -> None:
    async def handler(_request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"error": "virus found"})

    (bench.folder / "a.txt").write_bytes(b"a")
    line = bench.line(1, "one")
    line["asks"][0]["files"] = ["a.txt"]
    bench.write(line)
    async with scripted(handler) as server:
        await bench.run(server.origin)
    error = bench.read()[0]["iErr"]
    assert error["message"] == "the reply to the upload of a.txt has no attachment: virus found"
    assert error["attempts"] == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"contents":[{}],"n":NaN}', "the reply is not JSON (NaN)"),
        (b'{"contents":["\xe4\xbd"]}', "the reply is not UTF-8 (byte 15)"),
    ],
)
async def test_whole_reply_that_cannot_be_taken_is_kept_and_not_paid_for_again(
    bench: Bench, scripted: Scripting, body: bytes, message: str
) -> None:
    async def handler(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    bench.write(bench.line(1, "one"))
    async with scripted(handler) as server:
        await bench.run(server.origin, retries=3)
        assert len(server.requests) == 1
    error = bench.read()[0]["iErr"]
    assert error["message"] == message
    assert error["reply"].encode(errors="surrogateescape") == body


async def test_byte_order_mark_before_a_reply_is_none_of_it(
    bench: Bench, scripted: Scripting
) -> None:
    async def handler(_request: web.BaseRequest) -> web.StreamResponse:
        body = b"\xef\xbb\xbf" + rawjson.dumps(reply_to({"message": "one"}, 1))
        return web.Response(body=body, content_type="application/json")

    bench.write(bench.line(1, "one"))
    async with scripted(handler) as server:
        summary = await bench.run(server.origin)
    assert (summary.done, summary.chats) == (1, 1)


async def test_uploads_of_a_failed_ask_are_not_made_again(
    bench: Bench, service: MockService
) -> None:
    for name in ("a.txt", "b.txt"):
        (bench.folder / name).write_bytes(name.encode())
    line = bench.line(1, "one [[mock:400*1]]")
    line["asks"][0]["files"] = ["a.txt", "b.txt"]
    bench.write(line)
    await bench.run(service.origin)
    assert service.stats.uploads_answered == 2
    summary = await bench.run(service.origin, fix=True)
    assert summary.done == 1
    assert service.stats.uploads_answered == 2


async def test_attachment_that_changed_goes_up_again(bench: Bench, service: MockService) -> None:
    for name in ("a.txt", "b.txt"):
        (bench.folder / name).write_bytes(name.encode())
    line = bench.line(1, "one [[mock:400*1]]")
    line["asks"][0]["files"] = ["a.txt", "b.txt"]
    bench.write(line)
    await bench.run(service.origin)
    (bench.folder / "b.txt").write_bytes(b"new content")
    await bench.run(service.origin, fix=True)  # another file, another ask: it fails once more
    assert service.stats.uploads_answered == 3
    summary = await bench.run(service.origin, fix=True)
    assert (summary.done, service.stats.uploads_answered) == (1, 3)


async def test_uploads_that_the_service_forgot_are_made_again(
    bench: Bench, serving: Serving
) -> None:
    (bench.folder / "a.txt").write_bytes(b"a")
    line = bench.line(1, "one")
    line["asks"][0]["files"] = ["a.txt"]
    bench.write(line)
    async with serving(quota=1) as service:
        service.stats.chats_answered = 1
        first = await bench.run(service.origin)
        assert first.exit_code == 3
    async with serving(seed=5) as service:
        summary = await bench.run(service.origin, fix=True)
        assert (summary.done, service.stats.uploads_answered) == (1, 1)


async def test_meta_tells_when_and_how_long(bench: Bench, service: MockService) -> None:
    bench.write(bench.line(1, "one", "two [[mock:503*1]]"))
    await bench.run(service.origin)
    meta = bench.read()[0]["meta"]
    assert meta["started"] <= meta["finished"]
    assert [ask["attempts"] for ask in meta["asks"]] == [1, 2]
    assert all(0 <= ask["seconds"] < 10 for ask in meta["asks"])
