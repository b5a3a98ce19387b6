"""What a user sees on a terminal while a batch runs."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.parametrize("columns", [60, 92])
def test_running_batch_shows_its_counts_under_the_bar(tmp_path: Path, columns: int) -> None:
    batch = tmp_path / "in.jsonl"
    batch.write_text("".join(f'{{"id":{n},"asks":[{{"content":"hi"}}]}}\n' for n in range(8)))
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    command = [sys.executable, "-m", "gpt4batch", "batchsvc", "--mock", "-q=8", "-i", str(batch)]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env = {**kept, "TERM": "xterm", "LC_ALL": "C.UTF-8", "GPT4BATCH_LATENCY": "0.1"}
    with subprocess.Popen(command, stdin=slave, stderr=slave, env=env, cwd=tmp_path) as process:
        os.close(slave)
        seen = b"".join(iter(lambda: _read(master), b""))
    os.close(master)
    assert process.returncode == 0
    assert re.search(rb"[1-7]/8 done.*/60 in flight", CONTROL.sub(b"", seen))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other side has gone
        return b""
