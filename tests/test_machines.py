"""Machines: few descriptors, no home, odd locales, other systems, streams by their path."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import COMMAND, Result

from gpt4batch.cli.defects import unexpected
from gpt4batch.disk import descriptor_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

    Until = Callable[[Callable[[], Any]], Awaitable[None]]


def write(bench: Bench, count: int = 3) -> None:
    bench.write(*(bench.line(number, f"question {number}") for number in range(count)))


def with_file(number: int, name: str) -> dict[str, Any]:
    return {"id": number, "asks": [{"content": "look", "files": [name]}]}


def assert_done(bench: Bench, name: str = "out.jsonl", count: int = 3) -> None:
    found = bench.read(name)
    assert [line["id"] for line in found] == list(range(count))
    assert all(line["answers"] for line in found)


async def shell(
    bench: Bench, script: str, *words: str, env: dict[str, str] | None = None
) -> Result:
    """Run the command as `"$@"` in a script."""
    command = ["bash", "-c", script, "bash", *COMMAND, *words]
    with anyio.fail_after(90):
        done = await anyio.run_process(
            command, check=False, cwd=bench.folder, env=os.environ | (env or {})
        )
    return Result(done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1"))


# -- descriptors -----------------------------------------------------------------------------


async def test_soft_limit_of_descriptors_is_raised_to_what_is_needed(
    bench: Bench, serving: Any
) -> None:
    write(bench, 120)
    async with serving(latency=0.3, jitter=0.0) as service:
        words = bench.batchsvc(service.origin, "-g", "120")
        result = await shell(bench, 'ulimit -Sn 64; exec "$@"', *words)
    assert result.code == 0, result.err
    assert "at once instead" not in result.err
    assert_done(bench, count=120)


async def test_hard_limit_of_descriptors_makes_fewer_lines_run_at_once(
    bench: Bench, serving: Any
) -> None:
    write(bench, 150)
    script = 'ulimit -n 160; exec "$@"'
    async with serving(latency=0.2, jitter=0.0) as service:
        words = bench.batchsvc(service.origin, "-g", "150")
        checked = await shell(bench, script, "check", *words[1:])
        result = await shell(bench, script, *words)
    assert result.code == 0, result.err
    told = "32 lines at once instead of -g 150, which needs 396 open files"
    assert told in result.err
    assert told in checked.out
    assert_done(bench, count=150)


async def test_too_few_descriptors_for_a_line_are_refused(
    bench: Bench, service: MockService
) -> None:
    write(bench)
    words = bench.batchsvc(service.origin)
    for command in ("batchsvc", "check"):
        result = await shell(bench, 'ulimit -n 60; exec "$@"', command, *words[1:])
        assert result.code == 2
        assert "(ulimit -n)" in result.out + result.err
    assert service.stats.arrivals == 0


# -- streams by their path -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0", "in.fifo"])
async def test_input_that_is_a_stream_is_relative_to_the_working_folder(
    bench: Bench, serving: Any, name: str
) -> None:
    (bench.folder / "a.txt").write_text("text")
    bench.write(*(with_file(number, "a.txt") for number in range(3)))
    os.mkfifo(bench.folder / "in.fifo")
    before = "cat in.jsonl > in.fifo & " if "fifo" in name else ""
    async with serving(asset_rate=1.0) as service:
        words = bench.batchsvc(service.origin, "--allow-private-downloads", "-i", name)
        result = await shell(bench, f'{before} exec "$@" < in.jsonl', *words)
    assert result.code == 0, result.err
    assert_done(bench)
    downloads = [answer["spec_downloads"] for line in bench.read() for answer in line["answers"]]
    assert all((bench.folder / found["local"]).is_file() for row in downloads for found in row)


@pytest.mark.parametrize(
    "name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link", "/dev/fd/3"]
)
async def test_output_that_is_a_stream_is_added_to_and_not_moved(
    bench: Bench, service: MockService, name: str
) -> None:
    write(bench)
    (bench.folder / "link").symlink_to("/dev/stdout")
    (bench.folder / "all.jsonl").write_text('{"earlier":true}\n')
    redirected = "3>> all.jsonl" if name.endswith("3") else ">> all.jsonl"
    result = await shell(bench, f'"$@" {redirected}', *bench.batchsvc(service.origin, "-o", name))
    assert result.code == 0, result.err
    found = bench.read("all.jsonl")
    assert found[0] == {"earlier": True}
    assert sorted(line["id"] for line in found[1:]) == [0, 1, 2]
    assert bench.names("all*") == ["all.jsonl"]


def test_path_names_a_descriptor_only_where_it_is_one(bench: Bench) -> None:
    (bench.folder / "1").touch()
    (bench.folder / "loop").symlink_to("loop")
    (bench.folder / "link").symlink_to("/dev/stdin")
    named = {"/dev/stdin": 0, "link": 0, "/dev/fd/17": 17, "/proc/self/fd/2": 2, "1": None}
    named |= {"loop": None, "/dev/null": None, "missing": None, "": None}
    assert {name: descriptor_of(name) for name in named} == named


# -- an environment that lacks things --------------------------------------------------------


@pytest.mark.parametrize(
    "env",
    [
        {"HOME": "/nonexistent"},
        {"HOME": "relative"},
        {"HOME": ""},
        {"TMPDIR": "/nonexistent"},
        {"PATH": ""},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "zh_CN.GBK"},
    ],
)
async def test_environment_that_lacks_something_stops_no_run_with_a_token(
    bench: Bench, serving: Any, env: dict[str, str]
) -> None:
    names = ("问.jsonl", "答.jsonl", "文件", "摘要.json")
    bench.write(bench.line(0, "描述"), with_file(1, "图.png"), name=names[0])
    async with serving(asset_rate=1.0) as service:
        words = bench.batchsvc(service.origin, "-i", names[0], "-o", names[1], "-d", names[2])
        more = ["--allow-private-downloads", "--summary", names[3]]
        result = await bench.call(*words, *more, env=env)
    assert result.code == 1, result.err  # the attachment is not there
    assert "Traceback" not in result.err
    assert "defect" not in result.err
    first, second = bench.read(names[1])
    assert first["answers"]
    assert second["iErr"]["stage"] == "attachment"
    assert (bench.folder / names[3]).stat().st_size


async def test_empty_environment_without_a_token_is_told_in_words(bench: Bench) -> None:
    write(bench)
    for words in (["batchsvc", "-i", "in.jsonl"], ["check", "-i", "in.jsonl"], ["-h"]):
        done = subprocess.run(
            [*COMMAND, *words], cwd=bench.folder, env={}, capture_output=True, check=False
        )
        assert done.returncode == (0 if words == ["-h"] else 2)
        assert b"Traceback" not in done.stderr


HOOK = """
import sys
sys.path.remove({folder!r})
import gpt4batch.{module} as module
def fail(*_, **__):
    raise KeyError("unforeseen")
