from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gpt4batch.errors import CallError, UsageError
from gpt4batch.journal.journal import Journal
from gpt4batch.journal.ledger import KeyIndex, Ledger
from gpt4batch.journal.lock import Lock
from gpt4batch.journal.source import Source
from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import parse_line
from gpt4batch.lines.record import State, render, superseded
from gpt4batch.service.conversation import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Bench

    from gpt4batch.mock.server import MockService

NOT_RUN = {"code": 400, "message": "resource is not ready"}


@contextmanager
def opened(bench: Bench, source: str = "in.jsonl", *, fix: bool = True) -> Iterator[Journal]:
    """Open the output as a run does, and close it."""
    journal = Journal(bench.folder / "out.jsonl")
    journal.lock()
    found = Source(str(bench.folder / source))
    try:
        journal.open(found, fix=fix)
        journal.start(fix=fix)
        yield journal
    finally:
        found.close()
        journal.close()


def record(line: dict[str, Any], *texts: str, **more: Any) -> bytes:
    """Return a record as a run appends it."""
    answers = [rawjson.dumps({"contents": [{"t": text}]}) for text in texts]
    return render(rawjson.dumps(line), answers, more.get("error"), {"started": 1})


def answered(line: Any) -> list[str]:
    return [answer["contents"][0]["t"] for answer in line["answers"] or ()]


# The ledger


@given(st.lists(st.binary(min_size=16, max_size=16), unique=True, max_size=300))
def test_every_key_is_found_and_no_other(keys: list[bytes]) -> None:
    index = KeyIndex()
    half = len(keys) // 2
    for line, key in enumerate(keys[:half]):
        index.add(key, line)
    assert [index.find(key) for key in keys] == [*range(half), *[-1] * (len(keys) - half)]


def test_many_keys_are_found_as_the_table_grows() -> None:
    index = KeyIndex()
    keys = [line.to_bytes(16, "little") for line in range(20_000)]
    for line, key in enumerate(keys):
        index.add(key, line)
    assert [index.find(key) for key in keys] == list(range(20_000))
    assert index.find(b"\xff" * 16) == -1


def test_ledger_keeps_places_beyond_four_gigabytes() -> None:
    ledger = Ledger()
    ledger.grow(1)
    assert ledger.place(0) is None
    ledger.put(0, State.DONE, 1 << 40, 1 << 31, in_input=True)
    assert ledger.place(0) == (1 << 40, 1 << 31, True)
    before = ledger.copy()
    ledger.put(0, State.FAILED, 5, 6, in_input=False)
    assert (before.place(0), ledger.place(0)) == ((1 << 40, 1 << 31, True), (5, 6, False))
    assert (before.count(State.DONE), ledger.count(State.DONE)) == (1, 0)


# The log while a run is on


def test_record_is_in_the_file_the_moment_it_is_appended(bench: Bench) -> None:
    line = bench.line(1, "one")
    bench.write(line)
    with opened(bench, fix=False) as journal:
        journal.log.append(0, State.DONE, record(line, "one"))
        assert (bench.folder / "out.jsonl").read_bytes().endswith(b"\n")
        assert answered(bench.read()[0]) == ["one"]


async def test_output_is_in_input_order_while_lines_are_half_way(bench: Bench) -> None:
    lines = [bench.line(number, "one", "two") for number in range(4)]
    bench.write(*lines)
    with opened(bench, fix=False) as journal:
        journal.log.append(3, State.DONE, record(lines[3], "3a", "3b"))
        journal.log.append(1, State.PARTIAL, record(lines[1], "1a"))
        journal.log.append(
            2, State.FAILED, record(lines[2], "2a", error={"code": 1, "message": "m"})
        )
        journal.log.append(1, State.PARTIAL, record(lines[1], "1a, later"))
        await journal.snapshot(bench.folder / "shot.jsonl")
        journal.finish()
    assert (bench.folder / "shot.jsonl").read_bytes() == (bench.folder / "out.jsonl").read_bytes()
    found = bench.read()
    assert [line["id"] for line in found] == [0, 1, 2, 3]
    assert [answered(line) for line in found] == [[], ["1a, later"], ["2a"], ["3a", "3b"]]
    assert [line.get("iErr") for line in found] == [
        NOT_RUN,
        NOT_RUN,
        {"code": 1, "message": "m"},
        None,
    ]


