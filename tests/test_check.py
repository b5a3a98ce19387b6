from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpt4batch import Settings
from gpt4batch.batch.preflight import Report, check
from gpt4batch.errors import UsageError
from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

    Serving = Callable[..., MockService]
    Until = Callable[[Callable[[], Any]], Awaitable[None]]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def settings(bench: Bench, **given: Any) -> Settings:
    return bench.settings("http://127.0.0.1:9", qps=1.0, **given)


def about(report: Report, level: str) -> dict[str, str]:
    return {item.about: item.message for item in report.findings if item.level == level}


def state(folder: Path) -> dict[str, Any]:
    """Return everything in a folder: names, times of change, contents."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


# Nothing wrong


async def test_good_batch_is_planned(bench: Bench) -> None:
    (bench.folder / "a.png").write_bytes(PNG)
    lines = [bench.line(n, "one", "two") for n in range(10)]
    lines[3]["asks"][1] |= {"images": ["a.png"], "files": ["in.jsonl"]}
    size = bench.write(*lines).stat().st_size
    report = await check(settings(bench, goroutine=5))
    plan = report.plan
    assert plan is not None
    assert (report.exit_code, report.findings) == (0, [])
    assert (plan.lines, plan.to_run, plan.done, plan.chats, plan.uploads) == (10, 10, 0, 20, 2)
    assert plan.upload_bytes == len(PNG) + size
    assert (plan.call_seconds, plan.call_seconds_from) == (30.0, "assumed")
    assert plan.seconds == pytest.approx(22 * 30 / 5)  # five at a time hold it up, not the pace


async def test_pace_holds_up_what_runs_many_lines_at_once(bench: Bench) -> None:
    bench.write(*[bench.line(n, "one") for n in range(100)])
    report = await check(settings(bench, goroutine=100))
    assert report.plan is not None
    assert report.plan.seconds == pytest.approx(100 + 30)


async def test_plan_of_a_resumed_run_knows_what_is_done_and_how_long_calls_take(
    bench: Bench, serving: Serving
) -> None:
    bench.write(bench.line(1, "a"), bench.line(2, "b [[mock:400*1]]"), bench.line(3, "c", "d"))
    async with serving(latency=0.2, jitter=0.0) as service:
        await bench.run(service.origin)
        before = state(bench.folder)
        report = await check(settings(bench, fix=True))
    plan = report.plan
    assert plan is not None
    assert (plan.done, plan.to_run, plan.chats) == (2, 1, 1)
    assert plan.call_seconds_from == "output"
    assert plan.call_seconds == pytest.approx(0.2, abs=0.15)
    assert state(bench.folder) == before


async def test_limit_bounds_the_plan(bench: Bench) -> None:
    bench.write(*[bench.line(n, "one") for n in range(9)])
    report = await check(settings(bench, limit=4))
    assert report.plan is not None
    assert (report.plan.to_run, report.plan.chats) == (4, 4)


async def test_nothing_left_to_run_is_said(bench: Bench, service: MockService) -> None:
    bench.write(bench.line(1, "a"))
    await bench.run(service.origin)
    report = await check(settings(bench, fix=True))
    assert report.exit_code == 0
    assert "nothing to run: every line is done" in about(report, "note")["plan"]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([b"{", b"[]"], "every line is bad"),
        ([b"{", b'{"id":1,"asks":[{"content":"a"}],"answers":[{}]}'], "every good line is done"),
        ([], "the input has no lines"),
    ],
)
async def test_why_nothing_is_left_to_run_is_said(
    bench: Bench, lines: list[bytes], why: str
) -> None:
    bench.write(*lines)
    report = await check(settings(bench, fix=True, skip_bad_lines=True))
    assert about(report, "note")["plan"] == f"there is nothing to run: {why}"


# Nothing is written or called


async def test_nothing_is_written_or_called(bench: Bench, service: MockService) -> None:
    bench.write(bench.line(1, "a"), bench.line(2, "b"))
    (bench.folder / "out.jsonl").write_bytes(b'{"id":1,"asks":[{"id":"a-1"')  # a torn line
    before = state(bench.folder)
    words = bench.batchsvc(service.origin, "-o", "new/out.jsonl", "-d", "pictures")
    for more in ([], ["-f"], ["-o=out.jsonl"], ["-f", "-o=out.jsonl"], ["--json"]):
        result = await bench.call("check", *words[1:], *more)
        assert result.code == 0, result.err + result.out
        assert result.err == ""
    assert state(bench.folder) == before
    assert service.stats.arrivals == 0


async def test_torn_line_counts_as_not_done(bench: Bench, service: MockService) -> None:
    bench.write(bench.line(1, "a"), bench.line(2, "b"))
    await bench.run(service.origin)
    out = bench.folder / "out.jsonl"
    out.write_bytes(out.read_bytes()[:-20])
    report = await check(settings(bench, fix=True))
    assert report.plan is not None
    assert (report.plan.done, report.plan.to_run) == (1, 1)


# What a run refuses


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="no file system that takes nothing")
async def test_output_where_nothing_can_be_made_is_refused_as_by_a_run(bench: Bench) -> None:
    bench.write(bench.line(1, "a"))
    result = await bench.call("check", "--mock", "-i", "in.jsonl", "-o", "/proc/out.jsonl")
    assert result.code == 4
    assert "cannot write beside /proc/out.jsonl" in result.out
    run = await bench.call("batchsvc", "--mock", "-i", "in.jsonl", "-o", "/proc/out.jsonl")
    assert run.code == 4


async def test_bad_lines_are_listed_and_many_are_counted(bench: Bench) -> None:
    bench.write(b"{", *[b"[]"] * 40, bench.line(1, "a"), b'{"asks":[]}')
    result = await bench.call("check", "--mock", "-i", "in.jsonl")
    assert result.code == 2
    assert "42 bad line(s)" in result.out
    assert "in.jsonl:1: " in result.out
    assert "and 23 more; --json has them all" in result.out
    result = await bench.call("check", "--mock", "--json", "-i", "in.jsonl")
    for number in (1, *range(2, 42), 43):
        assert f"in.jsonl:{number}: " in result.out
    run = await bench.call("batchsvc", "--mock", "-i", "in.jsonl")
    assert run.code == 2
    skipping = await bench.call("check", "--mock", "-i", "in.jsonl", "--skip-bad-lines", "--json")
    report = rawjson.loads(skipping.out.encode())
    assert skipping.code == report["exit_code"] == 1
    assert len(report["findings"]) == 42
    assert (report["plan"]["to_run"], report["plan"]["bad_lines"]) == (1, 42)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["-i", "missing.jsonl"], 2),
        (["-g", "0"], 2),
        (["-u", "ftp://x"], 2),
        (["--token-file", "missing"], 2),
        (["--proxy", "socks5://127.0.0.1:1"], 2),
        (["--proxy", "http://user:secret@127.0.0.1:99999"], 2),
        (["--metrics-port", "70000"], 2),
        (["-u", "http://user:secret@127.0.0.1:9/standard/all-tools"], 2),
        (["--fleet", "--nsqd-tcp-address", "127.0.0.1:9"], 2),
        (["-n", "--nsqd-tcp-address", "127.0.0.1:9"], 2),
        (["-n", "--nsq-topic", "no such topic"], 2),
        (["-o", "in.jsonl/out.jsonl"], 4),
        (["-d", "in.jsonl/pictures"], 4),
        (["-o", "x" * 242], 4),
        (["-o", "结" * 84], 4),
        (["-o", "x" * 255], 4),
    ],
)
async def test_what_a_run_refuses_is_refused_alike(
    bench: Bench, service: MockService, words: list[str], code: int
) -> None:
    bench.write(bench.line(1, "a"))
    given = bench.batchsvc(service.origin)
    if "--token-file" in words:
        given = given[:-2]
    checked = await bench.call("check", *given[1:], *words)
    ran = await bench.call(*given, *words)
    assert (checked.code, ran.code) == (code, code), checked.out + checked.err + ran.err
    assert service.stats.arrivals == 0
    if code == 2:  # in the same words
        said = ran.err.strip().splitlines()[0].removeprefix("gpt4batch: ")
        assert said.removeprefix("Error: ") in checked.out + checked.err


@pytest.mark.parametrize(("size", "again"), [(241, False), (239, True)])
async def test_longest_name_that_a_run_takes_is_ready(
    bench: Bench, service: MockService, size: int, again: bool
) -> None:
    bench.write(bench.line(1, "a"))
    words = bench.batchsvc(service.origin, "-o", "x" * size)
    for _ in range(1 + again):
        checked = await bench.call("check", *words[1:])
        ran = await bench.call(*words)
        assert (checked.code, ran.code) == (0, 0), checked.out + ran.err


async def test_name_too_long_to_be_moved_aside_is_refused(bench: Bench) -> None:
    bench.write(bench.line(1, "a"))
    bench.write(bench.line(1, "a"), name="x" * 240)
    for more, code in (([], 4), (["-f"], 0)):
        words = bench.batchsvc("http://127.0.0.1:9", "-o", "x" * 240, "--retries=0", *more)
        assert (await bench.call("check", *words[1:])).code == code
        ran = await bench.call(*words)
        assert (ran.code == 4) == (code == 4), ran.err


async def test_port_of_the_metrics_in_use_is_refused_alike(bench: Bench) -> None:
    bench.write(bench.line(1, "a"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = bench.batchsvc("http://127.0.0.1:9", "--metrics-port", port)
        checked, ran = await bench.call("check", *words[1:]), await bench.call(*words)
    assert (checked.code, ran.code) == (2, 2)
    assert ran.err.strip().removeprefix("gpt4batch: ") in checked.out


async def test_coordinator_needs_no_token(bench: Bench) -> None:
    bench.write(bench.line(1, "a"))
    report = await check(settings(bench, token="", fleet=True, nsqd_tcp_address="127.0.0.1:9"))
    assert list(about(report, "refused")) == ["nsq"]


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (["--metrics-port", "70000"], {}, "--metrics-port 70000: ports end at 65535"),
        (["-u", "http://user:secret@h/x"], {}, "--url 'http://h/x': leave out the user name"),
        ([], {"GPT4BATCH_QPS": "-1"}, "GPT4BATCH_QPS: -q -1: must not be below 0"),
        (
            ["-u", "http://service.invalid/all-tools"],
            {"HTTP_PROXY": "http://user:secret@[::1"},
            "HTTP_PROXY 'http://[::1': not the",
        ),
    ],
)
async def test_refused_settings_are_told_as_json(
    bench: Bench, words: list[str], variables: dict[str, str], said: str
) -> None:
    bench.write(bench.line(1, "a"))
    url = "http://127.0.0.1:9/standard/all-tools"
    given = ["check", "--json", "-i", "in.jsonl", "-u", url, "--token", "t", *words]
    result = await bench.call(*given, env=variables)
    report = rawjson.loads(result.out.encode())
    assert (result.code, report["exit_code"], result.err) == (2, 2, "")
    [finding] = report["findings"]
    assert finding["level"] == "refused"
    assert finding["message"].startswith(said)
    assert "secret" not in result.out


async def test_expired_token_is_refused(bench: Bench) -> None:
    bench.write(bench.line(1, "a"))
    store = Path.home() / ".gpt4api-sk.pub"
    store.write_bytes(rawjson.dumps({"access_token": "secret-1", "expired_at": 1000}))
    result = await bench.call("check", "-i", "in.jsonl")
    assert result.code == 2
    assert "token: the token in" in result.out
    assert "authsvc" in result.out
    assert "secret-1" not in result.out


async def test_token_that_expires_during_the_run_is_noted(bench: Bench) -> None:
    bench.write(*[bench.line(n, "a") for n in range(50)])
    expires = (datetime.now(UTC) + timedelta(seconds=40)).isoformat()
    store = Path.home() / ".gpt4api-sk.pub"
    store.write_bytes(rawjson.dumps({"access_token": "secret-1", "expired_at": expires}))
    report = await check(settings(bench, token=""))
    assert report.exit_code == 0
    assert "expires at" in about(report, "note")["token"]
    store.write_bytes(rawjson.dumps({"access_token": "secret-1", "expired_at": 9999999999}))
    assert (await check(settings(bench, token=""))).findings == []


async def test_lock_of_a_run_is_seen(bench: Bench, serving: Serving, until: Until) -> None:
    bench.write(bench.line(1, "a"))
    async with serving(latency=20.0, jitter=0.0) as service:
        words = bench.batchsvc(service.origin)
        async with bench.start(*words):
            await until(lambda: service.stats.arrivals)
            held = await bench.call("check", *words[1:])
            assert held.code == 2
            assert "another run is writing" in held.out
    freed = await bench.call("check", *words[1:])
    assert freed.code == 0, freed.out


# What would fail or looks wrong


async def test_attachments_are_looked_at(bench: Bench) -> None:
    (bench.folder / "page.png").write_bytes(b"<html>")
    (bench.folder / "empty.txt").touch()
    with (bench.folder / "huge.bin").open("wb") as file:
        file.truncate(101 * 1024 * 1024)
    lines = [bench.line(n, "x") for n in range(1, 6)]
    lines[0]["asks"][0]["images"] = ["page.png"]
    lines[1]["asks"][0]["files"] = ["empty.txt"]
    lines[2]["asks"][0]["files"] = ["huge.bin"]
    lines[3]["asks"][0]["files"] = ["gone.txt"]
    lines[4]["asks"][0]["image"] = "gone.txt"
    bench.write(*lines)
    report = await check(settings(bench))
    assert report.exit_code == 1
    assert report.plan is not None
    assert (report.plan.to_fail, report.plan.chats, report.plan.uploads) == (3, 2, 2)
    said = [(item.level, item.message) for item in report.findings]
    path = bench.folder / "in.jsonl"
    assert said[0][1].startswith(f"{path}:1: page.png is sent as a picture, but")
    assert said[1] == ("note", f"{path}:2: empty.txt is empty")
    assert "huge.bin has 105906176 bytes" in said[2][1]
    assert said[3][1].startswith(f"{path}:4: cannot read the attachment gone.txt: No such file")
    assert said[4] == ("fails", f"{path}:5: gone.txt cannot be sent either")


@pytest.mark.parametrize(
    "head",
    [
        PNG,
        b"\xff\xd8\xff\xe0rest",
        b"GIF89a",
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        b"BM1234",
        b"II*\x00",
        b"\x00\x00\x00\x1cftypavif",
    ],
)
async def test_picture_is_known_by_its_first_bytes(bench: Bench, head: bytes) -> None:
    (bench.folder / "picture").write_bytes(head)
    line = bench.line(1, "x")
    line["asks"][0]["images"] = ["picture"]
    bench.write(line)
    assert (await check(settings(bench))).findings == []


async def test_keys_and_equal_ids_are_noted(bench: Bench) -> None:
    line = bench.line(1, "x", note="mine")
    line["asks"][0]["imags"] = ["a.png"]
    bench.write(line, bench.line(1, "y"), bench.line(1, "z"), bench.line("1", "z"))
    report = await check(settings(bench))
    path = bench.folder / "in.jsonl"
    assert report.exit_code == 0
    fate = "results are told apart by their asks and order"
    assert [item.message for item in report.findings] == [
        f"{path}:1: the key asks[].imags is not known here: it is not sent",
        f"{path}:1: the key note is not known here: it comes back unchanged",
        f"{path}:2: line 1 has the same id, and 1 more such; {fate}",
    ]


@pytest.mark.parametrize(
    ("chat", "upload", "words"),
    [
        ("http://a/standard/all-tools", "http://b/standard/uploaded", "different hosts"),
        ("http://a/standard/all-tools", "http://a/concurrent/uploaded", "different editions"),
        ("http://a/x/all-tools", "http://a/y/uploaded", "different folders"),
        ("http://a/standard", "http://a/uploaded", "-u ends in /standard"),
        ("http://a/standard/all-tools", "http://a/standard/upload", "-l ends in /upload"),
    ],
)
async def test_addresses_that_do_not_fit_are_noted(
    bench: Bench, chat: str, upload: str, words: str
) -> None:
    bench.write(bench.line(1, "x"))
    report = await check(
        Settings(
            input=str(bench.folder / "in.jsonl"),
            out=str(bench.folder / "out.jsonl"),
            token="secret-1",
            url=chat,
            upload_url=upload,
            api="gpt4api",
        )
    )
    assert report.exit_code == 0
    assert words in about(report, "note")["addresses"]


async def test_full_disk_is_noted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write(bench.line(1, "x"))
    usage = os.statvfs(bench.folder)
    free = usage.f_bavail * usage.f_frsize
    monkeypatch.setattr("gpt4batch.batch.preflight.ASSUMED_BYTES", free)
    report = await check(settings(bench))
    assert "bytes free" in about(report, "note")["disk"]


async def test_certificates_that_cannot_be_read_are_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(bench.line(1, "x"))
    monkeypatch.setenv("SSL_CERT_FILE", str(bench.folder / "none.pem"))
    given = {"url": "https://127.0.0.1:9/standard/all-tools"}
    report = await check(settings(bench, **given))
    assert "none.pem" in about(report, "refused")["network"]
    with pytest.raises(UsageError, match=r"none\.pem"):
        await bench.run("https://127.0.0.1:9", **given)


# In words


async def test_report_is_told_in_words(bench: Bench) -> None:
    bench.write(bench.line(1, "x"), bench.line(2, "y", "z"))
    result = await bench.call("check", "--mock", "-i", "in.jsonl", "-q", "2", "-g", "1")
    assert result.code == 0
    rows = result.out.splitlines()
    assert rows[:3] == [
        "2 lines: 2 to run",
        "3 chat calls",
        "about 1 min 30 s with -q 2 -g 1, assuming 30 s a call",
    ]
    assert rows[-1] == "ready to run"


async def test_report_is_told_in_chinese(bench: Bench) -> None:
    bench.write(bench.line(1, "x"))
    env = {"LC_ALL": "zh_CN.UTF-8"}
    result = await bench.call("check", "--mock", "-i", "in.jsonl", env=env)
    assert result.out.splitlines()[0] == "共 1 行：1 行待运行"
    assert result.out.splitlines()[-1] == "可以运行"
