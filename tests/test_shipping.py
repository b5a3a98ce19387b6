"""What is shipped: wheel, sdist and single file are installed in clean places and tried.

The slow ones want `make packages`, which builds dist/ first and then runs them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from gpt4batch.lines import rawjson
from gpt4batch.settings import VERSION

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
SOURCES = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "gpt4batch").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}


def run(*words: object, cwd: Path, code: int = 0) -> str:
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**kept, **pip, "HOME": str(cwd), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def built(pattern: str) -> Path:
    found = list(DIST.glob(pattern))
    assert len(found) == 1, "run `make packages`, which builds what is tried here"
    return found[0]


def try_out(*command: object, folder: Path) -> None:
    """Run the example against the embedded service in an empty folder."""
    for name in ("example.jsonl", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "examples/img", folder / "examples/img")
    assert run(*command, "--version", cwd=folder) == f"gpt4batch {VERSION}\n"
    said = run(*command, "batchsvc", "--mock", "-q=20", "-d=files", cwd=folder)
    assert "3 of 3 lines done" in said
    lines = [rawjson.loads(line) for line in (folder / "out.jsonl").read_bytes().splitlines()]
    assert [line["id"] for line in lines] == ["q-1", "q-2", "q-3"]


@pytest.mark.package
def test_wheel_in_a_clean_environment_runs_the_example(tmp_path: Path) -> None:
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    constraints = ("--constraint", ROOT / "constraints.txt")
    run(place / "bin/pip", "install", "--quiet", *constraints, built("*.whl"), cwd=tmp_path)
    try_out(place / "bin/gpt4batch", folder=tmp_path)
    said = run(place / "bin/gpt4batch", "batchsvc", "--mock", "-n", cwd=tmp_path, code=2)
    assert "gpt4batch[nsq]" in said
    assert "Traceback" not in said


@pytest.mark.package
def test_wheel_holds_the_package_and_its_licence_and_nothing_else() -> None:
    with zipfile.ZipFile(built("*.whl")) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
        info = f"gpt4batch-{VERSION}.dist-info"
        metadata = wheel.read(f"{info}/METADATA").decode()
    assert {name for name in names if not name.startswith(info)} == SOURCES
    assert f"{info}/licenses/LICENSE" in names
    assert f"Version: {VERSION}\n" in metadata
    assert "Requires-Python: >=3.11\n" in metadata


@pytest.mark.package
def test_sdist_makes_the_same_wheel(tmp_path: Path) -> None:
    sdist = built("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert SOURCES | {"LICENSE", "README.md", "pyproject.toml"} <= names
    assert not {name for name in names if name.startswith((".ci", ".git/", ".venv", "dist"))}
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    run(*pip, "--wheel-dir", tmp_path, sdist, cwd=tmp_path)
    (again,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(built("*.whl")) as other:
        assert {item.filename: item.CRC for item in one.infolist()} == {
            item.filename: item.CRC for item in other.infolist()
        }


@pytest.mark.package
def test_single_file_runs_with_nothing_but_python(tmp_path: Path) -> None:
    program = shutil.copy(built("gpt4batch.pyz"), tmp_path / "gpt4batch")
    place = tmp_path / "venv"  # an interpreter without any package, pip included
    venv.create(place, with_pip=False)
    try_out(place / "bin/python", "-I", program, folder=tmp_path)


# -- recipes, quickly looked through ---------------------------------------------------------


def test_container_runs_as_a_user_without_rights() -> None:
    text = (ROOT / "Containerfile").read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != "#"]
    known = {"FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert {step for step, _ in steps} == known
    bases = [words for step, words in steps if step == "FROM"]
    assert all(
        re.match(r"docker\.io/library/python:3\.\d+-slim( AS \w+)?$", base) for base in bases
    )
    last = [step for step, _ in steps[::-1]]
    assert last.index("USER") < last.index("FROM")
    (user,) = (words for step, words in steps if step == "USER")
    assert int(user) > 0
    (entry,) = (words for step, words in steps if step == "ENTRYPOINT")
    assert rawjson.loads(entry.encode()) == ["gpt4batch"]


def test_container_leaves_out_what_was_built_and_run() -> None:
    left_out = set((ROOT / ".containerignore").read_text().split())
    assert {".git", ".venv", "dist", "out*.jsonl"} <= left_out


STAND_IN = """#!/bin/sh
echo "$(basename "$0") $1" >> "$CALLED"
test "$1" != "$FAILING"
"""
"""What the gate calls, in its place: writes down that it was called, and fails where told to."""


def gate(folder: Path, failing: str = "") -> tuple[int, list[str]]:
    """Run the gate with stand-ins for all that it calls; return its code and the make targets."""
    (folder / ".ci").mkdir(parents=True)
    shutil.copy2(ROOT / ".ci/run", folder / ".ci/run")
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    tools = folder / "tools"
    tools.mkdir()
    for name in ("make", "apt-get", "go", "chromium", "nginx", "mmdebstrap", "chroot", "curl"):
        (tools / name).write_text(STAND_IN)
        (tools / name).chmod(0o755)
    env = {"PATH": f"{tools}:/usr/bin:/bin", "PYTHON": sys.executable, "HOME": str(folder)}
    env |= {"CALLED": str(folder / "called"), "FAILING": failing}
    done = subprocess.run([folder / ".ci/run"], env=env, capture_output=True, check=False)
    called = (folder / "called").read_text().splitlines()
    return done.returncode, [call.split()[1] for call in called if call.startswith("make ")]


def test_gate_calls_the_commands_of_the_readme_and_stops_at_one_that_fails(tmp_path: Path) -> None:
    code, called = gate(tmp_path / "whole")
    assert code == 0
    assert [name for name in called if name in ("check", "test", "demo")] == [
        "check",
        "test",
        "demo",
    ]
    assert {"docs", "packages", "chaos-short", "test-browser", "bench-short"} <= set(called)
    for failing in ("check", "test", "bench-short"):
        code, again = gate(tmp_path / failing, failing)
        assert code != 0, failing
        assert again == called[: called.index(failing) + 1]


def test_commit_hooks_are_parts_of_the_gate_and_fetch_nothing() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    makefile = (ROOT / "Makefile").read_text().replace("$(BIN)", ".venv/bin")
    (repository,) = config["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert f"\t{hook['entry']}" in makefile


def test_changes_tell_of_this_version_or_of_what_comes() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[([^\]]+)\]", text, re.MULTILINE)
    assert headings[0] == "Unreleased" or headings[0] == VERSION
    allowed = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= allowed


def test_licence_is_the_whole_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("gpt4batch b", {"batchsvc"}), ("gpt4batch batchsvc --q", {"--qps", "--quiet"})],
)
def test_shell_completion_offers_commands_and_flags(typed: str, offered: set[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    env = {**os.environ, **words, "_GPT4BATCH_COMPLETE": "complete_bash"}
    tool = Path(sys.executable).with_name("gpt4batch")
    done = subprocess.run([tool], env=env, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered
