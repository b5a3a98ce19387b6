from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gpt4batch.cli.metrics import served
from gpt4batch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from conftest import Bench

    from gpt4batch.batch.progress import Progress
    from gpt4batch.batch.status import Status
    from gpt4batch.mock.server import MockService


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_figures_of_a_run_can_be_read_while_it_is_on(
    bench: Bench, serving: Callable[..., MockService]
) -> None:
    bench.write(*[bench.line(n, "x [[mock:400*9]]" if n == 3 else "x") for n in range(8)])
    found: dict[str, float] = {}
    port = free_port()

    def read() -> str:
        return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text

    with served(port, "127.0.0.1") as metrics:

        async def show(progress: Progress, look: Callable[[], Status]) -> None:
            metrics.watch(progress, look)
            while progress.done < 3:
                await anyio.sleep(0.01)
            text = await anyio.to_thread.run_sync(read)
            for family in text_string_to_metric_families(text):
                found.update({item.name: item.value for item in family.samples})

        async with serving(latency=0.1, jitter=0.0) as service:
            import gpt4batch

            settings = bench.settings(service.origin, goroutine=2)
            await gpt4batch.run(settings, show=show)
    assert found["gpt4batch_lines"] == 8
    assert 3 <= found["gpt4batch_lines_done_total"] < 8
    assert found["gpt4batch_chats_total"] >= 3
    assert found["gpt4batch_answer_seconds_count"] >= 3
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port)).close()


async def test_port_in_use_is_refused_before_the_first_call(
    bench: Bench, service: MockService
) -> None:
    bench.write(bench.line(1, "x"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = bench.batchsvc(service.origin, "--metrics-port", str(port))
        result = await bench.call(*words)
    assert result.code == 2
    assert result.last.startswith(f"gpt4batch: --metrics-port {port} on 127.0.0.1: Address already")
    assert service.stats.arrivals == 0


def test_missing_library_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, Any] = sys.modules
    monkeypatch.setitem(modules, "prometheus_client", None)
    with pytest.raises(UsageError, match=r"pip install 'gpt4batch\[metrics\]'"), served(1, ""):
        pass