def test_equal_records_count_once_each_in_order(bench: Bench) -> None:
    line = bench.line(1, "same")
    bench.write(line, line, line)
    with opened(bench, fix=False) as journal:
        journal.log.append(1, State.DONE, record(line, "first to be done"))
        journal.log.append(0, State.DONE, record(line, "second"))
    with opened(bench) as journal:
        assert [journal.state(index) for index in range(3)] == [State.DONE, State.DONE, State.NEW]
        journal.finish()
    assert [answered(line) for line in bench.read()] == [["first to be done"], ["second"], []]


# After a crash


def three(bench: Bench) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Write an input of three lines and return their records, in bytes of every UTF-8 length."""
    lines = [bench.line(f"é{n}", "你好 😀 \u2028 ñ", "再") for n in range(3)]
    bench.write(*lines)
    return lines, [record(line, f"答{n} 😀", "é") for n, line in enumerate(lines)]


def test_torn_tail_at_every_byte_drops_the_torn_record_and_nothing_else(bench: Bench) -> None:
    _, records = three(bench)
    out = bench.folder / "out.jsonl"
    ends = [0]
    for text in records:
        ends.append(ends[-1] + len(text) + 4)
    whole = b"".join(b"\t \t" + text + b"\n" for text in records)
    logging.getLogger("gpt4batch").setLevel(logging.ERROR)
    try:
        for size in range(len(whole) + 1):
            out.write_bytes(whole[:size])
            with opened(bench) as journal:
                kept = sum(size >= end - 1 for end in ends[1:])
                states = [State.DONE] * kept + [State.NEW] * (3 - kept)
                assert [journal.state(index) for index in range(3)] == states, size
                for index in range(kept, 3):
                    journal.log.append(index, State.DONE, records[index])
                journal.finish()
            assert out.read_bytes() == b"".join(text + b"\n" for text in records), size
    finally:
        logging.getLogger("gpt4batch").setLevel(logging.NOTSET)


@pytest.mark.parametrize("way", ["output", "input", "both"])
def test_torn_log_is_read_in_every_shape_of_fix(bench: Bench, way: str) -> None:
    lines, records = three(bench)
    torn = b"\t \t" + records[0] + b"\n\t \t" + records[2] + b"\n\t \t" + records[1][:-9]
    if way == "output":
        (bench.folder / "out.jsonl").write_bytes(torn)
        source = "in.jsonl"
    else:
        # The log of a run that was killed, on which the run goes on: lines it never reached are
        # not in it, so a whole output comes first.
        start = b"".join(rawjson.dumps(line) + b"\n" for line in lines)
        name = "log.jsonl" if way == "input" else "out.jsonl"
        (bench.folder / name).write_bytes(start + torn)
        source = name
    with opened(bench, source) as journal:
        assert len(journal.ledger) == 3
        states = [journal.state(index) for index in range(3)]
        assert states == [State.DONE, State.NEW, State.DONE]
        journal.finish()
    assert [answered(line) for line in bench.read()] == [["答0 😀", "é"], [], ["答2 😀", "é"]]


def test_whole_last_line_without_newline_is_kept(bench: Bench) -> None:
    _, records = three(bench)
    (bench.folder / "out.jsonl").write_bytes(records[0])
    with opened(bench) as journal:
        assert journal.state(0) == State.DONE
        journal.log.append(1, State.DONE, records[1])
        journal.finish()
    assert [len(answered(line)) for line in bench.read()] == [2, 2, 0]


def test_empty_output_is_no_obstacle(bench: Bench) -> None:
    three(bench)
    for content in (b"", b"\n", b"\n\n \n"):
        (bench.folder / "out.jsonl").write_bytes(content)
        with opened(bench) as journal:
            journal.finish()
        assert [line["iErr"] for line in bench.read()] == [NOT_RUN] * 3


def test_half_way_record_is_gone_on_from(bench: Bench) -> None:
    lines, _ = three(bench)
    (bench.folder / "out.jsonl").write_bytes(b"\t \t" + record(lines[1], "first") + b"\n")
    with opened(bench) as journal:
        assert journal.state(1) == State.PARTIAL
        line = journal.line(1)
        assert (line.answered, line.done) == (1, False)
        assert [rawjson.loads(text)["contents"][0]["t"] for text in line.answers()] == ["first"]


def test_later_record_of_a_line_counts(bench: Bench) -> None:
    lines, _ = three(bench)
    failed = record(lines[0], error={"code": 501, "message": "x"})
    log = [failed, record(lines[0], "one"), record(lines[0], "one", "two")]
    (bench.folder / "out.jsonl").write_bytes(b"".join(b"\t \t" + text + b"\n" for text in log))
    with opened(bench) as journal:
        assert journal.state(0) == State.DONE
        journal.finish()
    assert answered(bench.read()[0]) == ["one", "two"]


def test_failure_after_an_answer_does_not_undo_what_is_done(bench: Bench) -> None:
    lines, records = three(bench)
    failed = record(lines[0], error={"code": 501, "message": "x"})
    (bench.folder / "out.jsonl").write_bytes(b"\t \t" + records[0] + b"\n\t \t" + failed + b"\n")
    with opened(bench) as journal:
        assert journal.state(0) == State.DONE


# An input that changed


def finished(bench: Bench, *contents: str) -> list[dict[str, Any]]:
    """Write an input and its whole output."""
    lines = [bench.line(content, content) for content in contents]
    bench.write(*lines)
    with opened(bench, fix=False) as journal:
        for index, line in enumerate(lines):
            journal.log.append(index, State.DONE, record(line, f"answer to {line['id']}"))
        journal.finish()
    return lines


def test_moved_lines_keep_their_answers(bench: Bench) -> None:
    lines = finished(bench, "a", "b", "c", "d")
    bench.write(*lines[::-1])
    with opened(bench) as journal:
        assert journal.ledger.count(State.DONE) == 4
        journal.finish()
    assert [answered(line) for line in bench.read()] == [[f"answer to {x}"] for x in "dcba"]


def test_edited_prompt_runs_again_and_its_old_answer_is_kept_aside(bench: Bench) -> None:
    lines = finished(bench, "a", "b")
    lines[1]["asks"][0]["content"] = "b, better"
    bench.write(*lines)
    with opened(bench) as journal:
        assert [journal.state(0), journal.state(1)] == [State.DONE, State.NEW]
        journal.finish()
    found = bench.read()
    assert [line["asks"][0]["content"] for line in found] == ["a", "b, better"]
    assert found[1]["iErr"] == NOT_RUN
    [aside] = bench.names("out.2*.jsonl")
    assert [answered(line) for line in bench.read(aside)] == [["answer to b"]]


def test_removed_lines_leave_the_output_but_their_answers_are_kept_aside(bench: Bench) -> None:
    lines = finished(bench, "a", "b", "c")
    bench.write(lines[1])
    with opened(bench) as journal:
        journal.finish()
    assert [line["id"] for line in bench.read()] == ["b"]
    [aside] = bench.names("out.2*.jsonl")
    assert [line["id"] for line in bench.read(aside)] == ["a", "c"]


def test_added_lines_are_new(bench: Bench) -> None:
    lines = finished(bench, "a", "b")
    bench.write(bench.line("x", "x"), lines[0], bench.line("y", "y"), lines[1])
    with opened(bench) as journal:
        states = [journal.state(index) for index in range(4)]
    assert states == [State.NEW, State.DONE, State.NEW, State.DONE]


def test_line_with_another_extra_is_the_same_line_and_shows_the_new_one(bench: Bench) -> None:
    lines = finished(bench, "a")
    bench.write(lines[0] | {"extra": "new"})
    with opened(bench) as journal:
        assert journal.state(0) == State.DONE


@given(data=st.data())
def test_equal_lines_get_every_answer_once_whatever_was_done(data: Any) -> None:
    """Lines of few kinds, some done in any order, shuffled: as many are done as were answered."""
    import tempfile
    from pathlib import Path as Folder

    kinds = data.draw(st.lists(st.sampled_from("ab"), min_size=1, max_size=6))
    done = data.draw(st.lists(st.sampled_from(range(len(kinds))), unique=True))
    order = data.draw(st.permutations(range(len(kinds))))
    with tempfile.TemporaryDirectory() as folder:
        bench = _bench(Folder(folder))
        lines = [bench.line(kind, kind) for kind in kinds]
        bench.write(*lines)
        with opened(bench, fix=False) as journal:
            for index in done:
                journal.log.append(index, State.DONE, record(lines[index], f"answer {index}"))
        bench.write(*[lines[index] for index in order])
        with opened(bench) as journal:
            assert journal.ledger.count(State.DONE) == len(done)
            journal.finish()
        found = sorted(text for line in bench.read() for text in answered(line))
        assert found == sorted(f"answer {index}" for index in done)
        assert [line["id"] for line in bench.read()] == [kinds[index] for index in order]
        assert not list(Folder(folder).glob("out.2*"))


@given(st.data())
def test_answers_of_equal_lines_outlive_runs_that_end_or_are_killed(data: Any) -> None:
    """Runs that bring some lines further, one after the other, on an input in any order."""
    import tempfile
    from pathlib import Path as Folder

    kinds = data.draw(st.lists(st.sampled_from("ab"), min_size=2, max_size=4))
    given: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = _bench(Folder(folder))
        for run in range(data.draw(st.integers(1, 3))):
            kinds = data.draw(st.permutations(kinds))
            bench.write(*[bench.line(kind, "1", "2", "3") for kind in kinds])
            with opened(bench, fix=run > 0) as journal:
                goes: dict[int, Outcome] = {}
                for index in data.draw(st.lists(st.sampled_from(range(len(kinds))), max_size=6)):
                    if index not in goes:
                        line = journal.line(index)
                        before = superseded(line.meta)
                        goes[index] = Outcome(line, line.answers(), superseded=before)
                    if not (journal.state(index) is State.DONE or goes[index].error):
                        _bring_further(journal, index, goes[index], given, data.draw)
                if data.draw(st.booleans()):
                    journal.finish()
        with opened(bench) as journal:
            journal.finish()
        found = [text for line in bench.read() for text in answered(line) + _superseded(line)]
        assert sorted(found) == sorted(given)
        assert not list(Folder(folder).glob("out.2*"))


def _superseded(line: Any) -> list[str]:
    return [answer["contents"][0]["t"] for answer in line.get("meta", {}).get("superseded", ())]


def _bring_further(
    journal: Journal, index: int, outcome: Outcome, given: list[str], draw: Callable[[Any], Any]
) -> None:
    """Append to the log what one more step of a line may come to."""
    forgets = outcome.answers and draw(st.booleans())
    if forgets:
        outcome.forget()
    if forgets or draw(st.booleans()):
        given.append(f"answer {len(given)}")
        outcome.answers.append(rawjson.dumps({"contents": [{"t": given[-1]}]}))
    state = State.DONE if outcome.done else draw(st.sampled_from([State.PARTIAL, State.FAILED]))
    if state is State.FAILED:
        outcome.error = CallError("m", stage="chat")
    standing = outcome.standing(finished=state is not State.PARTIAL)
    journal.log.advance(index, state, standing)


class _Folder:
    """The few things of a bench that a property test needs for each of its examples."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def line(self, line_id: str, *contents: str) -> dict[str, Any]:
        asks = [{"id": f"a-{place}", "content": text} for place, text in enumerate(contents, 1)]
        return {"id": line_id, "asks": asks}

    def write(self, *lines: Any) -> None:
        text = b"".join(rawjson.dumps(line) + b"\n" for line in lines)
        (self.folder / "in.jsonl").write_bytes(text)

    def read(self) -> list[Any]:
        return [
            rawjson.loads(x) for x in (self.folder / "out.jsonl").read_bytes().split(b"\n")[:-1]
        ]


