"""OpenAI batch files, and tokens a minute."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import data, services
from benchmarks.bench import Bench, Figure, row
from benchmarks.measure import interleaved, median, ratio
from benchmarks.rows_cost import MICRO, marginal


@row("batch-file", short=True)
def batch_file(bench: Bench) -> Iterator[Figure]:
    """CPU per line of a batch file over that of the same asks in the same round."""
    lines = 5_000 if bench.short else 100_000
    with services.instant() as service:
        flags = ("-u", f"{service.origin}/v1", "-m", "gpt-4")
        inputs = {
            "asks": (bench.questions(lines), bench.questions(1)),
            "batch file": tuple(
                data.requests(bench.folder / f"batch-{count}.jsonl", count) for count in (lines, 1)
            ),
        }
        found = interleaved(
            {
                name: lambda source=source: bench.batch(source, service, lines, *flags)
                for name, (source, _) in inputs.items()
            },
            3,
        )
        starts = {name: bench.batch(one, service, 1, *flags) for name, (_, one) in inputs.items()}
    bare = [[marginal(s, starts[name], lines) for s in samples] for name, samples in found.items()]
    for name, cpu in zip(found, bare, strict=True):
        yield Figure("batch-file", f"{name}: CPU per line", median(cpu) * MICRO, "µs")
    yield Figure("batch-file", "CPU per line", ratio(bare[1], bare[0]), "× asks", "batch.cpu")


@row("tpm")
def tpm(bench: Bench) -> Iterator[Figure]:
    """--tpm against a service that allows as many tokens in any minute: used of it, refused.

    What is used is that of the whole minutes after the first.
    """
    lines, most = 800, 60_000
    with services.target(tpm=most, latency=2, spread=0.8) as service:
        flags = ("-u", f"{service.origin}/v1", "-m", "gpt-4", "--tpm", str(most))
        bench.batch(bench.questions(lines), service, lines, *flags)
        arrivals, codes, tokens = service.arrivals(), service.codes(), service.tokens()
    answered = [at for at, code in zip(arrivals, codes, strict=True) if code == 200]
    calls = list(zip(answered, tokens, strict=True))
    began = answered[0] + 60
    minutes = int((answered[-1] - began) / 60)
    later = [took for at, took in calls if began < at <= began + 60 * minutes]
    used = sum(later) / minutes / most
    note = f"{sum(later):,} tokens in {minutes} minutes"
    yield Figure("tpm", "tokens a minute", used, "× --tpm", "tpm.used", note)
    yield Figure("tpm", "calls refused", codes.count(429), "", "tpm.refused")
