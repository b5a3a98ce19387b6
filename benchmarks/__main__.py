"""Run the rows, print the table, say which targets are met: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import orjson

from benchmarks import (
    rows_batch,
    rows_cost,
    rows_files,
    rows_fleet,
    rows_pace,
    rows_scale,
    rows_simulation,
)
from benchmarks.bench import ROWS, Bench, Figure, why_not
from benchmarks.contenders import HERE, Product
from benchmarks.measure import CommandError
from benchmarks.targets import TARGETS

__all__ = [
    "rows_batch",
    "rows_cost",
    "rows_files",
    "rows_fleet",
    "rows_pace",
    "rows_scale",
    "rows_simulation",
]  # they register their rows


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", help=f"only these, with commas: {', '.join(ROWS)}")
    parser.add_argument("--short", action="store_true", help="under two minutes, wider limits")
    parser.add_argument(
        "--full", action="store_true", help="25 GB where 2 GB would do: lines of 5 MB"
    )
    parser.add_argument("--rounds", type=int, help="how often each contender runs (5; short 3)")
    parser.add_argument("--folder", help="where to work: 10 GB free, 80 GB with --full")
    program = Path(sys.executable).with_name("gpt4batch")
    parser.add_argument("--program", type=Path, default=program, help="the gpt4batch to measure")
    options = parser.parse_args()
    options.program = options.program.absolute()  # some rows run elsewhere
    return options


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def verdict(figure: Figure, short: bool) -> tuple[str, str]:
    """Return a figure's target and whether it is met, as words."""
    if figure.key not in TARGETS:
        return "", ""
    target = TARGETS[figure.key]
    met = target.met(figure.value, short)
    return target.text(short), {True: "met", False: "NOT met", None: ""}[met]


def table(figures: list[Figure], short: bool) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| row | what | value | target | |", "| --- | --- | --- | --- | --- |"]
    for figure in figures:
        value = f"{number(figure.value)} {figure.unit}" + (
            f" ({figure.note})" if figure.note else ""
        )
        limit, word = verdict(figure, short)
        lines.append(f"| {figure.row} | {figure.what} | {value} | {limit} | {word} |")
    return "\n".join(lines) + "\n"


def machine() -> dict[str, str]:
    """Return what the figures were measured on."""
    cpu = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else ""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "uvloop", "orjson"))
    return {
        "cpu": f"{os.cpu_count()} × {cpu or platform.machine()}",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "libraries": libraries,
        "date": time.strftime("%Y-%m-%d"),
    }


def chosen(options: argparse.Namespace) -> list[str]:
    if not options.rows:
        return [name for name, row in ROWS.items() if row.short or not options.short]
    names = str(options.rows).split(",")
    unknown = set(names) - set(ROWS)
    if unknown:
        sys.exit(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    return names


def measured(bench: Bench, names: list[str]) -> tuple[list[Figure], dict[str, str]]:
    """Run the rows; a row that cannot be measured is named with its reason."""
    figures: list[Figure] = []
    failed: dict[str, str] = {}
    reason = why_not(bench) if any(ROWS[name].product for name in names) else ""
    for name in names:
        if reason and ROWS[name].product:
            failed[name] = reason
            continue
        print(f"{name}: {ROWS[name].about}", file=sys.stderr)
        began = time.monotonic()
        try:
            for figure in ROWS[name].measure(bench):
                figures.append(figure)
                limit, word = verdict(figure, bench.short)
                text = f"  {figure.what}: {number(figure.value)} {figure.unit} {figure.note}"
                print(text, limit, word, file=sys.stderr)
        except (CommandError, OSError) as error:
            failed[name] = str(error)
        print(f"  took {time.monotonic() - began:.0f} s", file=sys.stderr)
        report(bench, figures, failed)  # a run that is broken off has written what it found
    return figures, failed


def report(bench: Bench, figures: list[Figure], failed: dict[str, str]) -> str:
    """Write the results as JSON and Markdown; return the Markdown."""
    about = machine()
    text = table(figures, bench.short)
    if failed:
        text += "\nNot measured:\n\n"
        text += "".join(f"- {name}: {why.splitlines()[0]}\n" for name, why in failed.items())
    text += "\n" + " · ".join(about.values()) + "\n"
    rows = [
        {name: getattr(figure, name) for name in Figure.__slots__}
        | dict(zip(("target", "verdict"), verdict(figure, bench.short), strict=True))
        for figure in figures
    ]
    found = {"machine": about, "short": bench.short, "figures": rows, "failed": failed}
    bench.results.mkdir(exist_ok=True)
    (bench.results / "latest.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    (bench.results / "latest.md").write_text(text, encoding="utf-8")
    return text


def main() -> int:
    options = parsed()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that services and files are removed
    rounds = options.rounds or (3 if options.short else 5)
    with tempfile.TemporaryDirectory(prefix="gpt4batch-bench-", dir=options.folder) as folder:
        bench = Bench(
            product=Product(options.program),
            folder=Path(folder),
            results=HERE / "results",
            rounds=rounds,
            short=options.short,
            full=options.full,
        )
        figures, failed = measured(bench, chosen(options))
    print(report(bench, figures, failed))
    for name, why in failed.items():
        print(f"{name}: {why}", file=sys.stderr)
    missed = any(verdict(figure, options.short)[1] == "NOT met" for figure in figures)
    return 1 if missed or failed else 0


if __name__ == "__main__":
    sys.exit(main())