def _bench(folder: Path) -> Any:
    return _Folder(folder)


# Files


def test_output_is_refused_to_a_second_run(bench: Bench) -> None:
    bench.write(bench.line(1, "one"))
    with opened(bench), pytest.raises(UsageError, match="another run is writing"):
        Journal(bench.folder / "out.jsonl").lock()
    Journal(bench.folder / "out.jsonl").lock()


def test_mode_of_an_output_is_kept(bench: Bench) -> None:
    lines = finished(bench, "a")
    (bench.folder / "out.jsonl").chmod(0o640)
    with opened(bench) as journal:
        journal.log.append(0, State.DONE, record(lines[0], "again"))
        journal.finish()
    assert (bench.folder / "out.jsonl").stat().st_mode & 0o777 == 0o640


def test_nothing_but_the_output_is_left(bench: Bench) -> None:
    finished(bench, "a")
    assert bench.names() == ["in.jsonl", "out.jsonl"]


def test_lock_of_a_run_that_ended_while_another_waited_for_it_locks_nothing(bench: Bench) -> None:
    out = bench.folder / "out.jsonl"
    first, second, third = Lock(out), Lock(out), Lock(out)
    first.take()
    with pytest.raises(UsageError, match="another run is writing"):
        second.take()  # has opened the file that goes with the first run
    first.give_back()
    third.take()
    with pytest.raises(UsageError, match="another run is writing"):
        second.take()
    assert "out.jsonl.lock" in bench.names()
    third.give_back()
    second.take()
    second.give_back()
    assert "out.jsonl.lock" not in bench.names()


