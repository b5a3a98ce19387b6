"""Nowhere to write: disks that fill up, folders that go, outputs that are read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

from chaos.lab import (
    HOOKS,
    Bench,
    Counts,
    Lab,
    Run,
    Service,
    demand,
    lines_of,
    save_lines,
    verify,
    whole_lines,
)
from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from pathlib import Path

BIG = "size=64m"


class SmallDisk:
    """A file system of our own, in memory; where mounting is not allowed, a limit on file sizes."""

    def __init__(self, lab: Lab, folder: Path, size: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self.size = folder, size
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "chaos", str(folder)]
        self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        if self.mounted:
            lab.stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
        lab.counts.note(real_disks=int(self.mounted), size_limits=int(not self.mounted))

    @property
    def env(self) -> dict[str, str]:
        """Return what limits a run where the disk itself does not."""
        if self.mounted:
            return {}
        return {"PYTHONPATH": str(HOOKS), "CHAOS_FSIZE": str(self.size)}

    def grow(self) -> None:
        """Make room."""
        if self.mounted:
            subprocess.run(["mount", "-o", f"remount,{BIG}", str(self.folder)], check=True)


def full_log(lab: Lab) -> None:
    """Let the disk of the log fill up; what was not written is on standard error."""
    for number in range(lab.size(6, 1)):
        service = lab.service("--latency=0.02", "--jitter=0.9", "--asset-rate=0.2")
        bench = lab.bench(f"log{number}", service)
        disk = SmallDisk(lab, bench.folder / "small", lab.rand.randrange(60_000, 200_000))
        bench.out = disk.folder / "out.jsonl"
        lines = _lines(lab, bench, 150)
        run = bench.run("-f", env=disk.env).expect(4)
        _all_kept(lab, service, bench, run)
        disk.grow()
        _bring_back(bench, run)
        _go_on(lab, service, bench, lines)


def full_at_the_end(lab: Lab) -> None:
    """Let the disk fill up while the ordered output or a snapshot is written."""
    for number in range(lab.size(6, 2)):
        service = lab.service("--latency=0.02", "--jitter=0.9", "--asset-rate=0.2")
        snapshots = number % 2 == 1
        bench = lab.bench(f"end{number}", service, *(["-v=0.001"] if snapshots else ["-r=false"]))
        trial = lab.bench(f"trial{number}", lab.service())
        lines = _lines(lab, trial, 60)
        trial.run().expect(0)
        size = trial.out.stat().st_size
        disk = SmallDisk(lab, bench.folder / "small", int(size * (2.2 if snapshots else 1.9)))
        bench.out = disk.folder / "out.jsonl"
        for path in trial.folder.iterdir():
            if path.suffix in (".png", ".txt", ".jsonl") and path != trial.out:
                shutil.copy2(path, bench.folder)
        run = bench.run("-f", env=disk.env).expect(4, 0)
        lab.counts.note(stopped=int(run.code == 4), finished=int(run.code == 0))
        _all_kept(lab, service, bench, run)
        disk.grow()
        _bring_back(bench, run)
        _go_on(lab, service, bench, lines)


def full_downloads(lab: Lab) -> None:
    """Let the disk of the downloads fill up: answers are kept, and only files fetched again."""
    for number in range(lab.size(4, 1)):
        service = lab.service("--latency=0.02", "--asset-rate=0.6", "--asset-size=60000")
        bench = lab.bench(f"files{number}", service)
        disk = SmallDisk(lab, bench.folder / "small", lab.rand.randrange(200_000, 900_000))
        if not disk.mounted:
            return  # a limit for each file does not fill a disk with many
        bench.downloads = disk.folder / "downloads"
        lines = _lines(lab, bench, 60)
        run = bench.run("-f").expect(4)
        _all_kept(lab, service, bench, run)
        demand(not list(bench.downloads.glob("*.part")), "a part was left on the full disk")
        disk.grow()
        _go_on(lab, service, bench, lines)


def folder_gone(lab: Lab) -> None:
    """Remove the output's folder while the run is on."""
    for number in range(lab.size(10, 2)):
        service = lab.service("--latency=0.05", "--jitter=0.9")
        bench = lab.bench(f"gone{number}", service)
        bench.out = bench.folder / "results" / "out.jsonl"
        lines = _lines(lab, bench, 60)
        process = bench.start("-f")
        demand(bench.began(process), "the run ended too soon")
        time.sleep(lab.rand.uniform(0, 0.3))
        shutil.rmtree(bench.out.parent)
        run = bench.end(process).expect(4)
        _all_kept(lab, service, bench, run)
        bench.out.parent.mkdir(exist_ok=True)
        _bring_back(bench, run)
        _go_on(lab, service, bench, lines)


def read_only(lab: Lab) -> None:
    """Offer an output, and a download folder, that cannot be written: nothing may be called."""
    service = lab.service("--asset-rate=0.5")
    for place in ("results", "downloads"):
        bench = lab.bench(f"ro-{place}", service)
        folder = bench.folder / place
        folder.mkdir()
        if place == "results":
            bench.out = folder / "out.jsonl"
        _lines(lab, bench, 5)
        if not _closed(lab, folder):
            lab.counts.note(skipped=1)
            continue
        bench.run("-f").expect(4)
        demand(service.stats()["arrivals"] == 0, "called before the output was tried")
        lab.counts.note(refused=1)


def _closed(lab: Lab, folder: Path) -> bool:
    """Make a folder read-only even for root."""
    if os.geteuid():
        folder.chmod(0o500)
        lab.stack.callback(folder.chmod, 0o700)
        return True
    bind = ["mount", "--bind", str(folder), str(folder)]
    if subprocess.run(bind, capture_output=True, check=False).returncode:
        return False
    lab.stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
    again = ["mount", "-o", "remount,ro,bind", str(folder)]
    return subprocess.run(again, capture_output=True, check=False).returncode == 0


def _lines(lab: Lab, bench: Bench, number: int) -> list[dict[str, Any]]:
    lines = lines_of(bench.folder, number, lab.rand)
    save_lines(bench.input, lines)
    return lines


def _rescued(run: Run) -> list[bytes]:
    return [line for line in run.errors.split(b"\n") if line.startswith(b'{"id"')]


def _all_kept(lab: Lab, service: Service, bench: Bench, run: Run) -> None:
    """Demand that every answer the service gave is in the log or on standard error."""
    rescued = _rescued(run)
    texts = bench.out.read_bytes().split(b"\n") if bench.out.exists() else []
    best: dict[bytes, int] = {}
    for line in whole_lines([*texts, *rescued]):
        key = rawjson.dumps(line["asks"])
        best[key] = max(best.get(key, 0), len(line["answers"] or ()))
    answered = service.stats()["chats_answered"]
    kept = sum(best.values())
    demand(kept == answered, f"{answered} asks answered, {kept} kept:", run.errors[-2000:])
    lab.counts.note(stops=1, kept=kept, rescued=len(rescued))


def _bring_back(bench: Bench, run: Run) -> None:
    """Do what the user would: append what standard error holds to the output."""
    if rescued := _rescued(run):
        with bench.out.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in rescued))


def _go_on(lab: Lab, service: Service, bench: Bench, lines: list[dict[str, Any]]) -> None:
    bench.run("-f").expect(0)
    counts = Counts()
    verify(bench, lines, counts)
    lab.counts.update(counts)
    twice = service.stats()["answered_twice"]["count"]
    demand(twice == 0, f"{twice} asks paid twice")
    lab.counts.note(asked_twice=twice)