module.{name} = fail
"""


@pytest.mark.parametrize(
    ("module", "name", "code", "fate"),
    [
        ("api", "Source", 2, "nothing was called"),
        ("batch.pool", "next", 4, "run again with -f"),
        ("batch.runner", "Summary", 4, "run again with -f"),
    ],
)
async def test_what_nobody_foresaw_is_told_in_words(
    bench: Bench, service: MockService, module: str, name: str, code: int, fate: str
) -> None:
    write(bench)
    folder = str(bench.folder)
    hook = HOOK.format(folder=folder, module=module, name=name)
    (bench.folder / "sitecustomize.py").write_text(hook)
    words = bench.batchsvc(service.origin)
    result = await bench.call(*words, env={"PYTHONPATH": folder})
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    assert "unexpected error: KeyError: 'unforeseen'" in result.last
    assert fate in result.last
    told = await bench.call(*words, "--log-level", "debug", env={"PYTHONPATH": folder})
    assert told.code == code
    assert "Traceback" in told.err


def test_first_error_of_a_group_is_the_one_that_is_told() -> None:
    group = ExceptionGroup("two", [ExceptionGroup("one", [ValueError("this")]), KeyError("that")])
    assert unexpected(group, begun=True).startswith("unexpected error: ValueError: this; ")


# -- snapshots -------------------------------------------------------------------------------


async def test_two_outputs_of_one_input_keep_their_snapshots_apart(
    bench: Bench, serving: Any, until: Until
) -> None:
    write(bench, 2)
    async with serving(latency=60.0, jitter=0.0) as service:
        words = bench.batchsvc(service.origin, "-v", "0.003", "--grace", "0", "-o")
        async with bench.start(*words, "a.jsonl") as one:
            await one.says("snapshot: ")
            async with bench.start(*words, "b.jsonl") as two:
                await two.says("is another run's: this one's is .")
                await two.says("snapshot: ")
                assert bench.names(".*-in.jsonl")
                assert bench.names(".*-b.jsonl")
                two.process.terminate()
                await two.end()
            assert bench.names(".*-in.jsonl")
            assert not bench.names(".*-b.jsonl")
            one.process.terminate()
            await one.end()
    assert not bench.names(".2*")


# -- other systems ---------------------------------------------------------------------------

NOT_ON_MACOS = """
import errno, fcntl, os, select, signal, socket
for module, names in (
    (os, "fdatasync posix_fallocate posix_fadvise O_TMPFILE O_PATH O_DIRECT sched_getaffinity "
     "sched_setaffinity pipe2 memfd_create copy_file_range splice eventfd getrandom pidfd_open "
     "O_NOATIME O_LARGEFILE getxattr setxattr listxattr preadv pwritev"),
    (socket, "TCP_KEEPIDLE TCP_USER_TIMEOUT SO_BINDTODEVICE SO_INCOMING_CPU TCP_QUICKACK"),
    (signal, "SIGRTMIN SIGRTMAX SIGPWR SIGSTKFLT pidfd_send_signal"),
    (fcntl, "F_SETPIPE_SZ F_GETPIPE_SZ F_OFD_SETLK F_ADD_SEALS"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
real_open, real_readlink = os.open, os.readlink
def hidden(real):
    def call(path, *rest, **named):
        if isinstance(path, str) and path.startswith("/proc"):
            raise FileNotFoundError(errno.ENOENT, "there is no /proc here", path)
        return real(path, *rest, **named)
    return call
os.open, os.readlink = hidden(real_open), hidden(real_readlink)
"""


async def test_run_needs_nothing_that_only_linux_has(bench: Bench, serving: Any) -> None:
    write(bench)
    (bench.folder / "sitecustomize.py").write_text(NOT_ON_MACOS)
    env = {"PYTHONPATH": str(bench.folder)}
    async with serving(asset_rate=1.0) as service:
        words = bench.batchsvc(service.origin, "--fsync", "always", "--allow-private-downloads")
        checked = await bench.call("check", *words[1:], env=env)
        result = await bench.call(*words, "-v", "0.001", env=env)
    assert (checked.code, result.code) == (0, 0), result.err + checked.err
    assert_done(bench)


async def test_full_sync_is_asked_for_where_the_system_has_one(
    bench: Bench, service: MockService
) -> None:
    write(bench)
    hook = (
        "import fcntl, os\nreal = fcntl.fcntl\nfcntl.F_FULLFSYNC = 51\n"
        "def call(fd, what, *rest):\n"
        "    if what == 51:\n        os.write(2, b'full\\n')\n        return 0\n"
        "    return real(fd, what, *rest)\nfcntl.fcntl = call\n"
    )
    (bench.folder / "sitecustomize.py").write_text(hook)
    words = bench.batchsvc(service.origin, "--fsync", "always")
    result = await bench.call(*words, env={"PYTHONPATH": str(bench.folder)})
    assert result.code == 0, result.err
    assert result.err.count("full\n") >= 2


async def test_windows_is_told_of_wsl(bench: Bench) -> None:
    blocked = "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None; "
    start = "sys.platform = 'win32'; from gpt4batch.__main__ import main; main()"
    with anyio.fail_after(60):
        done = await anyio.run_process([sys.executable, "-c", blocked + start], check=False)
    assert done.returncode == 2
    assert b"WSL" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_limit_of_descriptors_is_left_where_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt4batch.batch import descriptors

    asked: list[Any] = []
    monkeypatch.setattr(resource, "setrlimit", lambda *words: asked.append(words))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    descriptors.raise_limit(8)
    assert asked == []
    descriptors.raise_limit(1100)
    assert asked == [(resource.RLIMIT_NOFILE, (2296, resource.RLIM_INFINITY))]
