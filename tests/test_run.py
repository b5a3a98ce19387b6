from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp import web

import gpt4batch
from gpt4batch.lines import rawjson
from gpt4batch.mock.assets import asset_bytes
from gpt4batch.mock.replies import answer_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import ByteReceiveStream, Process
    from conftest import Bench, Running

    from gpt4batch.mock.server import MockService

    Serving = Callable[..., MockService]
    Until = Callable[[Callable[[], Any]], Awaitable[None]]

NOT_RUN = {"code": 400, "message": "resource is not ready"}


def texts(line: Any) -> list[str]:
    """Return what the service said to each ask of a line."""
    return [
        answer["contents"][-1]["message"]["content"]["parts"][0] for answer in line["answers"] or ()
    ]


def answered_at_least(service: MockService, number: int) -> bool:
    return service.stats.chats_answered >= number


def errors_of(process: Process) -> ByteReceiveStream:
    assert process.stderr is not None
    return process.stderr


async def stop_at_once(running: Running) -> None:
    running.process.send_signal(signal.SIGINT)
    await running.says("again to stop at once")
    running.process.send_signal(signal.SIGINT)


async def test_command_lines_of_the_service_run_and_resume(
    bench: Bench, service: MockService
) -> None:
    store = bench.folder / "user" / ".gpt4api-sk.pub"
    store.write_bytes(rawjson.dumps({"access_token": service.token, "expired_at": 9999999999}))
    bench.write(bench.line(1, "one"), bench.line(2, "two [[mock:400*1]]"), name="asks.jsonl")
    base = f"{service.origin}/standard"
    words = ["batchsvc", "-l", f"{base}/uploaded", "-u", f"{base}/all-tools"]
    words += ["-i", "asks.jsonl", "-o", "answers.jsonl", "-g", "8", "-m", "gpt-4"]

    first = await bench.call(*words)
    assert first.code == 1, first.err
    assert [bool(line["answers"]) for line in bench.read("answers.jsonl")] == [True, False]

    second = await bench.call(*words, "-f=true")
    assert second.code == 0, second.err
    lines = bench.read("answers.jsonl")
    assert [texts(line) for line in lines] == [
        [answer_text("one")],
        [answer_text("two [[mock:400*1]]")],
    ]
    assert all("iErr" not in line for line in lines)
    assert service.stats.chats_answered == 2
    assert service.stats.answered_twice == 0
    assert first.out == second.out == ""


# Fix mode


@pytest.mark.parametrize("shape", ["same input, old output", "old output as input", "in place"])
async def test_fix_runs_only_what_is_not_done(
    bench: Bench, service: MockService, shape: str
) -> None:
    bench.write(bench.line(1, "one"), bench.line(2, "two [[mock:400*1]]"), bench.line(3, "three"))
    first = await bench.run(service.origin)
    assert (first.done, first.failed, first.exit_code) == (2, 1, 1)
    before = bench.read()

    if shape == "same input, old output":
        second = await bench.run(service.origin, fix=True)
        after = bench.read()
    elif shape == "old output as input":
        second = await bench.run(service.origin, fix=True, input="out.jsonl", out="out2.jsonl")
        assert bench.read() == before
        after = bench.read("out2.jsonl")
    else:
        second = await bench.run(service.origin, fix=True, input="out.jsonl")
        after = bench.read()

    assert (second.done, second.done_before, second.failed, second.exit_code) == (3, 2, 0, 0)
    assert (after[0], after[2]) == (before[0], before[2])
    assert texts(after[1]) == [answer_text("two [[mock:400*1]]")]
    assert service.stats.chats_answered == 3
    assert not list(bench.folder.glob("out.2*.jsonl"))


async def test_output_of_the_original_is_taken_up_and_completed(
    bench: Bench, service: MockService
) -> None:
    picture = bench.folder / "img" / "1.gif"
    picture.parent.mkdir()
    picture.write_bytes(b"GIF89a\x03\x00\x02\x00\x00\x00\x00;")
    done = bench.line("id: 1", "done")
    done["answers"] = [{"created": 1708834483, "contents": [{"message": {"id": "x"}}]}]
    lines = [
        {
            "id": "id: 0",
            "asks": [{"id": "pid: 0", "content": "zero", "images": ["img/1.gif"]}],
            "answers": None,
            "iErr": {"code": 501, "message": "failed to chat: 429 Too Many Requests"},
        },
        done,
        {
            "id": "id: 2",
            "asks": [{"id": "pid: 0", "content": "two"}],
            "answers": None,
            "iErr": {"code": 400, "message": "resource is not ready"},
        },
        {"id": "id: 3", "asks": [{"id": "pid: 0", "content": "three"}], "answers": None},
    ]
    bench.write(*lines, name="old.jsonl")
    summary = await bench.run(service.origin, input="old.jsonl", out="new.jsonl", fix=True)
    assert (summary.done, summary.done_before, summary.exit_code) == (4, 1, 0)
    found = bench.read("new.jsonl")
    assert found[1] == done
    digest = sha256(picture.read_bytes()).hexdigest()
    assert texts(found[0]) == [answer_text("zero", [digest])]
    assert [texts(line) for line in found[2:]] == [[answer_text("two")], [answer_text("three")]]
    assert [line["asks"] for line in found] == [line["asks"] for line in lines]
    assert all(line.get("iErr") is None for line in found)


