"""A service that fails: in every way at once, for half a minute, with a token that ends, slowly."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

from chaos.lab import (
    Lab,
    Service,
    answers_in,
    demand,
    lines_of,
    read_lines,
    save_lines,
    verify,
)

MIXED = (
    "--rate-limit-rate=0.10",
    "--retry-after=0.05",
    "--error-rate=0.05",
    "--reset-rate=0.03",
    "--cut-rate=0.02",
    "--garbage-rate=0.02",
    "--hang-rate=0.01",
    "--asset-rate=0.3",
    "--asset-size=50000",
    "--asset-error-rate=0.1",
    "--asset-cut-rate=0.1",
)


class Gate:
    """A door in front of a service, which can be shut: connections are then refused."""

    def __init__(self, origin: str) -> None:
        parts = urlsplit(origin)
        self._target = (parts.hostname or "", parts.port or 0)
        self._port = 0
        self._pairs: set[socket.socket] = set()
        self.open()

    @property
    def origin(self) -> str:
        """Return the address of the door."""
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Let connections through."""
        self._listener = socket.create_server(("127.0.0.1", self._port), reuse_port=False)
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Refuse connections and break those that are open."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in list(self._pairs):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            self._pairs |= {near, far}
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            self._pairs.discard(end)
            end.close() if end is source else None


def mixed(lab: Lab) -> None:
    """Fail calls in six ways together, and downloads in two."""
    service = lab.service(*MIXED, "--latency=0.02", "--jitter=0.9")
    bench = lab.bench("mixed", service, "-g=32", "--timeout=2", "--retries=12", "-q=300")
    lines = lines_of(bench.folder, lab.size(800, 25), lab.rand)
    save_lines(bench.input, lines)
    bench.run("-f", patience=400).expect(0)
    verify(bench, lines, lab.counts)
    _paid_once(lab, service, 0)
    lab.counts.note(faults=sum(service.stats()["faults"].values()))


def down_with_defaults(lab: Lab) -> None:
    """Take the service away for half a minute, and the run has nothing but the defaults.

    Lines may fail then; none is lost, and one more run does what is left.
    """
    service = lab.service("--latency=0.1", "--jitter=0.5")
    gate = Gate(service.origin)
    lab.stack.callback(gate.shut)
    bench = lab.bench("defaults", service)
    bench.origin = gate.origin
    lines = lines_of(bench.folder, lab.size(150, 40), lab.rand, attach=0.0)
    save_lines(bench.input, lines)
    process = bench.start("-f")
    demand(bench.began(process), "the run ended too soon")
    seconds = lab.size(30, 4)
    gate.shut()
    time.sleep(seconds)
    gate.open()
    run = bench.end(process, 300).expect(0, 1, 3)
    failed = sum("iErr" in line for line in read_lines(bench.out))
    demand((run.code == 0) == (failed == 0), f"exit code {run.code} with {failed} lines failed")
    bench.run("-f").expect(0)
    verify(bench, lines, lab.counts)
    _paid_once(lab, service, 8)  # those whose replies were on their way
    lab.counts.note(seconds_down=seconds, left_for_another_run=failed)


def down(lab: Lab) -> None:
    """Take the service away for half a minute; with tries enough, no line fails."""
    service = lab.service("--latency=0.1", "--jitter=0.5", "--asset-rate=0.2")
    gate = Gate(service.origin)
    lab.stack.callback(gate.shut)
    bench = lab.bench("down", service, "--retries=12", "--max-consecutive-failures=0")
    bench.origin = gate.origin
    lines = lines_of(bench.folder, lab.size(150, 40), lab.rand)
    save_lines(bench.input, lines)
    process = bench.start("-f", "--allow-private-downloads")
    demand(bench.began(process), "the run ended too soon")
    time.sleep(lab.rand.uniform(0.1, 0.5))
    seconds = lab.size(30, 4)
    gate.shut()
    time.sleep(seconds)
    gate.open()
    bench.end(process, 300).expect(0)
    verify(bench, lines, lab.counts)
    _paid_once(lab, service, 8)  # those whose replies were on their way
    lab.counts.note(seconds_down=seconds)


def refused_token(lab: Lab) -> None:
    """Let the token end half-way: stop at once, keep what was answered, renew where possible."""
    for number in range(lab.size(6, 1)):
        calls = lab.rand.randrange(20, 80)
        flags = ("--accept-password=chaos-password", "--latency=0.05", "--asset-rate=0.2")
        service = lab.service(f"--token-calls={calls}", *flags)
        bench = lab.bench(f"token{number}", service)
        lines = lines_of(bench.folder, 25, lab.rand, attach=0.0)
        lines += lines_of(bench.folder, 25, lab.rand, attach=0.0)
        save_lines(bench.input, lines)
        run = bench.run("-f")
        total = sum(len(line["asks"]) for line in lines)
        if total > calls:
            run.expect(3)
            demand(b"authsvc" in run.errors, "what to do is not said", run.errors)
        answered = service.stats()["chats_answered"]
        kept = answers_in(read_lines(bench.out))
        demand(kept == answered, f"{answered} asks answered, {kept} kept")
        renewing = {
            "GPT4BATCH_EMAIL": "mock@example.com",
            "GPT4BATCH_PASSWORD": "chaos-password",
            "GPT4BATCH_TOKEN_URL": f"{service.origin}/console/access_token",
        }
        for _ in range(20):
            if bench.run("-f", env=renewing).code == 0:
                break
        verify(bench, lines, lab.counts)
        _paid_once(lab, service, 0)
        lab.counts.note(stops=1, tokens=service.stats()["tokens_issued"])


def slow(lab: Lab) -> None:
    """Answer later than the timeout: every line fails, the run ends, nothing is lost."""
    service = lab.service("--latency=1.5")
    bench = lab.bench("slow", service, "-g=20")
    lines = lines_of(bench.folder, lab.size(60, 10), lab.rand, attach=0.0, asks=2)
    save_lines(bench.input, lines)
    run = bench.run("-f", "--timeout=0.5", "--retries=1").expect(1, 3)
    demand(all("iErr" in line for line in read_lines(bench.out)), "done without an answer?")
    lab.counts.note(stopped=int(run.code == 3))
    bench.run("-f", "--timeout=20").expect(0)
    verify(bench, lines, lab.counts)
    _paid_once(lab, service, 0)


def _paid_once(lab: Lab, service: Service, most: int) -> None:
    seen = service.stats()
    twice = seen["answered_twice"]["count"]
    demand(twice <= most, f"{twice} asks paid twice, at most {most} can be:", seen)
    leaks = seen["files"]["with_authorization"]
    demand(leaks == 0, "the token was sent to the file host")
    lab.counts.note(answered=seen["chats_answered"], asked_twice=twice)
