"""Take pictures of viewsvc in a headless Chromium, where there is one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOL = Path(sys.executable).with_name("gpt4batch")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTH = 1120
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=4000",
)
PAGES = {
    "viewer-overview": ("overview", 1030),
    "viewer-failed": ("lines?state=failed&row=39", 700),
    "viewer-pictures": ("pictures", 700),
}
"""Pictures, and for each the address within the page and its height in pixels."""


@contextmanager
def viewer(folder: Path) -> Iterator[str]:
    """Serve the output in a folder; yields the page's address."""
    command = [str(TOOL), "viewsvc", "out.jsonl", "-i", "prompts.jsonl", "-d", "pictures"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        yield next(word for word in words if word.startswith("http://"))
        process.send_signal(signal.SIGINT)
        process.stdout.read()


def take(folder: Path, into: Path, ending: str, lang: str) -> Iterator[Path]:
    """Write the pictures of the viewer over a folder's output, and yield their paths."""
    if CHROMIUM is None:
        print("no chromium found: the pictures of the viewer stay as they are")
        return
    language = "zh-CN" if lang.startswith("zh") else "en-US"
    with viewer(folder) as address:
        for name, (place, height) in PAGES.items():
            path = into / f"{name}{ending}.png"
            _shoot(f"{address}#/{place}", path, height, language)
            yield path


def _shoot(address: str, path: Path, height: int, language: str) -> None:
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as profile:
        more = [f"--user-data-dir={profile}", f"--accept-lang={language}"]
        more += [f"--lang={language}", f"--window-size={WIDTH},{height}"]
        subprocess.run(
            [CHROMIUM, *FLAGS, *more, f"--screenshot={path}", address],
            env={**os.environ, "LANGUAGE": language.replace("-", "_")},
            check=True,
            capture_output=True,
            timeout=60,
        )