# Whole


async def test_two_thousand_lines_are_answered_byte_for_byte(
    bench: Bench, serving: Serving
) -> None:
    files = {f"up/{number}.txt": b"text %d\n" % number * number for number in range(1, 6)}
    files |= {
        f"up/{number}.gif": b"GIF89a%c\x00\x02\x00\x00\x00\x00;" % number for number in (1, 2)
    }
    (bench.folder / "up").mkdir()
    for name, content in files.items():
        (bench.folder / name).write_bytes(content)
    lines = []
    for number in range(2000):
        line = bench.line(
            number, *[f"ask {number}.{place} 好\u2028" for place in range(number % 3 + 1)]
        )
        if number % 10 == 0:
            line["asks"][0] |= {"images": ["up/1.gif", "up/2.gif"], "files": ["up/1.txt"]}
        if number % 25 == 0:
            line["asks"][-1]["file"] = f"up/{number % 5 + 1}.txt"
        lines.append(line | {"extra": {"n": number}, "more": [number]})
    bench.write(*lines)
    async with serving(asset_rate=0.1, asset_count=2, asset_size=3000) as service:
        summary = await bench.run(service.origin, goroutine=40, download_dir="got")
    assert (summary.done, summary.exit_code, summary.retries) == (2000, 0, 0)
    assert service.stats.answered_twice == 0
    assert service.stats.chats_answered == summary.chats == sum(len(x["asks"]) for x in lines)

    local: set[str] = set()
    for line, given in zip(bench.read(), lines, strict=True):
        assert {key: line[key] for key in given} == given
        for ask, answer in zip(given["asks"], line["answers"], strict=True):
            paths = [*ask.get("images", ()), *ask.get("files", ())]
            paths += [ask["file"]] if "file" in ask else []
            digests = [sha256(files[path]).hexdigest() for path in paths]
            text = answer["contents"][-1]["message"]["content"]["parts"][0]
            assert text == answer_text(ask["content"], digests)
            for url, item in zip(
                answer.get("downloads", ()), answer.get("spec_downloads", ()), strict=True
            ):
                assert item["origin"] == url
                suggested = item["local"].split("_", 4)[-1]
                found = (bench.folder / "got" / item["local"]).read_bytes()
                assert found == asset_bytes(suggested, 3000)
                assert item["local"].startswith(f"GPT4API_{given['id']}_{ask['id']}_")
                local.add(item["local"])
    assert {path.name for path in (bench.folder / "got").iterdir()} == local
    assert len(local) == summary.downloads > 300
    assert service.stats.downloads_with_authorization == 0


# Stopped


async def test_limit_runs_so_many_lines_and_leaves_the_rest(
    bench: Bench, service: MockService
) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(5)])
    first = await bench.run(service.origin, limit=2)
    assert (first.done, first.not_run, first.chats) == (2, 3, 2)
    assert [line.get("iErr") for line in bench.read()] == [None, None, *[NOT_RUN] * 3]
    second = await bench.run(service.origin, limit=2, fix=True)
    assert (second.done, second.done_before, second.chats) == (4, 2, 2)
    third = await bench.run(service.origin, fix=True)
    assert (third.done, third.exit_code) == (5, 0)
    assert service.stats.answered_twice == 0


async def test_budget_stops_the_run_and_counts_retries(bench: Bench, serving: Serving) -> None:
    bench.write(
        bench.line(1, "one [[mock:rate-limit*1]]"),
        bench.line(2, "two", "two more"),
        bench.line(3, "three"),
    )
    async with serving(retry_after=0.01) as service:
        words = bench.batchsvc(service.origin, "--max-calls", "3", "-g", "1")
        first = await bench.call(*words)
        assert first.code == 3, first.err
        assert "--max-calls 3" in first.err
        assert "-f" in first.err
        assert service.stats.calls["/standard/all-tools", 200] == 2
        lines = bench.read()
        assert [len(line["answers"] or ()) for line in lines] == [1, 1, 0]
        assert [line.get("iErr") for line in lines] == [None, NOT_RUN, NOT_RUN]
        second = await bench.run(service.origin, fix=True)
    assert (second.exit_code, second.done, second.chats) == (0, 3, 2)
    assert service.stats.answered_twice == 0


