from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gpt4batch

PACKAGE = Path(gpt4batch.__file__).parent


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_every_public_name_is_there_and_no_other() -> None:
    for name in gpt4batch.__all__:
        assert getattr(gpt4batch, name) is getattr(gpt4batch, name)
    assert not hasattr(gpt4batch, "no_such_name")


def test_run_stays_the_function_however_the_parts_are_imported() -> None:
    code = """
import gpt4batch
first = gpt4batch.run
from gpt4batch import Settings, Summary, run
import gpt4batch.cli.batchsvc, gpt4batch.cli.display, gpt4batch.api
print(callable(first), first is gpt4batch.run is run is gpt4batch.api.run)
"""
    assert python(code) == "True True"


def test_types_are_declared() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_help_does_not_load_what_only_a_run_needs() -> None:
    code = """
import sys
sys.argv = ["gpt4batch", "batchsvc", "--help"]
from gpt4batch.cli import main
try:
    main()
except SystemExit as end:
    print("code", end.code)
heavy = {"httpx", "aiohttp", "anyio", "orjson", "uvloop"}
print("loaded", sorted(heavy & set(sys.modules)))
"""
    lines = python(code).splitlines()
    assert lines[-2:] == ["code 0", "loaded []"]


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    done = subprocess.run(
        [sys.executable, "-m", "gpt4batch", "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"gpt4batch {gpt4batch.__version__}\n"
    assert version("gpt4batch") == gpt4batch.__version__