async def test_answers_reach_the_disk_within_a_second_or_at_once(
    bench: Bench, service: MockService
) -> None:
    for fsync in ("always", "interval", "never"):
        bench.write(bench.line(1, "one"))
        assert (await bench.run(service.origin, fsync=fsync)).done == 1


async def test_output_in_a_folder_that_is_not_there_is_made(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "one"))
    assert (await bench.run(service.origin, out="a/b/out.jsonl")).done == 1
    assert len(bench.read("a/b/out.jsonl")) == 1


async def test_fix_in_place_on_a_log_that_holds_lines_not_reached(
    bench: Bench, service: MockService
) -> None:
    """An ordered output on which a run was killed: input and log in one file."""
    lines = [bench.line(number, f"ask {number}") for number in range(4)]
    bench.write(*lines)
    await bench.run(service.origin, limit=1)
    ordered = (bench.folder / "out.jsonl").read_bytes()
    log = b"\t \t" + record(lines[2], "two") + b"\n\t \t" + record(lines[3], "three")[:40]
    (bench.folder / "out.jsonl").write_bytes(ordered + log)
    summary = await bench.run(service.origin, fix=True, input="out.jsonl")
    assert (summary.lines, summary.done, summary.done_before, summary.chats) == (4, 4, 2, 2)
    assert [line["id"] for line in bench.read()] == [0, 1, 2, 3]
    assert answered(bench.read()[2]) == ["two"]
    assert parse_line((bench.folder / "out.jsonl").read_bytes().split(b"\n")[0]).done


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("moved", [False, True])
async def test_output_that_begins_with_a_mark_of_its_encoding_is_not_paid_for_again(
    bench: Bench, service: MockService, cut: int, moved: bool
) -> None:
    lines = [bench.line(number, f"ask {number}") for number in range(3)]
    bench.write(*lines)
    await bench.run(service.origin)
    before = (bench.folder / "out.jsonl").read_bytes()
    (bench.folder / "out.jsonl").write_bytes(BOM + before[: len(before) - cut])
    bench.write(*[bench.line(9, "new")] * moved, *lines)
    summary = await bench.run(service.origin, fix=True)
    assert (summary.done_before, summary.chats) == (3, int(moved))
    after = (bench.folder / "out.jsonl").read_bytes()
    assert after.removeprefix(BOM).removesuffix(b"\n").endswith(before[:-1])


