"""Everything in examples/ works as it stands."""

from __future__ import annotations

import configparser
import csv
import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import gpt4batch
from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import parse_line

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a user whose runs all go to the embedded service."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GPT4BATCH", "LC"))
    }
    path = f"{BIN}{os.pathsep}{kept['PATH']}"
    rehearsal = {"GPT4BATCH_MOCK": "true", "GPT4BATCH_LATENCY": "0", "GPT4BATCH_QPS": "100"}
    return {**kept, **rehearsal, "HOME": str(home), "PATH": path, "LC_ALL": "C.UTF-8", **more}


def run(*words: object, home: Path, code: int = 0, **more: str) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        cwd=home,
        env=environment(home, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def script(name: str, *words: object, home: Path, code: int = 0, **more: str) -> str:
    return run(sys.executable, EXAMPLES / name, *words, home=home, code=code, **more)


def read(path: Path) -> list[Any]:
    return [rawjson.loads(line) for line in path.read_bytes().splitlines()]


def write_batch(path: Path, count: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"id": number, "asks": [{"content": f"{number}?"}]} for number in range(count)]
    path.write_bytes(b"".join(rawjson.dumps(line) + b"\n" for line in lines))


def done(path: Path) -> bool:
    lines = read(path)
    return bool(lines) and all(line["answers"] and "iErr" not in line for line in lines)


# -- scripts -------------------------------------------------------------------------------


