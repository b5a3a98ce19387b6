"""What a line costs: beside the floor and the peers, by size, by feature, and before the first."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks import data, services
from benchmarks.bench import MB, Bench, Figure, row
from benchmarks.contenders import HERE, PEERS, Peer
from benchmarks.measure import Sample, interleaved, median, ratio, run
from benchmarks.services import Service

MICRO = 1e6
NEAR = 5_000


def peer_run(bench: Bench, peer: Peer, service: Service, lines: int) -> Sample:
    """Run a peer over that many lines."""
    source = bench.questions(lines)
    if peer.plain_prompts:
        source = data.prompts(bench.folder / f"prompts-{lines}.jsonl", lines)
    with bench.place() as folder:
        return run(peer.command(source, folder / "out.jsonl", service))


def marginal(sample: Sample, start: Sample, lines: int) -> float:
    """Return the CPU seconds of a line without those of starting."""
    return (sample.cpu - start.cpu) / (lines - 1)


@row("floor", product=False)
def floor_alone(bench: Bench) -> Iterator[Figure]:
    """The floor and the peers: CPU per line and lines a second, without the product."""
    lines = 20_000
    with services.instant() as service:
        peers = [peer for peer in PEERS if importlib.util.find_spec(peer.needs)]
        cases: dict[str, Callable[[], Sample]] = {
            "floor": lambda: bench.floor(bench.questions(lines), service, lines)
        }
        for peer in peers:
            cases[peer.name] = lambda peer=peer: peer_run(bench, peer, service, peer.lines)
        starts = {peer.name: peer_run(bench, peer, service, 1) for peer in peers}
        starts["floor"] = bench.floor(bench.questions(1), service, 1)
        found = interleaved(cases, bench.rounds)
    counts = {"floor": lines} | {peer.name: peer.lines for peer in peers}
    base = [marginal(s, starts["floor"], lines) for s in found["floor"]]
    for name, samples in found.items():
        each = [marginal(s, starts[name], counts[name]) for s in samples]
        rate = [counts[name] / (s.wall - starts[name].wall) for s in samples]
        yield Figure(
            "floor", f"{name}: CPU per line", median(each) * MICRO, "µs", note=service.kind
        )
        yield Figure("floor", f"{name}: CPU per line", ratio(each, base), "× the floor")
        yield Figure("floor", f"{name}: lines a second", median(rate), "/s")
        yield Figure("floor", f"{name}: memory", median(s.memory for s in samples) / MB, "MB")


@row("cost", short=True)
def cost(bench: Bench) -> Iterator[Figure]:
    """CPU per line and lines a second over the floor's in the same round, whole processes."""
    lines = 5_000 if bench.short else 20_000
    source = bench.questions(lines)
    with services.instant() as service:
        found = interleaved(
            {
                "floor": lambda: bench.floor(source, service, lines),
                "product": lambda: bench.batch(source, service, lines),
            },
            bench.rounds,
        )
        starts = {
            "floor": bench.floor(bench.questions(1), service, 1),
            "product": bench.batch(bench.questions(1), service, 1),
        }
    base, ours = found["floor"], found["product"]
    cpu = [[s.cpu / lines for s in samples] for samples in (base, ours)]
    bare = [[marginal(s, starts[name], lines) for s in samples] for name, samples in found.items()]
    rate = [[lines / s.wall for s in samples] for samples in (base, ours)]
    key = "" if bench.short else "cost.cpu"
    yield Figure("cost", "floor: CPU per line", median(cpu[0]) * MICRO, "µs", note=service.kind)
    yield Figure("cost", "CPU per line", median(cpu[1]) * MICRO, "µs")
    yield Figure("cost", "CPU per line", ratio(cpu[1], cpu[0]), "× the floor", key)
    key = "cost.cpu" if bench.short else ""
    yield Figure(
        "cost", "CPU per line, start-up left out", ratio(bare[1], bare[0]), "× the floor", key
    )
    yield Figure("cost", "floor: lines a second", median(rate[0]), "/s")
    yield Figure("cost", "lines a second", median(rate[1]), "/s")
    yield Figure("cost", "lines a second", ratio(rate[1], rate[0]), "× the floor", "cost.rate")
    memory = ratio([s.memory for s in ours], [s.memory for s in base])
    yield Figure("cost", "memory", memory, "× the floor", "memory.floor")