async def test_exhausted_quota_stops_the_run_at_once(bench: Bench, serving: Serving) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(30)])
    async with serving(quota=3) as service:
        result = await bench.call(*bench.batchsvc(service.origin, "-g", "1"))
        assert service.stats.calls["/standard/all-tools", 402] == 1
    assert result.code == 3
    assert "quota" in result.err
    assert "402" in result.err
    assert "-f" in result.err
    assert "Traceback" not in result.err
    lines = bench.read()
    assert [line.get("iErr") for line in lines] == [None] * 3 + [NOT_RUN] * 27


@pytest.mark.parametrize(
    ("status", "body", "headers", "stops"),
    [
        (429, {"error": {"message": "Please top up", "code": "insufficient_quota"}}, {}, True),
        (403, {"code": "insufficient_quota", "message": "no"}, {}, True),
        (403, {"message": "您的账户余额不够"}, {}, True),
        (429, {"message": "次数已用完"}, {}, True),
        (400, {"message": "余额不足"}, {}, True),
        (500, {"message": "额度已用完"}, {}, True),
        (429, {"message": "You have exceeded your quota"}, {}, True),
        (200, {"contents": [{"error": "insufficient_quota: check your plan"}]}, {}, True),
        (200, {"message": "余额不足"}, {}, True),
        (429, {"message": "Quota exceeded for requests per minute"}, {}, False),
        (429, {"message": "quota exceeded"}, {"retry-after": "0"}, False),
        (400, {"message": "content refused: " + "what does 余额不足 mean? " * 20}, {}, False),
        (403, {"message": "not allowed"}, {}, False),
    ],
)
async def test_words_of_an_exhausted_quota_stop_the_run(
    bench: Bench,
    scripted: Any,
    status: int,
    body: dict[str, Any],
    headers: dict[str, str],
    stops: bool,
) -> None:
    async def handler(_request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    bench.write(bench.line(1, "one"), bench.line(2, "two"))
    async with scripted(handler) as server:
        summary = await bench.run(server.origin, retries=0, goroutine=1, patience=0.0)
        assert (summary.exit_code, len(server.requests)) == ((3, 1) if stops else (1, 2))
    assert (bench.read()[0]["iErr"] == NOT_RUN) == stops


async def test_lines_whose_files_are_gone_do_not_stop_the_run(bench: Bench, scripted: Any) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(status=403, text="expired")
        reply = {"message_id": "m", "conversation_id": "c", "contents": [{}]}
        link = f"http://{request.headers['Host']}/file"
        return web.json_response(reply | {"downloads": [link]})

    bench.write(*[bench.line(number, f"ask {number}") for number in range(30)])
    async with scripted(handler) as server:
        summary = await bench.run(server.origin, goroutine=1)
    assert (summary.exit_code, summary.failed, summary.not_run) == (1, 30, 0)


async def test_cancelled_run_of_a_program_leaves_an_ordered_output_and_says_what_was_in_flight(
    bench: Bench, service: MockService, until: Until
) -> None:
    bench.write(*[bench.line(n, text) for n, text in enumerate(["a", "b [[mock:hang*1]]", "c"])])
    async with anyio.create_task_group() as group:
        group.start_soon(partial(bench.run, service.origin, goroutine=3))
        await until(lambda: service.stats.now == 1 and service.stats.chats_answered == 2)
        group.cancel_scope.cancel()
    assert [line.get("iErr") for line in bench.read()] == [None, NOT_RUN, None]
    summary = await bench.run(service.origin, fix=True)
    assert (summary.done, summary.chats, summary.killed_in_flight) == (3, 1, 1)


@pytest.mark.parametrize(("most", "calls"), [(None, 20), ("7", 7), ("0", 30)])
async def test_service_that_only_fails_stops_the_run(
    bench: Bench, service: MockService, most: str | None, calls: int
) -> None:
    bench.write(*[bench.line(number, f"ask {number} [[mock:400]]") for number in range(30)])
    words = ["-g", "1"] + (["--max-consecutive-failures", most] if most else [])
    result = await bench.call(*bench.batchsvc(service.origin, *words))
    assert result.code == (1 if calls == 30 else 3), result.err
    assert service.stats.calls["/standard/all-tools", 400] == calls
    lines = bench.read()
    assert sum(line["iErr"] == NOT_RUN for line in lines) == 30 - calls


async def test_missing_attachment_fails_only_its_line(bench: Bench, service: MockService) -> None:
    bad = bench.line("q-7", "with a file")
    bad["asks"][0]["files"] = ["no/such.txt"]
    bench.write(bench.line(1, "one"), bad, bench.line(3, "three"))
    summary = await bench.run(service.origin)
    assert (summary.done, summary.failed, summary.exit_code) == (2, 1, 1)
    error = bench.read()[1]["iErr"]
    assert (error["code"], error["stage"]) == (501, "attachment")
    for words in ("no/such.txt", "No such file", str(bench.folder)):
        assert words in error["message"]
    assert service.stats.chats_answered == 2
    assert service.stats.uploads_answered == 0


async def test_attachment_beyond_100_mib_is_refused_before_the_upload(
    bench: Bench, service: MockService
) -> None:
    with (bench.folder / "big.bin").open("wb") as file:
        file.truncate(100 * 1024 * 1024 + 1)
    line = bench.line(1, "one")
    line["asks"][0]["files"] = ["big.bin"]
    bench.write(line)
    summary = await bench.run(service.origin)
    assert summary.exit_code == 1
    assert "100 MiB" in bench.read()[0]["iErr"]["message"]
    assert service.stats.arrivals == 0


# Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_signal_lets_lines_in_flight_finish_and_completes_the_output(
    bench: Bench, serving: Serving, until: Until, number: signal.Signals, code: int
) -> None:
    bench.write(*[bench.line(n, f"ask {n}") for n in range(40)])
    async with serving(latency=0.4) as service:
        async with bench.start(*bench.batchsvc(service.origin, "-g", "4")) as running:
            await until(lambda: service.stats.now == 4)
            running.process.send_signal(number)
            result = await running.end()
        answered = service.stats.chats_answered
        assert result.code == code, result.err
        assert " -f" in result.err
        lines = bench.read()
        assert [line["id"] for line in lines] == list(range(40))
        assert sum(bool(line["answers"]) for line in lines) == answered == 4
        assert [line["iErr"] for line in lines if not line["answers"]] == [NOT_RUN] * 36
        second = await bench.run(service.origin, fix=True, goroutine=40)
    assert (second.done, second.exit_code) == (40, 0)
    assert service.stats.answered_twice == 0
    assert not bench.names("*.tmp")


