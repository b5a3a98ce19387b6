"""Uploads and downloads of 1 GB beside a plain aiohttp copy."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

from benchmarks import data, measure, services
from benchmarks.bench import MB, Bench, Figure, row
from benchmarks.contenders import HERE, Command
from benchmarks.measure import Sample, interleaved, median, ratio

MIB = 1 << 20
SIZE, COUNT = 100 * MIB, 10


def compared(row_name: str, found: dict[str, list[Sample]]) -> Iterator[Figure]:
    """Yield speed and memory of both, and the speed over the floor's."""
    total = SIZE * COUNT
    speed = {name: [total / s.wall / MB for s in samples] for name, samples in found.items()}
    for name, samples in found.items():
        label, key = ("floor: ", "") if name == "floor" else ("", "files.memory")
        yield Figure(row_name, f"{label}speed", median(speed[name]), "MB/s")
        yield Figure(row_name, f"{label}CPU", median(s.cpu for s in samples), "s per GB")
        memory = median(s.memory for s in samples) / MB
        yield Figure(row_name, f"{label}memory", memory, "MB", key)
    if "product" in found:
        over = ratio(speed["product"], speed["floor"])
        yield Figure(row_name, "speed", over, "× a plain copy", "files.speed")


@row("upload")
def upload(bench: Bench) -> Iterator[Figure]:
    """1 GB in files of 100 MiB up to a service that counts the bytes and drops them."""
    files = [data.zeros(bench.folder / "file-0.bin", SIZE)]
    for k in range(1, COUNT):
        files.append(bench.folder / f"file-{k}.bin")
        os.link(files[0], files[-1])
    source = data.linked(bench.folder / "uploads.jsonl", files)
    with services.target() as service:
        script: Command = [sys.executable, HERE / "floor.py", "upload", service.upload, *files]

        def counted(job: Callable[[], Sample]) -> Sample:
            service.reset()
            sample = job()
            took = service.counts()
            if took["uploads"] != COUNT or took["uploaded"] < SIZE * COUNT:
                raise measure.CommandError(f"not every byte was uploaded: {took}")
            return sample

        found = interleaved(
            {
                "floor": lambda: counted(lambda: measure.run(script)),
                "product": lambda: counted(lambda: bench.batch(source, service, COUNT)),
            },
            bench.rounds,
        )
    yield from compared("upload", found)


@row("download")
def download(bench: Bench) -> Iterator[Figure]:
    """1 GB in files of 100 MiB down to the disk."""
    source = bench.questions(COUNT)
    with services.target(file_size=SIZE) as service:

        def plain() -> Sample:
            with bench.place() as folder:
                links = [f"{service.origin}/files/{k}.bin" for k in range(COUNT)]
                return measure.run([sys.executable, HERE / "floor.py", "download", folder, *links])

        def product() -> Sample:
            with bench.place() as folder:
                flags = ("--allow-private-downloads", "-d", str(folder))
                sample = bench.batch(source, service, COUNT, *flags)
                sizes = [item.stat().st_size for item in folder.iterdir()]
                if sizes != [SIZE] * COUNT:
                    raise measure.CommandError(f"not every file came down whole: {sizes}")
                return sample

        plain()  # the first gigabyte written pays for the machine's memory, whoever writes it
        found = interleaved({"floor": plain, "product": product}, bench.rounds)
    yield from compared("download", found)
