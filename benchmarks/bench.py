"""The bench: where rows are registered, and what rows share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import data, measure, services
from benchmarks.contenders import Product, floor
from benchmarks.measure import Sample
from benchmarks.services import Service

MB = 1e6


@dataclass(frozen=True, slots=True)
class Figure:
    """One value of the table; `key` names its target."""

    row: str
    what: str
    value: float
    unit: str
    key: str = ""
    note: str = ""


@dataclass
class Bench:
    """One session of measurements."""

    product: Product
    folder: Path
    results: Path
    rounds: int
    short: bool
    full: bool
    inputs: dict[tuple[int, int, int], Path] = field(default_factory=dict)
    runs: int = 0

    def questions(self, count: int, *, asks: int = 1, padding: int = 0) -> Path:
        """Return an input of `count` lines, written once."""
        key = (count, asks, padding)
        if key not in self.inputs:
            path = self.folder / f"in-{count}-{asks}-{padding}.jsonl"
            self.inputs[key] = data.questions(path, count, asks=asks, padding=padding)
        return self.inputs[key]

    def forget(self, source: Path) -> None:
        """Delete an input that is too large to keep."""
        source.unlink()
        self.inputs = {key: path for key, path in self.inputs.items() if path != source}

    @contextmanager
    def place(self) -> Iterator[Path]:
        """Lend a folder for one run."""
        self.runs += 1
        folder = self.folder / f"run-{self.runs}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def floor(self, source: Path, service: Service, lines: int) -> Sample:
        """Run the floor over an input."""
        with self.place() as folder:
            sample = measure.run(floor(source, folder / "out.jsonl", service))
            expect(folder / "out.jsonl", lines)
            return sample

    def batch(
        self,
        source: Path,
        service: Service,
        lines: int,
        *flags: str,
        qps: float = 0,
        pty: bool = False,
        log: Path | None = None,
    ) -> Sample:
        """Run the product over an input and check that every line came out answered.

        Args:
            source: the input.
            service: what is called.
            lines: how many lines the output has to have.
            flags: more flags; `--progress` is for the absence of `--quiet`.
            qps: calls a second.
            pty: give it a terminal.
            log: an output that is there before; it is moved, for the run replaces it.
        """
        with self.place() as folder:
            out = folder / "out.jsonl"
            if log is not None:
                log.rename(out)
            command = self.product.batch(source, out, service, *flags, qps=qps)
            sample = measure.run(command, pty=pty)
            expect(out, lines)
            return sample


def expect(out: Path, lines: int) -> None:
    """Refuse an output in which lines are missing or failed."""
    found = failed = 0
    with out.open("rb") as file:
        for raw in file:
            found += 1
            failed += b'"iErr":{' in raw
    if found != lines or failed:
        raise measure.CommandError(f"{found} of {lines} lines came out, {failed} of them failed")


Row = Callable[[Bench], Iterator[Figure]]


@dataclass(frozen=True, slots=True)
class Registered:
    """A row: what it measures, whether it needs the product, whether a short run has it."""

    measure: Row
    about: str
    product: bool
    short: bool


ROWS: dict[str, Registered] = {}


def row(name: str, *, product: bool = True, short: bool = False) -> Callable[[Row], Row]:
    """Register a row; its docstring says what it measures."""

    def register(function: Row) -> Row:
        about = (function.__doc__ or "").strip().split("\n")[0]
        ROWS[name] = Registered(function, about, product, short)
        return function

    return register


def why_not(bench: Bench) -> str:
    """Return why the product cannot be measured, or nothing where it can."""
    try:
        with services.instant() as service:
            bench.batch(bench.questions(1), service, 1)
    except (measure.CommandError, OSError) as error:
        return str(error)
    return ""