async def test_second_signal_cancels_what_is_in_flight(
    bench: Bench, service: MockService, until: Until
) -> None:
    bench.write(*[bench.line(n, f"ask {n} [[mock:hang]]") for n in range(6)])
    async with bench.start(*bench.batchsvc(service.origin, "-g", "3")) as running:
        await until(lambda: service.stats.now == 3)
        await stop_at_once(running)
        result = await running.end()
    assert result.code == 130, result.err
    assert [line["iErr"] for line in bench.read()] == [NOT_RUN] * 6
    assert "Traceback" not in result.err


async def test_grace_ends_the_wait_for_lines_in_flight(
    bench: Bench, service: MockService, until: Until
) -> None:
    bench.write(bench.line(1, "one [[mock:hang]]"), bench.line(2, "two"))
    words = bench.batchsvc(service.origin, "-g", "2", "--grace", "0.2")
    async with bench.start(*words) as running:
        await until(lambda: service.stats.now == 1 and service.stats.chats_answered == 1)
        running.process.send_signal(signal.SIGTERM)
        result = await running.end()
    assert result.code == 143, result.err
    assert [line.get("iErr") for line in bench.read()] == [NOT_RUN, None]


async def test_kill_in_the_middle_then_fix_does_every_line_once(
    bench: Bench, serving: Serving, until: Until
) -> None:
    lines = [bench.line(n, f"ask {n}", f"more {n}") for n in range(60)]
    bench.write(*lines)
    async with serving(latency=0.03, jitter=1.0) as service:
        for wanted in (20, 50, 80):
            words = bench.batchsvc(service.origin, "-g", "4", "-f")
            async with bench.start(*words) as running:
                await until(partial(answered_at_least, service, wanted))
                running.process.kill()
                assert (await running.end()).code == -signal.SIGKILL
        third = await bench.call(*bench.batchsvc(service.origin, "-f", "-g", "20"))
        assert third.code == 0, third.err
        found = bench.read()
        assert [line["asks"] for line in found] == [line["asks"] for line in lines]
        assert [texts(line) for line in found] == [
            [answer_text(f"ask {n}"), answer_text(f"more {n}")] for n in range(60)
        ]
        # Only what was in flight at a kill, on four workers, can have been asked again.
        assert service.stats.answered_twice <= 12


# Other ways in and out


async def test_standard_input_and_output_are_a_pipe(bench: Bench, service: MockService) -> None:
    given = b"".join(rawjson.dumps(bench.line(n, f"ask {n}")) + b"\n" for n in range(5))
    words = bench.batchsvc(service.origin, "-i", "-", "-o", "-")
    result = await bench.call(*words, stdin=given)
    assert result.code == 0, result.err
    lines = [rawjson.loads(text) for text in result.out.encode().splitlines()]
    assert sorted(line["id"] for line in lines) == [0, 1, 2, 3, 4]
    assert all(texts(line) == [answer_text(f"ask {line['id']}")] for line in lines)
    assert bench.names() == []


