"""The counters of a run for Prometheus: read when they are asked for, so that they cost nothing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gpt4batch.errors import UsageError
from gpt4batch.words import because, tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpt4batch.batch.progress import Progress
    from gpt4batch.batch.status import Status
    from gpt4batch.histogram import Histogram

EDGES = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)
"""Seconds up to which answers are counted together."""


class Metrics:
    """A collector: what the display shows, under names for Prometheus.

    It has nothing to tell until `watch` has given it a run.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._run: tuple[Progress, Callable[[], Status]] | None = None

    def watch(self, progress: Progress, look: Callable[[], Status]) -> None:
        """Tell of a run from here on."""
        self._run = (progress, look)

    def collect(self) -> Iterator[Any]:
        """Yield every figure as it is at this moment."""
        if self._run is None:
            return
        progress, look = self._run
        core, now = self._library, look()
        calls = now.calls
        gauges = {
            "lines": ("Lines of the input.", progress.total),
            "lines_left": ("Lines of this run that are not finished.", progress.left),
            "calls_in_flight": ("Calls without a reply yet.", calls.in_flight),
            "longest_call_seconds": ("Age of the oldest call in flight.", calls.longest),
            "rate_limit": ("Calls a second that may leave now; 0: no limit.", now.pace),
            "cooling_seconds": ("How long the service asked to wait.", now.cooling),
        }
        counters = {
            "lines_done": (
                "Lines done, those of earlier runs too.",
                progress.done_before + progress.done,
            ),
            "lines_failed": ("Lines that failed.", progress.failed),
            "chats": ("Chat calls, tries again included.", progress.chats),
            "retries": ("Calls that were tried again.", progress.retries),
            "calls": ("Calls to the service, uploads included.", calls.calls),
        }
        for kind, value in progress.usage._asdict().items() if progress.usage.total else ():
            counters[f"tokens_{kind}"] = (f"Tokens that answers told of: {kind}.", value)
        if now.fetching is not None:
            counters["downloads"] = ("Files downloaded.", calls.downloads)
        if now.messages is not None:
            counters["nsq_published"] = ("Messages that nsqd took.", now.messages.sent)
            gauges["nsq_waiting"] = ("Messages that wait for nsqd.", now.messages.left)
        for name, (text, value) in gauges.items():
            yield core.GaugeMetricFamily(f"gpt4batch_{name}", text, value=value)
        for name, (text, value) in counters.items():
            yield core.CounterMetricFamily(f"gpt4batch_{name}", text, value=value)
        yield self._answers(progress.seconds)

    def _answers(self, times: Histogram) -> Any:
        buckets = [(f"{edge:g}", count) for edge, count in times.up_to(EDGES)]
        return self._library.HistogramMetricFamily(
            "gpt4batch_answer_seconds",
            "How long answers took.",
            buckets=[*buckets, ("+Inf", times.count)],
            sum_value=times.total,
        )


@contextmanager
def served(port: int, address: str) -> Iterator[Metrics]:
    """Serve figures on a port; yield what collects them.

    Raises:
        UsageError: The library is missing, or the port cannot be had.
    """
    try:
        import prometheus_client
        from prometheus_client import core
    except ImportError:
        raise UsageError(
            tr("--metrics-port needs the Prometheus client: pip install 'gpt4batch[metrics]'")
        ) from None
    registry = prometheus_client.CollectorRegistry()
    metrics = Metrics(core)
    registry.register(metrics)
    try:
        server, thread = prometheus_client.start_http_server(port, address, registry)
    except OSError as error:
        reason = because(error)
        raise UsageError(
            tr(
                "--metrics-port {port} on {address}: {reason}",
                port=port,
                address=address,
                reason=reason,
            )
        ) from None
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
