"""Start and stop the services that are measured against; all on loopback, on free ports."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import trustme

from benchmarks import replies

TARGET = Path(__file__).with_name("target.py")
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; multi_accept on; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_max_body_size 0;
  default_type application/json;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port}{ssl} backlog=1024;
    {certificate}
    location /standard/ {{ return 200 {chat}; }}
    location /v1/ {{ return 200 {completion}; }}
  }}
}}
"""


@dataclass(frozen=True)
class Service:
    """A running service."""

    origin: str
    kind: str

    @property
    def chat(self) -> str:
        return f"{self.origin}/standard/all-tools"

    @property
    def upload(self) -> str:
        return f"{self.origin}/standard/uploaded"

    def get(self, path: str) -> bytes:
        with OPENER.open(self.origin + path, timeout=60) as answer:
            return bytes(answer.read())

    def reset(self) -> None:
        OPENER.open(urllib.request.Request(self.origin + "/reset", data=b""), timeout=60).close()

    def arrivals(self) -> list[float]:
        """Return when the calls came, in seconds."""
        return [moment / 1e9 for moment in array("q", self.get("/arrivals"))]

    def tokens(self) -> list[int]:
        """Return what the answered calls took, in order."""
        return list(array("q", self.get("/tokens")))

    def codes(self) -> list[int]:
        return list(array("h", self.get("/codes")))

    def counts(self) -> dict[str, Any]:
        return dict(orjson.loads(self.get("/counts")))


def quoted(body: bytes) -> str:
    """Write a reply as a word of nginx's configuration."""
    text = body.decode()
    if "$" in text or len(body) > 4000:
        raise ValueError("nginx takes no $ in a fixed reply, and at most 4,000 bytes")
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(500):
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with status {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise RuntimeError("the service did not start within 5 seconds")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def certified(folder: Path) -> str:
    """Make a certificate for this machine, which commands trust by SSL_CERT_FILE; for nginx."""
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    own.private_key_and_cert_chain_pem.write_to_path(str(folder / "own.pem"))
    os.environ["SSL_CERT_FILE"] = str(folder / "ca.pem")
    return f"ssl_certificate {folder}/own.pem; ssl_certificate_key {folder}/own.pem;"


@contextmanager
def instant(*, tls: bool = False) -> Iterator[Service]:
    """Start a service that answers at once: nginx, or the Python one where there is no nginx.

    Over TLS it has to be nginx.
    """
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None and not tls:
        with target() as service:
            yield service
        return
    if nginx is None:
        raise OSError("a service over TLS needs nginx")
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        config = Path(folder, "nginx.conf")
        config.write_text(
            NGINX.format(
                folder=folder,
                port=port,
                ssl=" ssl" if tls else "",
                certificate=certified(Path(folder)) if tls else "",
                chat=quoted(replies.CHAT),
                completion=quoted(replies.COMPLETION),
            ),
            encoding="utf-8",
        )
        process = subprocess.Popen(
            [nginx, "-p", folder, "-c", str(config)], stdout=subprocess.DEVNULL
        )
        try:
            wait_for(port, process)
            yield Service(f"http{'s' * tls}://127.0.0.1:{port}", "nginx")
        finally:
            stop(process)
            if tls:
                del os.environ["SSL_CERT_FILE"]


@contextmanager
def target(**options: object) -> Iterator[Service]:
    """Start the Python service; options are its flags."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    process = subprocess.Popen([sys.executable, str(TARGET), *words], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield Service(f"http://127.0.0.1:{port}", "python")
    finally:
        stop(process)
        if process.stdout:
            process.stdout.close()
