"""Fetch the page's third-party files as its manifest names them, and check their sums."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

MANIFESTS = (
    Path(__file__).parent.parent / "gpt4batch/view/page/vendor/vendor.toml",
    Path(__file__).parent.parent / "tests/axe/vendor.toml",
)


def fetch(package: dict[str, Any], folder: Path) -> dict[str, bytes]:
    """Return the wanted files of an npm package by the name they get here."""
    name = f"{package['name']}@{package['version']}"
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), name]
    packed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
        return {item["to"]: member(archive, item["from"]) for item in package["files"]}


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """Return one file of a package."""
    file = archive.extractfile(f"package/{name}")
    if file is None:
        raise SystemExit(f"{name}: not in the package")
    return file.read()


def refresh(manifest: Path, *, update: bool) -> None:
    """Write the files of a manifest; sums that differ are refused, or written down anew."""
    text = manifest.read_text()
    for package in tomllib.loads(text)["package"]:
        with tempfile.TemporaryDirectory() as folder:
            files = fetch(package, Path(folder))
        for item in package["files"]:
            data = files[item["to"]]
            digest = hashlib.sha256(data).hexdigest()
            if digest != item["sha256"] and not update:
                raise SystemExit(f"{package['name']} {item['from']}: sha256 is {digest}")
            line = f'from = "{item["from"]}", to = "{item["to"]}", sha256 = '
            text = text.replace(f'{line}"{item["sha256"]}"', f'{line}"{digest}"')
            (manifest.parent / item["to"]).write_bytes(data)
    manifest.write_text(text)


for path in MANIFESTS:
    refresh(path, update="--update" in sys.argv)