async def test_stream_gets_the_lines_that_came_done_too(bench: Bench, service: MockService) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(3)])
    await bench.run(service.origin, limit=2)
    words = bench.batchsvc(service.origin, "-f", "-i", "out.jsonl", "-o", "-")
    result = await bench.call(*words)
    assert result.code == 0, result.err
    lines = [rawjson.loads(text) for text in result.out.encode().splitlines()]
    assert [texts(line) for line in lines] == [[answer_text(f"ask {n}")] for n in range(3)]
    assert service.stats.answered_twice == 0


async def test_empty_standard_input_is_no_line(bench: Bench, service: MockService) -> None:
    result = await bench.call(*bench.batchsvc(service.origin, "-i", "-"))
    assert result.code == 0, result.err
    assert bench.read() == []


async def test_snapshot_is_whole_in_order_usable_and_removed_at_the_end(
    bench: Bench, service: MockService, until: Until
) -> None:
    bench.write(bench.line(1, "one [[mock:hang*1]]"), bench.line(2, "two"), bench.line(3, "3", "x"))
    words = bench.batchsvc(service.origin, "-v", "0.01", "--grace", "0.1")

    def snapshots() -> list[str]:
        return bench.names(".2*-in.jsonl")

    async with bench.start(*words) as running:
        await until(lambda: service.stats.chats_answered == 3 and snapshots())
        before = (bench.folder / snapshots()[-1]).stat().st_ino
        await until(lambda: (bench.folder / snapshots()[-1]).stat().st_ino != before)
        found = bench.read(snapshots()[-1])
        (bench.folder / "kept.jsonl").write_bytes((bench.folder / snapshots()[-1]).read_bytes())
        running.process.send_signal(signal.SIGTERM)
        await running.end()
    assert [line["id"] for line in found] == [1, 2, 3]
    assert [line.get("iErr") for line in found] == [NOT_RUN, None, None]
    assert snapshots() == []
    summary = await bench.run(service.origin, input="kept.jsonl", out="end.jsonl", fix=True)
    assert (summary.done, summary.done_before, summary.chats) == (3, 2, 1)


async def test_snapshots_go_on_where_the_disk_has_no_room_for_two(
    bench: Bench, serving: Callable[..., MockService]
) -> None:
    """The log has all that a snapshot has: a disk with room for one more copy is enough."""
    (bench.folder / "small").mkdir()
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    small = "mount -t tmpfs -o size=2500k small small"
    if subprocess.run([*own, small], cwd=bench.folder, capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a disk of his own")
    bench.write(bench.line(1, "one [[mock:hang]]"), bench.line(2, "two"))
    async with serving(answer_size=1_000_000) as service:
        words = bench.batchsvc(service.origin, "-o", "small/out.jsonl", "-v", "0.003", "-q", "5")
        command = [*own, f'{small} && exec "$@"', "sh", sys.executable, "-m", "gpt4batch", *words]
        said = b""
        async with await anyio.open_process(command, cwd=bench.folder) as process:
            for number in (signal.SIGTERM, signal.SIGTERM):
                while said.count(b"snapshot: ") < 4:
                    said += await errors_of(process).receive()
                process.send_signal(number)
                async for chunk in errors_of(process):
                    said += chunk
                    if b"again to stop at once" in said:
                        break
    assert process.returncode == 143, said
    assert b"no snapshot" not in said


async def test_no_snapshot_is_made_without_rdb(
    bench: Bench, service: MockService, until: Until
) -> None:
    bench.write(bench.line(1, "one [[mock:hang]]"))
    words = bench.batchsvc(service.origin, "-r=false", "-v", "0.001", "--log-level", "debug")
    async with bench.start(*words) as running:
        await until(lambda: service.stats.now)
        await stop_at_once(running)
        await running.end()
    assert "snapshot:" not in running.err
    assert not bench.names(".2*")


async def test_summary_holds_the_totals_as_json(bench: Bench, service: MockService) -> None:
    bench.write(bench.line(1, "one"), bench.line(2, "two [[mock:404]]"))
    words = bench.batchsvc(service.origin, "--summary", "totals.json", "--quiet")
    result = await bench.call(*words)
    assert (result.code, result.out) == (1, "")
    totals = rawjson.loads((bench.folder / "totals.json").read_bytes())
    wanted = {"lines": 2, "done": 1, "failed": 1, "not_run": 0, "chats": 2, "exit_code": 1}
    assert {name: totals[name] for name in wanted} == wanted
    assert totals["failures"][0]["code"] == 404
    assert totals["failures"][0]["examples"] == [2]


async def test_log_as_json_is_json_line_by_line(bench: Bench, service: MockService) -> None:
    bench.write(bench.line(1, "one"), bench.line(2, "two [[mock:404]]"))
    bench.write(bench.line(1, "old"), name="out.jsonl")
    words = bench.batchsvc(service.origin, "--log-format", "json", "--quiet", "-d", "got")
    result = await bench.call(*words)
    entries = [rawjson.loads(text) for text in result.err.encode().splitlines()]
    assert len(entries) == 2
    assert all(entry["level"] and entry["time"] and entry["message"] for entry in entries)
    assert result.out == ""


async def test_log_file_takes_the_log_from_standard_error(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "one [[mock:404]]"))
    words = bench.batchsvc(service.origin, "--log-file", "run.log", "--quiet")
    result = await bench.call(*words)
    assert (result.out, result.err) == ("", "")
    assert "404" in (bench.folder / "run.log").read_text()


