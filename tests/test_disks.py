"""File systems that refuse what only decorates a write: network drives, mounts, other users."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import COMMAND

from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench

    from gpt4batch.mock.server import MockService

REFUSING = Path(__file__).with_name("refusing.c")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library that refuses calls."""
    compiler = shutil.which("cc")
    if compiler is None or os.uname().sysname != "Linux":
        pytest.skip("needs Linux and a C compiler")
    made = tmp_path_factory.mktemp("library") / "refusing.so"
    words = [compiler, "-shared", "-fPIC", "-o", str(made), str(REFUSING), "-ldl"]
    subprocess.run(words, check=True)
    return made


@pytest.fixture
def refusing(library: Path) -> Callable[[str], dict[str, str]]:
    """Return the environment in which some calls fail."""
    return lambda rules: {"LD_PRELOAD": str(library), "REFUSE": rules}


def ordered(bench: Bench, name: str = "out.jsonl") -> list[Any]:
    found = bench.read(name)
    assert all(line["answers"] for line in found)
    return [line["id"] for line in found]


def write(bench: Bench) -> None:
    bench.write(*(bench.line(number, f"question {number}") for number in range(3)))


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.ENOTSUP, errno.EBADF])
async def test_folder_that_cannot_be_synced_is_warned_of_once(
    bench: Bench, service: MockService, refusing: Any, number: int
) -> None:
    write(bench)
    env = refusing(f"fsync:{number}:d")
    result = await bench.call(*bench.batchsvc(service.origin), env=env)
    assert result.code == 0, result.err
    assert ordered(bench) == [0, 1, 2]
    assert result.err.count("cannot be synced") == 1


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
async def test_file_system_that_syncs_nothing_keeps_the_run_going(
    bench: Bench, service: MockService, refusing: Any, number: int
) -> None:
    write(bench)
    env = refusing(f"fsync:{number}:* fdatasync:{number}:*")
    result = await bench.call(*bench.batchsvc(service.origin, "--fsync", "always"), env=env)
    assert result.code == 0, result.err
    assert ordered(bench) == [0, 1, 2]
    assert "syncs no files" in result.err


async def test_disk_that_fails_at_a_sync_of_the_answers_is_told(
    bench: Bench, service: MockService, refusing: Any
) -> None:
    write(bench)
    words = bench.batchsvc(service.origin, "--fsync", "always")
    result = await bench.call(*words, env=refusing(f"fdatasync:{errno.EIO}:out.jsonl"))
    assert result.code == 4
    assert "stopping: cannot write" in result.err
    kept = [line for line in bench.read() if line["answers"]]  # put in order, and synced there
    assert len(kept) == service.stats.chats_answered


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EIO])
async def test_mode_that_cannot_be_set_costs_nothing(
    bench: Bench, service: MockService, refusing: Any, number: int
) -> None:
    write(bench)
    out = bench.folder / "out.jsonl"
    out.touch()
    out.chmod(0o666)  # more than the umask leaves
    env = refusing(f"chmod:{number}:*")
    result = await bench.call(*bench.batchsvc(service.origin, "-f"), env=env)
    assert result.code == 0, result.err
    assert ordered(bench) == [0, 1, 2]
    assert "sets no modes" in result.err


async def test_output_that_only_its_owner_may_read_stays_so_without_a_call(
    bench: Bench, service: MockService, refusing: Any
) -> None:
    write(bench)
    out = bench.folder / "out.jsonl"
    out.touch()
    out.chmod(0o600)
    env = refusing(f"chmod:{errno.EPERM}:*")
    result = await bench.call(*bench.batchsvc(service.origin, "-f"), env=env)
    assert result.code == 0, result.err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "modes" not in result.err


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES])
@pytest.mark.parametrize("fix", [True, False])
async def test_output_that_cannot_be_replaced_is_written_in_place(
    bench: Bench, service: MockService, refusing: Any, number: int, fix: bool
) -> None:
    write(bench)
    out = bench.folder / "out.jsonl"
    old = bench.line("old", "another", answers=[{"message_id": "m"}])
    out.write_bytes(rawjson.dumps(old) + b"\n")
    inode = out.stat().st_ino
    env = refusing(f"rename:{number}:/out.jsonl rename:{number}:.jsonl")
    words = bench.batchsvc(service.origin, *(["-f"] if fix else []))
    checked = await bench.call("check", *words[1:], env=env)
    assert checked.code == 0, checked.out
    result = await bench.call(*words, env=env)
    assert result.code == 0, result.err
    assert out.stat().st_ino == inode
    assert ordered(bench) == [0, 1, 2]
    assert len(bench.names("out.2*.jsonl")) == 1  # what was in it is kept
    assert not bench.names(".out*")


