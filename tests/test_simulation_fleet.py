"""What histories of a fleet found, each a history that once broke a promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt4batch.lines import rawjson

ROOT = Path(__file__).parent.parent
FOUND = sorted((Path(__file__).parent / "data" / "fleet").glob("*.json"))
KEPT = "every promise was kept"


def said(*words: str) -> list[str]:
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "simulation", "--fleet", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=env)
    assert done.stdout, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("path", FOUND, ids=[path.stem for path in FOUND])
def test_history_that_once_broke_a_promise_keeps_it(path: Path) -> None:
    assert said("--plan", path.read_text())[0] == KEPT


def test_plan_of_a_history_is_read_as_it_was_written() -> None:
    text = FOUND[0].read_text()
    script = (
        "import sys; from simulation.fleet_plan import read, written; "
        "print(written(read(sys.argv[1])))"
    )
    words = [sys.executable, "-c", script, text]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    found, wanted = rawjson.loads(done.stdout.encode()), rawjson.loads(text.encode())
    wanted["weather"] = found["weather"] | wanted["weather"]  # an older plan names fewer kinds
    assert found == wanted


@pytest.mark.parametrize("name", ["a call that is not noted", "a permit without a turn"])
def test_fault_that_is_put_into_a_fleet_is_found(name: str) -> None:
    words = [sys.executable, "-m", "simulation.mutations", "--most", "40", f"fleet: {name}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