def test_only_line_of_an_output_behind_a_mark_of_its_encoding_is_not_torn(bench: Bench) -> None:
    line = bench.line(1, "one")
    bench.write(line)
    (bench.folder / "out.jsonl").write_bytes(BOM + record(line, "answer"))
    with opened(bench) as journal:
        assert journal.state(0) == State.DONE
        journal.finish()
    assert answered(rawjson.loads((bench.folder / "out.jsonl").read_bytes().removeprefix(BOM)))


@pytest.mark.parametrize("out", ["out.jsonl", "other.jsonl"])
async def test_log_of_a_killed_run_as_the_only_input_says_that_lines_are_missing(
    bench: Bench, service: MockService, caplog: pytest.LogCaptureFixture, out: str
) -> None:
    lines = [bench.line(number, f"ask {number}") for number in range(4)]
    bench.write(*lines)
    killed = bench.folder / "out.jsonl"
    killed.write_bytes(b"\t \t" + record(lines[2], "two") + b"\n")
    words = f"{killed} is the log of a run that was killed and holds only the lines"
    whole = await bench.run(service.origin, fix=True, out="whole.jsonl")
    assert (whole.done, words in caplog.text) == (4, False)
    summary = await bench.run(service.origin, fix=True, input="out.jsonl", out=out)
    assert (summary.lines, summary.chats) == (1, 0)
    assert words in caplog.text
    assert f"-i INPUT -o {killed} -f" in caplog.text