async def test_writing_in_place_that_was_cut_short_is_made_up_for(
    bench: Bench, service: MockService
) -> None:
    write(bench)
    assert (await bench.call(*bench.batchsvc(service.origin))).code == 0
    out = bench.folder / "out.jsonl"
    whole = out.read_bytes()
    (bench.folder / ".out.jsonl.whole").write_bytes(whole)
    out.write_bytes(whole[: len(whole) // 2] + b"\x00" * 999)
    result = await bench.call(*bench.batchsvc(service.origin, "-f"))
    assert result.code == 0, result.err
    assert out.read_bytes() == whole
    assert service.stats.chats_answered == 3
    assert not bench.names(".out*")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
@pytest.mark.parametrize("other", [True, False])
async def test_file_system_without_locks_is_used_all_the_same(
    bench: Bench, serving: Any, refusing: Any, number: int, other: bool
) -> None:
    write(bench)
    env = refusing(f"flock:{number}:*" + ("" if other else f" lockf:{number}:*"))
    async with serving(asset_rate=1.0) as service:
        words = bench.batchsvc(service.origin, "--allow-private-downloads", "-d", "files")
        (bench.folder / "out.jsonl.lock").touch()
        checked = await bench.call("check", *words[1:], env=env)
        assert checked.code == 0, checked.out
        result = await bench.call(*words, env=env)
    assert result.code == 0, result.err
    assert ordered(bench) == [0, 1, 2]
    assert not list((bench.folder / "files").glob("*.part"))
    assert ("cannot be locked" in result.err) is not other


async def test_lock_of_another_kind_keeps_a_second_run_out(
    bench: Bench, serving: Any, refusing: Any, until: Any
) -> None:
    write(bench)
    env = refusing(f"flock:{errno.ENOSYS}:*")
    async with serving(latency=20.0, jitter=0.0) as service:
        words = bench.batchsvc(service.origin)
        async with bench.start(*words, env=env):
            await until(lambda: service.stats.arrivals)
            second = await bench.call(*words, env=env)
            checked = await bench.call("check", *words[1:], env=env)
    assert (second.code, checked.code) == (2, 2)
    assert "another run is writing" in second.last
    assert "another run is writing" in checked.out


ROOT = os.geteuid() == 0


def as_nobody(bench: Bench, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user without a name or a home folder."""
    ids = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
    env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*ids, *COMMAND, *words]
    return subprocess.run(
        command, cwd=bench.folder, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def shared() -> Any:
    """Return a folder that another user may enter, as pytest's own are closed to others."""
    import tempfile

    if not ROOT or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def bench_in(bench: Bench, folder: Path) -> Bench:
    found = type(bench)(folder)
    write(found)
    return found


async def call_as_nobody(bench: Bench, *words: str) -> subprocess.CompletedProcess[str]:
    import anyio.to_thread

    return await anyio.to_thread.run_sync(lambda: as_nobody(bench, *words))


async def test_user_without_a_name_or_home_runs_with_a_token(
    bench: Bench, service: MockService, shared: Path
) -> None:
    other = bench_in(bench, shared)
    words = bench.batchsvc(service.origin)
    result = await call_as_nobody(other, *words)
    assert result.returncode == 0, result.stderr
    assert ordered(other) == [0, 1, 2]
    for command in ("batchsvc", "check", "authsvc"):
        more = ["-e", "a@b.c", "-p", "x"] if command == "authsvc" else ["-i", "in.jsonl"]
        result = await call_as_nobody(other, command, *more)
        told = result.stdout + result.stderr
        assert result.returncode == 2, told
        assert "no home folder" in told
        assert "Traceback" not in told


@pytest.mark.parametrize("mode", [0o644, 0o600])
async def test_lock_file_of_another_user_is_used_or_named(
    bench: Bench, service: MockService, shared: Path, mode: int
) -> None:
    other = bench_in(bench, shared)
    lock = shared / "out.jsonl.lock"
    lock.touch()
    lock.chmod(mode)
    words = bench.batchsvc(service.origin)
    result = await call_as_nobody(other, *words)
    if mode == 0o644:
        assert result.returncode == 0, result.stderr
        return
    checked = await call_as_nobody(other, "check", *words[1:])
    assert (result.returncode, checked.returncode) == (4, 4)
    for told in (result.stderr, checked.stdout):
        assert f"cannot use the lock {lock}: Permission denied; if no run is on, remove it" in told
    assert service.stats.arrivals == 0


async def test_output_of_another_user_in_a_sticky_folder_is_written_in_place(
    bench: Bench, service: MockService, shared: Path
) -> None:
    shared.chmod(0o1777)
    other = bench_in(bench, shared)
    out = shared / "out.jsonl"
    out.touch()
    out.chmod(0o666)
    result = await call_as_nobody(other, *bench.batchsvc(service.origin, "-f"))
    assert result.returncode == 0, result.stderr
    assert ordered(other) == [0, 1, 2]
    assert out.stat().st_uid == 0


@pytest.mark.parametrize("what", ["folder", "file", "missing"])
async def test_output_that_may_not_be_written_is_refused_alike_by_run_and_check(
    bench: Bench, service: MockService, shared: Path, what: str
) -> None:
    other = bench_in(bench, shared)
    (shared / "closed").mkdir()
    (shared / "closed" / "out.jsonl").touch()
    (shared / "closed" / "out.jsonl").chmod(0o666 if what == "folder" else 0o644)
    name = "closed/sub/out.jsonl" if what == "missing" else "closed/out.jsonl"
    (shared / "closed").chmod(0o777 if what == "file" else 0o755)
    words = bench.batchsvc(service.origin, "-f", "-o", name)
    result = await call_as_nobody(other, *words)
    checked = await call_as_nobody(other, "check", *words[1:])
    assert (result.returncode, checked.returncode) == (4, 4)
    assert "permission denied" in result.stderr
    assert result.stderr.strip().removeprefix("gpt4batch: ") in checked.stdout
    assert service.stats.arrivals == 0


async def test_output_on_a_mount_point_is_written_in_place(
    bench: Bench, service: MockService
) -> None:
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("needs a mount namespace")
    write(bench)
    (bench.folder / "real.jsonl").touch()
    (bench.folder / "out.jsonl").touch()
    script = 'mount --bind real.jsonl out.jsonl && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", *COMMAND]
    import anyio

    for more in ([], ["-f"]):
        done = await anyio.run_process(
            [*command, *bench.batchsvc(service.origin, *more)], check=False, cwd=bench.folder
        )
        assert done.returncode == 0, done.stderr
        assert ordered(bench, "real.jsonl") == [0, 1, 2]
    assert service.stats.chats_answered == 3


async def test_read_only_file_system_is_refused_before_the_first_call(
    bench: Bench, service: MockService
) -> None:
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("needs a mount namespace")
    write(bench)
    (bench.folder / "disk").mkdir()
    script = 'mount -t tmpfs -o ro none disk && exec "$@"'
    import anyio

    for name in ("batchsvc", "check"):
        words = [name, *bench.batchsvc(service.origin, "-o", "disk/out.jsonl")[1:]]
        done = await anyio.run_process(
            ["unshare", "-m", "sh", "-c", script, "sh", *COMMAND, *words],
            check=False,
            cwd=bench.folder,
        )
        assert done.returncode == 4
        assert b"the file system is read-only" in done.stdout + done.stderr
    assert service.stats.arrivals == 0


async def test_output_through_a_link_keeps_the_link(bench: Bench, service: MockService) -> None:
    write(bench)
    (bench.folder / "results").mkdir()
    link = bench.folder / "out.jsonl"
    link.symlink_to("results/real.jsonl")
    for _ in range(2):
        result = await bench.call(*bench.batchsvc(service.origin, "-f"))
        assert result.code == 0, result.err
    assert link.is_symlink()
    assert stat.S_ISREG((bench.folder / "results/real.jsonl").stat().st_mode)
    assert ordered(bench) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("loop", 4, "ymbolic links"),
        ("folder", 4, "is a folder"),
        ("socket", 4, "is a socket"),
        ("in.jsonl/out.jsonl", 4, "Not a directory"),
        ("x" * 254, 4, "bytes"),
        ("x" * 300, 4, "too long"),
        ("x/" * 3000 + "out", 4, "too long"),
    ],
)
async def test_output_that_cannot_be_is_refused_alike_by_run_and_check(
    bench: Bench, service: MockService, name: str, code: int, reason: str
) -> None:
    import socket

    write(bench)
    (bench.folder / "loop").symlink_to("loop")
    (bench.folder / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        words = bench.batchsvc(service.origin, "-o", name)
        result = await bench.call(*words)
        checked = await bench.call("check", *words[1:])
    assert (result.code, checked.code) == (code, code), result.err
    assert reason in result.last
    assert result.last.removeprefix("gpt4batch: ") in checked.out
    assert service.stats.arrivals == 0


async def test_input_that_is_a_loop_of_links_is_refused(bench: Bench, service: MockService) -> None:
    (bench.folder / "in.jsonl").symlink_to("in.jsonl")
    result = await bench.call(*bench.batchsvc(service.origin))
    assert result.code == 2
    assert "Too many levels of symbolic links" in result.last


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
async def test_disk_that_is_full_for_downloads_stops_the_run_and_fails_no_line(
    bench: Bench, serving: Any, refusing: Any, number: int
) -> None:
    write(bench)
    async with serving(asset_rate=1.0) as service:
        words = bench.batchsvc(service.origin, "--allow-private-downloads", "-d", "files")
        env = refusing(f"write:{number}:.part write:{number}:(deleted)")
        result = await bench.call(*words, env=env)
        assert result.code == 4, result.err
        assert "cannot write downloads" in result.err
        assert "Traceback" not in result.err
        left = (line.get("iErr", {}).get("code") for line in bench.read())
        assert set(left) <= {None, 400}

        assert (await bench.call(*words, "-f")).code == 0
        assert service.stats.answered_twice == 0