async def test_earlier_output_is_moved_aside_and_said(bench: Bench, service: MockService) -> None:
    bench.write(bench.line(1, "one"))
    bench.write(bench.line(9, "precious"), name="out.jsonl")
    before = (bench.folder / "out.jsonl").read_bytes()
    result = await bench.call(*bench.batchsvc(service.origin))
    aside = bench.names("out.2*.jsonl")
    assert len(aside) == 1
    assert (bench.folder / aside[0]).read_bytes() == before
    assert aside[0] in result.err
    assert [line["id"] for line in bench.read()] == [1]


async def test_second_run_on_an_output_is_refused(
    bench: Bench, service: MockService, until: Until
) -> None:
    bench.write(bench.line(1, "one [[mock:hang]]"))
    async with bench.start(*bench.batchsvc(service.origin)) as running:
        await until(lambda: service.stats.now == 1)
        before = (bench.folder / "out.jsonl").read_bytes()
        second = await bench.call(*bench.batchsvc(service.origin, "-f"))
        assert (bench.folder / "out.jsonl").read_bytes() == before
        await stop_at_once(running)
        await running.end()
    assert second.code == 2
    assert "another run" in second.err
    assert "out.jsonl" in second.err
    assert service.stats.arrivals == 1


async def test_upload_of_100_mib_does_not_cost_its_size_in_memory(
    bench: Bench, service: MockService, until: Until
) -> None:
    size = 100 * 1024 * 1024
    with (bench.folder / "big.bin").open("wb") as file:
        file.truncate(size)
    line = bench.line(1, "with it [[mock:hang]]")
    line["asks"][0]["files"] = ["big.bin"]
    bench.write(line)
    async with bench.start(*bench.batchsvc(service.origin)) as running:
        await until(lambda: service.stats.uploads_answered == 1)
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        running.process.kill()
        await running.end()
    assert service.stats.bytes_in >= size
    assert peak < 90 * 1024 * 1024


async def test_full_disk_stops_the_run_and_saves_the_answers_on_standard_error(
    bench: Bench, service: MockService
) -> None:
    bench.write(*[bench.line(n, f"ask {n}") for n in range(20)])
    words = bench.batchsvc(service.origin, "-g", "3", "-f", "-o", "/dev/full")
    result = await bench.call(*words)
    assert result.code == 4, result.err
    saved = [rawjson.loads(text) for text in result.err.encode().splitlines() if text[:1] == b"{"]
    assert len(saved) == service.stats.chats_answered
    assert all(texts(line) == [answer_text(f"ask {line['id']}")] for line in saved)
    assert service.stats.arrivals <= 6
    assert "Traceback" not in result.err


async def test_output_folder_gone_stops_the_run_and_saves_the_answers_on_standard_error(
    bench: Bench, serving: Serving, until: Until
) -> None:
    bench.write(*[bench.line(n, f"ask {n}") for n in range(20)])
    async with serving(latency=0.3) as service:
        words = bench.batchsvc(service.origin, "-g", "3", "-o", "res/out.jsonl")
        async with bench.start(*words) as running:
            await until(lambda: service.stats.chats_answered == 3 and service.stats.now == 3)
            for path in (bench.folder / "res").iterdir():
                path.unlink()
            (bench.folder / "res").rmdir()
            result = await running.end()
    assert result.code == 4, result.err
    saved = [rawjson.loads(text) for text in result.err.encode().splitlines() if text[:1] == b"{"]
    assert sorted(line["id"] for line in saved if line["answers"]) == [0, 1, 2, 3, 4, 5]
    assert service.stats.arrivals == 6
    assert "Traceback" not in result.err


async def test_output_folder_that_cannot_be_written_is_refused_before_any_call(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "one"))
    (bench.folder / "file").write_bytes(b"")
    result = await bench.call(*bench.batchsvc(service.origin, "-o", "file/out.jsonl"))
    assert result.code == 4
    assert "file" in result.last
    assert "Traceback" not in result.err
    assert service.stats.arrivals == 0


