"""A queue on disk: nothing lost, nothing twice but what was not acknowledged."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4batch.errors import UsageError
from gpt4batch.nsq.spool import COMPACT, MIB, Spool

if TYPE_CHECKING:
    from pathlib import Path


def drain(spool: Spool) -> list[bytes]:
    found = []
    while (body := spool.next()) is not None:
        found.append(body)
    return found


def reopened(path: Path) -> list[bytes]:
    spool = Spool(path)
    found = drain(spool)
    spool.close()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl.nsq-spool"


def test_messages_come_out_in_order(path: Path) -> None:
    spool = Spool(path)
    bodies = [b"x" * size for size in (1, 70_000, 3)]
    assert all(spool.append(body) for body in bodies)
    assert drain(spool) == bodies
    assert spool.next() is None
    spool.append(b"later")
    assert drain(spool) == [b"later"]
    spool.close()


def test_unacknowledged_messages_are_there_for_the_next_run(path: Path) -> None:
    spool = Spool(path)
    for body in (b"1", b"2", b"3"):
        spool.append(body)
    drain(spool)
    spool.acknowledge(1)
    spool.close()
    assert reopened(path) == [b"2", b"3"]


def test_rewind_reads_again_what_was_not_acknowledged(path: Path) -> None:
    spool = Spool(path)
    for body in (b"1", b"2"):
        spool.append(body)
    drain(spool)
    spool.acknowledge(1)
    spool.rewind()
    assert drain(spool) == [b"2"]
    spool.close()


def test_empty_spool_leaves_no_file(path: Path) -> None:
    spool = Spool(path)
    spool.append(b"1")
    drain(spool)
    spool.acknowledge(1)
    spool.close()
    assert not path.exists()


@pytest.mark.parametrize("kept", range(3 * 13))
def test_file_cut_anywhere_keeps_every_whole_message(path: Path, kept: int) -> None:
    spool = Spool(path)
    for body in (b"first", b"other", b"third"):
        spool.append(body)
    spool.close()
    os.truncate(path, 16 + kept)
    assert reopened(path) == [b"first", b"other", b"third"][: kept // 13]


def test_damaged_message_is_not_handed_out(path: Path) -> None:
    spool = Spool(path)
    spool.append(b"good")
    spool.append(b"evil")
    spool.close()
    path.write_bytes(path.read_bytes()[:-4] + b"live")
    spool = Spool(path)
    assert (drain(spool), spool.cut) == ([b"good"], 12)
    spool.close()


def test_what_waits_for_a_second_look_is_brought_to_the_disk(path: Path) -> None:
    spool = Spool(path)
    spool.append(b"1")
    assert not spool.is_late()  # it may be on its way
    spool.append(b"2")
    assert spool.is_late()
    spool.sync()
    assert not spool.is_late()
    drain(spool)
    spool.append(b"3")
    spool.acknowledge(2)
    assert not spool.is_late()
    assert spool.is_late()
    spool.close()


def test_full_spool_refuses_and_takes_again_after_acknowledgement(path: Path) -> None:
    spool = Spool(path, limit=40)
    assert spool.append(b"a" * 30)
    assert not spool.append(b"b" * 30)
    drain(spool)
    spool.acknowledge(1)
    assert spool.append(b"c" * 30)
    assert drain(spool) == [b"c" * 30]
    spool.close()


def test_message_that_is_held_goes_after_those_in_the_file(path: Path) -> None:
    spool = Spool(path, limit=40)
    assert spool.append(b"a" * 30)
    spool.hold(b"b")
    assert drain(spool) == [b"a" * 30, b"b"]
    spool.rewind()
    assert (spool.waiting, drain(spool)) == (2, [b"a" * 30, b"b"])
    spool.acknowledge(1)
    assert spool.append(b"c" * 30)
    spool.rewind()
    assert drain(spool) == [b"c" * 30, b"b"]
    spool.acknowledge(2)
    assert (spool.waiting, list(spool.held)) == (0, [])
    spool.close()
    assert not path.exists()


def test_full_disk_refuses_and_keeps_what_is_there(tmp_path: Path) -> None:
    """A limit on the file's size stands for the disk: the write stops in the middle."""
    code = """
import resource, signal, sys
from pathlib import Path
from gpt4batch.nsq.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
spool = Spool(Path(sys.argv[1]))
print(spool.append(b"a" * 600), spool.append(b"b" * 600), spool.append(b"c" * 100), spool.waiting)
spool.close()
"""
    path = tmp_path / "spool"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False", "True", "2"]
    assert reopened(path) == [b"a" * 600, b"c" * 100]


def test_what_was_sent_makes_room_on_a_full_disk(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from gpt4batch.nsq.spool import Spool
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
spool = Spool(Path(sys.argv[1]))
print(spool.append(b"a" * 600), spool.next() is not None)
spool.acknowledge(1)
print(spool.append(b"b" * 600), spool.next())
"""
    path = tmp_path / "spool"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True", "True", repr(b"b" * 600)]


def test_long_queue_that_never_runs_dry_stays_small_on_disk(path: Path) -> None:
    spool = Spool(path)
    body = b"x" * (MIB // 2)
    spool.append(body)
    for number in range(100):
        spool.append(body + b"%d" % number)
        assert spool.next() is not None
        spool.acknowledge(1)
    assert path.stat().st_size < COMPACT + 2 * MIB
    assert drain(spool) == [body + b"99"]
    spool.close()
    assert reopened(path) == [body + b"99"]


@pytest.mark.parametrize("text", ["?", '{"id": 1, "asks": []}\n'])
def test_other_file_in_the_way_is_refused_untouched(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(UsageError, match="in the way"):
        Spool(path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    "begun", [b"", b"\0" * 3, b"\0" * 16, b"G4B", b"G4B" + b"\0" * 13, b"G4BSPOOL"]
)
def test_file_whose_making_was_cut_short_is_an_empty_queue(path: Path, begun: bytes) -> None:
    path.write_bytes(begun)
    spool = Spool(path)
    assert (spool.waiting, drain(spool)) == (0, [])
    assert spool.append(b"1")
    spool.acknowledge(0)
    assert drain(spool) == [b"1"]
    spool.close()
    assert reopened(path) == [b"1"]


def test_spool_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        Spool(tmp_path / "no" / "spool")


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=50), st.sampled_from(["ack", "kill"]))))
def test_any_sequence_gives_each_message_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[bytes | str]
) -> None:
    path = tmp_path_factory.mktemp("spool") / "spool"
    spool = Spool(path)
    wanted: list[bytes] = []
    taken: list[bytes] = []
    for step in steps:
        if isinstance(step, bytes):
            wanted.append(step)
            spool.append(step)
        elif step == "ack":
            body = spool.next()
            if body is not None:
                taken.append(body)
                spool.acknowledge(1)
        else:
            spool.next()
            spool.close()
            spool = Spool(path)
    taken += drain(spool)
    spool.close()
    assert taken == wanted