@row("tls")
def tls(bench: Bench) -> Iterator[Figure]:
    """CPU per line over the floor's in the same round, both over TLS; start-up left out."""
    lines = 20_000
    source, one = bench.questions(lines), bench.questions(1)
    with services.instant(tls=True) as service:
        found = interleaved(
            {
                "floor": lambda: bench.floor(source, service, lines),
                "product": lambda: bench.batch(source, service, lines),
            },
            bench.rounds,
        )
        starts = {
            "floor": bench.floor(one, service, 1),
            "product": bench.batch(one, service, 1),
        }
    bare = [[marginal(s, starts[name], lines) for s in samples] for name, samples in found.items()]
    yield Figure("tls", "floor: CPU per line", median(bare[0]) * MICRO, "µs")
    yield Figure("tls", "CPU per line", median(bare[1]) * MICRO, "µs")
    yield Figure("tls", "CPU per line", ratio(bare[1], bare[0]), "× the floor", "cost.tls")


@row("clients")
def clients(bench: Bench) -> Iterator[Figure]:
    """CPU per call of HTTP clients by themselves, plain and over TLS, all threads counted."""
    script = HERE / "peers" / "clients.py"
    for kind, tls in (("plain", False), ("TLS", True)):
        with services.instant(tls=tls) as service:

            def calls_by(name: str, calls: int, url: str = service.chat) -> Sample:
                return run([sys.executable, script, name, url, str(calls)])

            counts = {"aiohttp": 12_000, "pyreqwest": 12_000, "wreq": 12_000, "httpx": 1_000}
            found = interleaved(
                {name: partial(calls_by, name, calls) for name, calls in counts.items()},
                min(bench.rounds, 3),
            )
            cost = {
                name: [marginal(sample, calls_by(name, 1), counts[name]) for sample in samples]
                for name, samples in found.items()
            }
        for name, values in cost.items():
            yield Figure("clients", f"{name}, {kind}: CPU per call", median(values) * MICRO, "µs")


@row("openai", short=True)
def openai(bench: Bench) -> Iterator[Figure]:
    """CPU per line of the second dialect over the first's in the same round, start-up left out."""
    lines = 5_000 if bench.short else 20_000
    source, one = bench.questions(lines), bench.questions(1)
    with services.instant() as service:
        flags = {"gpt4api": (), "openai": ("-u", f"{service.origin}/v1", "-m", "gpt-4")}
        found = interleaved(
            {
                name: lambda more=more: bench.batch(source, service, lines, *more)
                for name, more in flags.items()
            },
            bench.rounds,
        )
        starts = {name: bench.batch(one, service, 1, *more) for name, more in flags.items()}
    bare = [[marginal(s, starts[name], lines) for s in samples] for name, samples in found.items()]
    for name, cpu in zip(found, bare, strict=True):
        yield Figure("openai", f"{name}: CPU per line", median(cpu) * MICRO, "µs")
    yield Figure("openai", "CPU per line", ratio(bare[1], bare[0]), "× gpt4api", "openai.cpu")


@row("startup", short=True)
def startup(bench: Bench) -> Iterator[Figure]:
    """CPU of `--help` and of a run of one line."""
    with services.instant() as service:
        one = bench.questions(1)
        cases: dict[str, Callable[[], Sample]] = {
            "python": lambda: run([sys.executable, "-c", "pass"]),
            "import typer": lambda: run([sys.executable, "-c", "import typer, typer.main"]),
            "--help": lambda: run([bench.product.program, "--help"]),
            "batchsvc --help": lambda: run([bench.product.program, "batchsvc", "--help"]),
            "floor, one line": lambda: bench.floor(one, service, 1),
            "one line": lambda: bench.batch(one, service, 1),
        }
        found = interleaved(cases, bench.rounds + 2)
    for name, samples in found.items():
        key = "startup.help" if name == "--help" else ""
        yield Figure("startup", f"{name}: CPU", median(s.cpu for s in samples), "s", key)
        if name.endswith("one line"):
            yield Figure("startup", f"{name}: wall", median(s.wall for s in samples), "s")
    over = ratio([s.cpu for s in found["--help"]], [s.cpu for s in found["import typer"]])
    yield Figure("startup", "--help: CPU", over, "× importing typer", "startup.typer")