async def test_mock_rehearses_without_token_or_network(bench: Bench) -> None:
    bench.write(bench.line(1, "one"), bench.line(2, "two"))
    result = await bench.call(
        "batchsvc", "--mock", "-q", "0", "-i", "in.jsonl", env={"GPT4BATCH_LATENCY": "0"}
    )
    assert result.code == 0, result.err
    assert [texts(line) for line in bench.read()] == [[answer_text("one")], [answer_text("two")]]


async def test_done_run_exits_though_the_service_keeps_its_connections(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "one"))
    with anyio.fail_after(10):
        result = await bench.call(*bench.batchsvc(service.origin))
    assert result.code == 0
    assert bench.names() == ["in.jsonl", "out.jsonl"]


async def test_signal_starts_no_line_that_only_waited_for_its_turn(
    bench: Bench, service: MockService, until: Until
) -> None:
    bench.write(*[bench.line(n, f"ask {n}") for n in range(40)])
    words = bench.batchsvc(service.origin, "-g", "30", "-q", "2")
    async with bench.start(*words) as running:
        await until(partial(answered_at_least, service, 2))
        running.process.send_signal(signal.SIGINT)
        await running.says("no new lines")
        before = service.stats.arrivals
        result = await running.end()
    assert result.code == 130, result.err
    assert service.stats.arrivals - before <= 1
    assert [line["id"] for line in bench.read()] == list(range(40))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_signal_while_the_input_is_being_read_ends_the_run_at_once(
    bench: Bench, service: MockService, until: Until, number: signal.Signals, code: int
) -> None:
    bench.write(bench.line(9, "precious"), name="out.jsonl")
    before = (bench.folder / "out.jsonl").read_bytes()
    process = await anyio.open_process(
        [sys.executable, "-m", "gpt4batch", *bench.batchsvc(service.origin, "-i", "-")],
        cwd=bench.folder,
    )
    try:
        await until(lambda: "out.jsonl.lock" in bench.names())
        process.send_signal(number)
        with anyio.fail_after(20):
            err = b"".join([chunk async for chunk in errors_of(process)])
            ended = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        await process.aclose()
    assert ended in (code, -number), err
    assert b"Traceback" not in err
    assert (bench.folder / "out.jsonl").read_bytes() == before


async def test_reader_of_standard_output_that_leaves_stops_the_run_and_loses_no_answer(
    bench: Bench, serving: Serving
) -> None:
    bench.write(*[bench.line(n, f"ask {n}") for n in range(30)])
    async with serving(latency=0.05) as service:
        words = bench.batchsvc(service.origin, "-g", "2", "-o", "-")
        reader, writer = os.pipe()
        process = await anyio.open_process(
            [sys.executable, "-m", "gpt4batch", *words],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            cwd=bench.folder,
        )
        os.close(writer)
        try:
            with anyio.fail_after(30):
                first = await anyio.to_thread.run_sync(os.read, reader, 1 << 16)
                os.close(reader)
                err = b"".join([chunk async for chunk in errors_of(process)])
                code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await process.aclose()
    saved = [text for text in err.splitlines() if text[:1] == b"{"]
    answers = [rawjson.loads(text) for text in [*first.splitlines(), *saved]]
    assert code == 4, err
    assert b"Traceback" not in err
    assert len({line["id"] for line in answers}) >= service.stats.chats_answered - 2
    assert service.stats.chats_answered < 10


@pytest.mark.parametrize("flag", ["--summary", "--log-file"])
async def test_file_that_cannot_be_written_is_refused_before_any_call(
    bench: Bench, service: MockService, flag: str
) -> None:
    bench.write(bench.line(1, "one"))
    result = await bench.call(*bench.batchsvc(service.origin, flag, "no/such/folder/x"))
    assert result.code == 2, result.err
    assert f"{flag} no/such/folder/x: No such file" in result.last
    assert service.stats.arrivals == 0


async def test_output_that_is_a_folder_is_refused_before_any_call(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "one"))
    (bench.folder / "got").mkdir()
    result = await bench.call(*bench.batchsvc(service.origin, "-o", "got"))
    assert result.code in (2, 4), result.err
    assert "got: it is a folder" in result.last
    assert service.stats.arrivals == 0


async def test_output_as_input_without_fix_runs_everything_again(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "one"), bench.line(2, "two"), name="out.jsonl")
    await bench.run(service.origin, input="out.jsonl")
    first = (bench.folder / "out.jsonl").read_bytes()
    summary = await bench.run(service.origin, input="out.jsonl")
    assert (summary.done, summary.done_before, summary.chats) == (2, 0, 2)
    assert [texts(line) for line in bench.read()] == [[answer_text("one")], [answer_text("two")]]
    assert first in [path.read_bytes() for path in bench.folder.glob("out.2*.jsonl")]


# An input that was edited between two runs


def _answers(line: Any) -> list[Any]:
    return line["answers"] or []


