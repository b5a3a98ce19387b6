"""Nothing answered is lost and nothing is paid twice, wherever a run breaks off."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp import web
from puppets import ask, read, reply_of, serving, settings, write

import gpt4batch
from gpt4batch.errors import OutputError
from gpt4batch.journal.journal import Journal
from gpt4batch.journal.source import Source
from gpt4batch.lines import rawjson
from gpt4batch.lines.record import State, render
from gpt4batch.mock.server import MockService
from gpt4batch.mock.settings import MockSettings

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest


def opened(folder: Path, name: str) -> tuple[Journal, Source]:
    journal = Journal(folder / "out.jsonl")
    journal.lock()
    source = Source(str(folder / name))
    journal.open(source, fix=True)
    journal.start(fix=True)
    return journal, source


@pytest.mark.parametrize("name", ["in.jsonl", "out.jsonl"])
@pytest.mark.parametrize("ended", [b"\n", b""])
@pytest.mark.parametrize("before", [0, 1])
def test_a_log_cut_at_any_byte_of_its_last_record_loses_only_a_torn_one(
    tmp_path: Path, name: str, ended: bytes, before: int
) -> None:
    lines = [ask(f"语 {number}", id=number) for number in range(3)]
    texts = [rawjson.dumps(line) for line in lines]
    (tmp_path / name).write_bytes(b"\n".join(texts) + ended)
    journal, source = opened(tmp_path, name)
    answer = rawjson.dumps(reply_of(text="答 😀"))
    start = 0
    for index in range(before + 1):
        start = (tmp_path / "out.jsonl").stat().st_size
        journal.log.append(index, State.DONE, render(source.raw(index), [answer]))
    journal.close()
    source.close()
    whole = (tmp_path / "out.jsonl").read_bytes()
    complete = start + len(whole[start:].rstrip())
    for cut in range(start, len(whole) + 1):
        (tmp_path / "out.jsonl").write_bytes(whole[:cut])
        journal, source = opened(tmp_path, name)
        done = [journal.state(index) is State.DONE for index in range(len(source))]
        journal.finish()
        journal.close()
        source.close()
        assert done == [place < before + (cut >= complete) for place in range(3)], (cut, complete)
        assert [line["asks"] for line in read(tmp_path / "out.jsonl")] == [
            line["asks"] for line in lines
        ]


async def test_answers_survive_a_service_that_knows_nothing_any_more(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", {"asks": [{"content": "one"}, {"content": "two"}]})
    first = 0

    async def forgetful(request: BaseRequest) -> web.StreamResponse:
        nonlocal first
        body = rawjson.loads(await request.read())
        if body["message"] == "one" and not first:
            first += 1
            return web.Response(body=rawjson.dumps(reply_of()))
        return web.Response(status=404, text="not found")

    async with serving(forgetful) as origin:
        for _ in range(2):
            await gpt4batch.run(settings(tmp_path, origin, fix=True))
            (line,) = read(tmp_path / "out.jsonl")
            assert line["answers"] == [reply_of()]
            assert line["iErr"]["code"] == 404


async def test_an_answer_in_flight_when_the_token_is_refused_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ask("slow"), ask("refused"))
    refused = anyio.Event()

    async def answer(request: BaseRequest) -> web.StreamResponse:
        body = rawjson.loads(await request.read())
        if body["message"] == "refused":
            refused.set()
            return web.Response(status=401)
        await refused.wait()
        await anyio.sleep(0.5)
        return web.Response(body=rawjson.dumps(reply_of()))

    async with serving(answer) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin, grace=0.1))
    assert summary.exit_code == 3
    assert read(tmp_path / "out.jsonl")[0]["answers"]


async def test_a_renewed_token_that_cannot_be_stored_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.jsonl", *[ask(str(number)) for number in range(6)])
    async with MockService(MockSettings(token="a-token-of-the-test", token_calls=3)) as service:
        monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
        monkeypatch.setenv("GPT4BATCH_EMAIL", service.settings.email)
        monkeypatch.setenv("GPT4BATCH_PASSWORD", service.settings.password)
        monkeypatch.setenv("GPT4BATCH_TOKEN_URL", f"{service.origin}/console/access_token")
        summary = await gpt4batch.run(settings(tmp_path, service.origin, goroutine=1))
    assert summary.exit_code == 0
    assert summary.done == 6


async def test_only_the_missing_one_of_three_files_is_fetched_after_a_stop(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ask())
    asked: list[str] = []
    broken = True

    async def answer(request: BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            links = [f"http://{request.headers['Host']}/file{n}" for n in range(3)]
            return web.Response(body=rawjson.dumps(reply_of(downloads=links)))
        asked.append(request.raw_path)
        if broken and request.raw_path == "/file2":
            downloads = tmp_path / "downloads"
            downloads.rename(tmp_path / "gone")  # the run cannot write its file and stops
        return web.Response(body=b"content")

    async with serving(answer) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin))
        assert summary.exit_code == 4
        broken = False
        (tmp_path / "gone").rename(tmp_path / "downloads")
        asked.clear()
        again = await gpt4batch.run(settings(tmp_path, origin, fix=True))
    assert (again.exit_code, again.chats, asked) == (0, 0, ["/file2"])
    assert len(list((tmp_path / "downloads").iterdir())) == 3


async def test_files_of_others_in_the_download_folder_are_left_alone(tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    theirs = ["film.part", "GPT4API_notes.part", "GPT4API_1_2_3.zip.part"]
    for name in theirs:
        (downloads / name).write_text("half of something")
    os.mkfifo(downloads / "pipe.part")
    (downloads / "GPT4API_q_a_1700000000000000000_file.part").write_text("ours")
    write(tmp_path / "in.jsonl", ask())
    async with MockService(MockSettings(token="")) as service:
        await gpt4batch.run(settings(tmp_path, service.origin, download_prefix=""))
        await gpt4batch.run(settings(tmp_path, service.origin))
    assert sorted(path.name for path in downloads.iterdir()) == sorted([*theirs, "pipe.part"])


async def test_what_a_killed_run_left_of_an_ordered_output_is_cleared_away(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ask())
    journal, source = opened(tmp_path, "in.jsonl")
    journal.close()
    source.close()
    for name in (".out.jsonl.tmp", ".out.jsonl.snapshot.tmp"):
        (tmp_path / name).write_bytes(b"half of a line")
    async with MockService(MockSettings(token="")) as service:
        await gpt4batch.run(settings(tmp_path, service.origin, fix=True))
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


async def test_a_snapshot_is_of_one_moment_and_gone_at_the_end(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", *[ask(f"{number} " * 500) for number in range(600)])
    async with MockService(MockSettings(token="", asset_rate=0.0)) as service:
        given = settings(tmp_path, service.origin, rdb_interval=0.0001, goroutine=30)
        summary = await gpt4batch.run(given)
        assert service.stats.answered_twice == 0
    assert summary.done == 600
    assert not [path.name for path in tmp_path.iterdir() if re.match(r"\.\d{8}", path.name)]
    for number, line in enumerate(read(tmp_path / "out.jsonl")):
        assert line["asks"][0]["content"] == f"{number} " * 500
        assert (
            line["asks"][0]["content"]
            in line["answers"][0]["contents"][0]["message"]["content"]["parts"][0]
        )


def test_what_was_not_written_survives_a_folder_that_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    write(folder / "in.jsonl", ask("one"), ask("two"))
    journal, source = opened(folder, "in.jsonl")
    answer = rawjson.dumps(reply_of())
    journal.log.append(0, State.DONE, render(source.raw(0), [answer]))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(OutputError):
        journal.log.append(1, State.DONE, render(source.raw(1), [answer]))
    with pytest.raises(OutputError):
        journal.finish()
    kept: list[Any] = [rawjson.loads(text) for text in journal.log.unsaved()]
    journal.close()
    source.close()
    assert [line["asks"][0]["content"] for line in kept] == ["one", "two"]


async def test_a_conversation_that_went_on_without_us_is_begun_anew(tmp_path: Path) -> None:
    line = {"asks": [{"content": "one"}, {"content": "two"}], "answers": [reply_of()]}
    write(tmp_path / "in.jsonl", line)

    async def ahead(request: BaseRequest) -> web.StreamResponse:
        body = rawjson.loads(await request.read())
        if body.get("conversation_id") == "c":
            said = "parent_message_id is not the last message"
            return web.json_response({"error": said}, status=409)
        return web.json_response(reply_of(conversation_id="fresh"))

    async with serving(ahead) as origin:
        summary = await gpt4batch.run(settings(tmp_path, origin, fix=True))
    assert summary.done == 1
    (found,) = read(tmp_path / "out.jsonl")
    assert [answer["conversation_id"] for answer in found["answers"]] == ["fresh", "fresh"]
    assert found["meta"]["superseded"] == [reply_of()]