@row("size", short=True)
def size(bench: Bench) -> Iterator[Figure]:
    """Cost per line and peak memory from 1,000 to 1,000,000 lines: both have to stay flat."""
    sizes = (1_000, 2_000, 10_000) if bench.short else (1_000, 10_000, 20_000, 100_000, 1_000_000)
    reference = 2_000 if bench.short else 10_000
    costs, memory = {}, {}
    with services.instant() as service:
        start = bench.batch(bench.questions(1), service, 1)
        empty = bench.floor(bench.questions(1), service, 1)
        for lines in sizes:
            ours, near = sized(bench, service, lines)
            each = [marginal(s, start, lines) for s in ours]
            costs[lines] = ratio(each, [marginal(s, empty, NEAR) for s in near])
            memory[lines] = median(s.memory for s in ours) / MB
            key = {20_000: "memory.20k", 1_000_000: "memory.1m"}.get(lines, "")
            yield Figure("size", f"{lines:,} lines: CPU per line", median(each) * MICRO, "µs")
            yield Figure("size", f"{lines:,} lines: CPU per line", costs[lines], "× the floor")
            yield Figure("size", f"{lines:,} lines: memory", memory[lines], "MB", key)
    growth = costs[sizes[-1]] / costs[reference]
    what = f"CPU per line, {sizes[-1]:,} over {reference:,} lines"
    yield Figure("size", what, growth, "×", "growth.cpu")
    what = f"memory, {sizes[-1]:,} over {sizes[0]:,} lines"
    yield Figure("size", what, memory[sizes[-1]] / memory[sizes[0]], "×", "memory.flat")


def sized(bench: Bench, service: Service, lines: int) -> tuple[list[Sample], list[Sample]]:
    """Run the product at one size, and the floor over a few lines just before each run."""
    rounds = bench.rounds if lines <= 20_000 else 1
    source, near = bench.questions(lines), bench.questions(NEAR)
    found = interleaved(
        {
            "floor": lambda: bench.floor(near, service, NEAR),
            "product": lambda: bench.batch(source, service, lines),
        },
        rounds,
    )
    return found["product"], found["floor"]


@row("features")
def features(bench: Bench) -> Iterator[Figure]:
    """What each feature costs: CPU per call over a plain run in the same round."""
    lines = 10_000
    plain, several = bench.questions(lines), bench.questions(lines // 4, asks=4)
    log = str(bench.folder / "debug.log")
    with services.instant() as service:

        def batch(*flags: str, pty: bool = False) -> Callable[[], Sample]:
            return lambda: bench.batch(plain, service, lines, *flags, pty=pty)

        found = interleaved(
            {
                "plain": batch(),
                "snapshot every second (-r -v 0.0167)": batch("-r", "-v", "0.0167"),
                "four asks a line": lambda: bench.batch(several, service, lines // 4),
                "--log-level debug": batch("--log-level", "debug", "--log-file", log),
                "progress on a terminal": batch("--progress", pty=True),
                "progress lines": batch("--progress", "--progress-interval", "1"),
                "--fsync always": batch("--fsync", "always"),
            },
            bench.rounds,
        )
    base = found.pop("plain")
    for name, samples in found.items():
        cpu = ratio([s.cpu for s in samples], [s.cpu for s in base])
        wall = ratio([s.wall for s in samples], [s.wall for s in base])
        yield Figure("features", f"{name}: CPU", cpu, "× plain")
        yield Figure("features", f"{name}: wall", wall, "× plain")