def test_folder_of_pictures_becomes_a_batch_that_runs(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "deep/c.png"):
        (tmp_path / "album" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(EXAMPLES / "img/lake.png", tmp_path / "album" / name)
    (tmp_path / "album/notes.txt").write_text("no picture")
    (tmp_path / "jobs").mkdir()
    script("pictures_to_jsonl.py", "album", "jobs/in.jsonl", "What?", "Shorter", home=tmp_path)
    lines = read(tmp_path / "jobs/in.jsonl")
    assert [line["asks"][0]["images"] for line in lines] == [
        ["../album/a.PNG"],
        ["../album/b.png"],
        ["../album/deep/c.png"],
    ]
    run("gpt4batch", "batchsvc", "-i", "jobs/in.jsonl", "-o", "out.jsonl", home=tmp_path)
    assert done(tmp_path / "out.jsonl")


def test_csv_becomes_a_batch_with_conversations_and_extras(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module m\n")
    (tmp_path / "q.csv").write_text(
        "id,content,files,model,topic\n"
        'a,"Read, please",go.mod; go.mod ,gpt-4,code\n'
        "a,Shorter,,,\n"
        ",你好,,,greeting\n",
        encoding="utf-8-sig",
    )
    script("csv_to_jsonl.py", "q.csv", "in.jsonl", home=tmp_path)
    first, second = read(tmp_path / "in.jsonl")
    assert first == {
        "id": "a",
        "asks": [
            {"id": "a-1", "content": "Read, please", "files": ["go.mod", "go.mod"]},
            {"id": "a-2", "content": "Shorter"},
        ],
        "model": "gpt-4",
        "extra": {"topic": "code"},
    }
    assert (second["id"], second["asks"][0]["content"]) == ("row-3", "你好")
    run("gpt4batch", "batchsvc", "-i", "in.jsonl", "-o", "out.jsonl", home=tmp_path)
    assert done(tmp_path / "out.jsonl")


def test_csv_without_questions_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("topic\nhi\n")
    said = script("csv_to_jsonl.py", "q.csv", "in.jsonl", home=tmp_path, code=2)
    assert said.startswith("gpt4batch: q.csv: no column is named content, ")
    assert not (tmp_path / "in.jsonl").exists()


def test_results_become_a_csv_with_answers_files_and_errors(tmp_path: Path) -> None:
    write_batch(tmp_path / "in.jsonl")
    with (tmp_path / "in.jsonl").open("ab") as file:
        lost = {"id": "lost", "asks": [{"id": "p", "content": "=1+1", "images": ["no.png"]}]}
        file.write(rawjson.dumps(lost))
    run(
        *("gpt4batch", "batchsvc", "-i", "in.jsonl", "-o", "out.jsonl", "-d", "files"),
        home=tmp_path,
        code=1,
        GPT4BATCH_ASSET_RATE="1",
    )
    script("results_to_csv.py", "out.jsonl", "r.csv", home=tmp_path)
    with (tmp_path / "r.csv").open(encoding="utf-8-sig", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["id"] for row in rows] == ["0", "1", "2", "lost"]
    assert rows[0]["answer"].startswith("Mock answer")
    assert (tmp_path / "files" / rows[0]["downloads"]).stat().st_size == 4096
    assert rows[3]["question"] == "'=1+1"
    assert rows[3]["answer"] == ""
    assert "no.png" in rows[3]["error"]


def test_python_program_runs_a_batch_and_resumes_it(tmp_path: Path) -> None:
    write_batch(tmp_path / "in.jsonl")
    words = ("in.jsonl", "out.jsonl", "--rehearse")
    said = script("python_api.py", *words, home=tmp_path)
    assert said == "3 of 3 lines are done, 3 calls were made\n"
    assert done(tmp_path / "out.jsonl")
    assert "0 calls were made" in script("python_api.py", *words, home=tmp_path)


def test_python_program_tells_what_is_refused(tmp_path: Path) -> None:
    write_batch(tmp_path / "in.jsonl")
    said = script("python_api.py", "in.jsonl", "out.jsonl", home=tmp_path, code=2)
    assert said.startswith("no token: ")
    assert "Traceback" not in said


async def test_python_rehearsal_without_a_service_is_refused_not_paid_for(tmp_path: Path) -> None:
    write_batch(tmp_path / "in.jsonl")
    batch, out = str(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    settings = gpt4batch.Settings(input=batch, out=str(out), mock=True, token="a real one")
    with pytest.raises(gpt4batch.UsageError, match="MockService"):
        await gpt4batch.run(settings)
    assert not out.exists()


@pytest.mark.parametrize(
    "name", sorted(path.name for path in EXAMPLES.glob("*.py")), ids=lambda name: name
)
def test_script_without_arguments_tells_its_usage(name: str, tmp_path: Path) -> None:
    assert f"python examples/{name} " in script(name, home=tmp_path, code=1)


def test_example_batch_is_good_and_its_files_are_there() -> None:
    for raw in (ROOT / "example.jsonl").read_bytes().splitlines():
        for ask in parse_line(raw).asks:
            for path in (*ask.images, *ask.files):
                assert (ROOT / path).is_file()


# -- cron ----------------------------------------------------------------------------------


def nightly(home: Path, code: int = 0, **more: str) -> str:
    """Run what the crontab runs, as cron does: with /bin/sh, from the home folder."""
    entries = (EXAMPLES / "cron/crontab").read_text().splitlines()
    (entry,) = (line for line in entries if re.match(r"[\d*]", line))
    *times, command = entry.split(maxsplit=5)
    assert len(times) == 5
    assert all(re.fullmatch(r"\*|\d{1,2}", field) for field in times)
    shutil.copy(EXAMPLES / "cron/nightly.sh", home / "batch/nightly.sh")
    return run("/bin/sh", "-c", command, home=home, code=code, **more)


def test_cron_entry_finishes_the_batch_over_several_nights(tmp_path: Path) -> None:
    batch = tmp_path / "batch"
    write_batch(batch / "prompts.jsonl")
    assert nightly(tmp_path, GPT4BATCH_LIMIT="2") == ""
    assert not done(batch / "out.jsonl")
    assert nightly(tmp_path) == ""
    assert done(batch / "out.jsonl")
    log = (batch / "batch.log").read_text()
    assert "2 of 3 lines done" in log
    assert "every line is done" in log
    assert rawjson.loads((batch / "summary.json").read_bytes())["done_before"] == 2


def test_cron_entry_that_overlaps_leaves_the_run_alone(tmp_path: Path) -> None:
    batch = tmp_path / "batch"
    write_batch(batch / "prompts.jsonl")
    with (batch / "out.jsonl.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = nightly(tmp_path, code=2)
    assert "exit code 2" in said
    assert "another run is writing" in (batch / "batch.log").read_text()
    assert not (batch / "out.jsonl").exists()


# -- systemd -------------------------------------------------------------------------------


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(EXAMPLES / "systemd" / name)
    return parser


def test_systemd_service_runs_the_batch(tmp_path: Path) -> None:
    service = unit("gpt4batch.service")["Service"]
    batch = Path(service["WorkingDirectory"].replace("%h", str(tmp_path)))
    write_batch(batch / "prompts.jsonl")
    run("sh", "-c", f"cd {batch} && {service['ExecStart']}", home=tmp_path)
    assert done(batch / "out.jsonl")
    assert service["Type"] == "oneshot"
    assert service["SuccessExitStatus"] == "1"
    assert int(service["TimeoutStopSec"]) > 20


def test_systemd_timer_is_of_the_service() -> None:
    timer = unit("gpt4batch.timer")
    assert re.fullmatch(r"\*-\*-\* \d\d:\d\d:\d\d", timer["Timer"]["OnCalendar"])
    assert timer["Install"]["WantedBy"] == "timers.target"
    assert (EXAMPLES / "systemd/gpt4batch.service").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for path in (EXAMPLES / "systemd").iterdir():
        text = path.read_text().replace("ExecStart=gpt4batch", f"ExecStart={BIN}/gpt4batch")
        (tmp_path / path.name).write_text(text)
    run(
        "systemd-analyze",
        "--user",
        "verify",
        tmp_path / "gpt4batch.timer",
        home=tmp_path,
        XDG_RUNTIME_DIR=str(tmp_path),
    )


# -- CI ------------------------------------------------------------------------------------


def load(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / "ci" / name).read_text())


def commands_of_github() -> list[str]:
    jobs = load("github-actions.yml")["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def commands_of_gitlab() -> list[str]:
    document = load("gitlab-ci.yml")
    scripts = [document["default"]["before_script"]]
    scripts += [job["script"] for name, job in document.items() if name != "default"]
    return [command for script in scripts for command in script]


@pytest.mark.parametrize("commands", [commands_of_github(), commands_of_gitlab()], ids=["gh", "gl"])
def test_ci_pipeline_rehearses_and_runs(commands: list[str], tmp_path: Path) -> None:
    write_batch(tmp_path / "prompts.jsonl")
    installs = [command for command in commands if command.startswith("pip install")]
    batches = [command for command in commands if command not in installs]
    assert set(installs) == {"pip install wheels/gpt4batch-*.whl"}
    for command in batches:
        run("bash", "-c", command, home=tmp_path)
    assert done(tmp_path / "rehearsal.jsonl")
    assert done(tmp_path / "out.jsonl")
    assert rawjson.loads((tmp_path / "summary.json").read_bytes())["exit_code"] == 0


def test_github_jobs_have_what_a_workflow_needs() -> None:
    document = load("github-actions.yml")
    assert document[True].keys() == {"push", "schedule"}  # YAML 1.1 reads `on` as true
    for job in document["jobs"].values():
        assert job["runs-on"]
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    assert "secrets.GPT4BATCH_TOKEN" in document["jobs"]["run"]["env"]["GPT4BATCH_TOKEN"]


def test_gitlab_job_runs_on_schedule_only_and_keeps_results() -> None:
    job = load("gitlab-ci.yml")["run"]
    assert "schedule" in job["rules"][0]["if"]
    assert job["artifacts"]["when"] == "always"