async def test_log_that_holds_every_line_is_no_cause_for_a_warning(
    bench: Bench, service: MockService, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [bench.line(number, f"ask {number}") for number in range(3)]
    texts = [rawjson.dumps(line) for line in lines]
    bench.write(*texts, b"\t \t" + record(lines[1], "one"), name="out.jsonl")
    summary = await bench.run(service.origin, fix=True, input="out.jsonl")
    assert (summary.lines, summary.done_before, summary.done) == (3, 1, 3)
    assert "was killed" not in caplog.text


# Another program at the output


@pytest.mark.parametrize("foreign", [b'{"id":"alien"}\n', b"no newline", b"two\nlines\n"])
def test_what_another_program_writes_into_the_log_moves_no_record(
    bench: Bench, foreign: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    lines, records = three(bench)
    out = bench.folder / "out.jsonl"

    def write() -> None:
        with out.open("ab") as file:
            file.write(foreign)

    with opened(bench, fix=False) as journal:
        write()
        journal.log.append(2, State.DONE, records[2])
        write()
        journal.log.append(0, State.PARTIAL, record(lines[0], "half"))
        journal.log.append(0, State.DONE, records[0])
        assert journal.line(0).done
        write()
        journal.finish()
    assert [answered(line) for line in bench.read()] == [["答0 😀", "é"], [], ["答2 😀", "é"]]
    [aside] = bench.names("out.2*.jsonl")
    assert (bench.folder / aside).read_bytes() == (foreign.rstrip() + b"\n") * 3
    assert f"another program wrote to it during the run; what it wrote is kept in {out.parent}" in (
        caplog.text
    )


async def test_foreign_line_in_the_log_costs_no_call(bench: Bench, scripted: Any) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(4)])
    alien = bench.line("alien", "alien", answers=None)

    async def answer(request: web.BaseRequest) -> web.Response:
        with (bench.folder / "out.jsonl").open("ab") as file:
            file.write(rawjson.dumps(alien) + b"\n")
        return web.json_response({"contents": [{"t": "x"}]})

    async with scripted(answer) as server:
        summary = await bench.run(server.origin)
    assert (summary.exit_code, summary.done) == (0, 4)
    assert [line["id"] for line in bench.read()] == [0, 1, 2, 3]
    [aside] = bench.names("out.2*.jsonl")
    assert bench.read(aside) == [alien] * 4


async def test_output_that_is_removed_while_the_run_is_on_is_said_to_be_on_standard_error(
    bench: Bench, scripted: Any
) -> None:
    bench.write(*[bench.line(number, f"ask {number}") for number in range(4)])
    out = bench.folder / "out.jsonl"

    async def answer(request: web.BaseRequest) -> web.Response:
        if b"ask 1" in await request.read():
            out.unlink()
        return web.json_response({"contents": [{"t": "x"}]})

    async with scripted(answer) as server:
        result = await bench.call(*bench.batchsvc(server.origin, "-g", "1"))
        assert result.code == 4
        assert "the answers so far are in it" not in result.err
        words = "the answers of this run were written to standard error; put them into "
        assert f"{words}{out} before" in result.err
        shown = [text for text in result.err.splitlines() if text.startswith('{"id"')]
        assert [rawjson.loads(text.encode())["id"] for text in shown] == [0, 1]
        out.write_text("".join(text + "\n" for text in shown))
        again = await bench.run(server.origin, fix=True)
    assert (again.done_before, again.done) == (2, 4)