def choosy(asked: list[Any]) -> Any:
    """Refuse the model `wrong`, and the second ask of everybody who does not ask for `right`."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        body = rawjson.loads(await request.read())
        model = body["model"]
        if model == "wrong" or (body["message"] == "two" and model != "right"):
            return web.json_response({"error": "no such model"}, status=422)
        asked.append((body["message"], model, body.get("gizmo_id"), body.get("conversation_id")))
        # What JSON decoders like to change comes back as it was.
        text = '{"message_id":"m","conversation_id":"c","n":1.50,"contents":[{"t":"é"}]}'
        return web.Response(text=text, content_type="application/json")

    return answer


@pytest.mark.parametrize("killed", [False, True])
async def test_what_is_edited_in_the_input_counts_for_every_line_that_is_not_done(
    bench: Bench, scripted: Any, killed: bool
) -> None:
    asked: list[Any] = []
    done, failed = bench.line("done", "one"), bench.line("failed", "one", model="wrong")
    half, new = bench.line("half", "one", "two", model="half"), bench.line("new", "one")
    bench.write(done, failed, half, new | {"model": "wrong", "key": "old"})
    async with scripted(choosy(asked)) as server:
        first = await bench.run(server.origin, goroutine=1, retries=0, limit=3)
        assert (first.done, first.failed, first.not_run) == (1, 2, 1)
        if killed:
            out = bench.folder / "out.jsonl"
            texts = out.read_bytes().splitlines()[:3]
            out.write_bytes(b"".join(b"\t \t" + text + b"\n" for text in texts))
        asked.clear()
        more = b',"big":123456789012345678901234567890,"model":"right","gizmo_id":"g"}'
        del failed["model"]
        edited = [rawjson.dumps(line)[:-1] + more for line in (done, failed)]
        half["model"] = "right"
        edited += [rawjson.dumps(half | {"key": "new"}), rawjson.dumps(new)]
        bench.write(*edited)
        second = await bench.run(server.origin, goroutine=1, retries=0, fix=True)
    assert (second.done_before, second.done, second.chats) == (1, 4, 3)
    assert [(message, model) for message, model, *_ in asked] == [
        ("one", "right"),
        ("two", "right"),
        ("one", gpt4batch.Settings().model),
    ]
    assert asked[0][2] == "g"
    assert asked[1][3] == "c"  # the conversation went on where it was
    texts = (bench.folder / "out.jsonl").read_bytes().splitlines()
    assert b"big" not in texts[0]  # what is done stays as it is
    assert b'"big":123456789012345678901234567890,"model":"right","gizmo_id":"g"}' in texts[1]
    assert texts[2].count(b'"n":1.50') == 2
    found = bench.read()
    assert (found[2]["key"], found[2]["model"]) == ("new", "right")
    assert not {"key", "model"} & set(found[3])
    assert list(found[1]) == ["id", "asks", "answers", "meta", "big", "model", "gizmo_id"]


async def test_lines_left_undone_twice_carry_what_the_input_says_now(
    bench: Bench, scripted: Any
) -> None:
    lines = [bench.line("a", "one", model="wrong"), bench.line("b", "one", "two", model="half")]
    bench.write(*lines)
    async with scripted(choosy([])) as server:
        await bench.run(server.origin, goroutine=1, retries=0)
        before = bench.read()
        assert [len(answered) for answered in map(_answers, before)] == [0, 1]
        bench.write(
            *[line | {"model": "right", "extra": 1} for line in lines], bench.line("c", "x")
        )
        again = await bench.run(server.origin, goroutine=1, retries=0, fix=True, limit=1)
        assert again.done == 1
    after = bench.read()
    assert after[1]["answers"] == before[1]["answers"]
    assert after[1]["iErr"] == before[1]["iErr"]
    assert after[1]["meta"] == before[1]["meta"]
    assert [(line.get("model"), line.get("extra")) for line in after[:2]] == [("right", 1)] * 2
    assert after[0]["answers"]


@pytest.mark.parametrize("command", ["batchsvc", "check"])
async def test_input_without_lines_does_not_move_an_earlier_output_aside(
    bench: Bench, service: MockService, command: str
) -> None:
    bench.write(bench.line(1, "question"))
    words = ["-i", "in.jsonl", "--token", bench.token, "-u", f"{service.origin}/standard/all-tools"]
    assert (await bench.call("batchsvc", *words)).code == 0
    before = (bench.folder / "out.jsonl").read_bytes()
    bench.write()
    result = await bench.call(command, *words)
    assert result.code == 2
    assert "in.jsonl has no lines; the output" in result.out + result.err
    assert (bench.folder / "out.jsonl").read_bytes() == before
    assert [path.name for path in bench.folder.glob("out*.jsonl")] == ["out.jsonl"]
