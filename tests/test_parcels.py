"""Attachments that travel: what goes in comes out, and nothing lands outside of its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from gpt4batch.fleet.inline_files import packed, unpacked
from gpt4batch.lines.parse import Line, parse_line

if TYPE_CHECKING:
    from pathlib import Path


def line(*paths: str) -> Line:
    return parse_line(orjson.dumps({"asks": [{"id": 1, "content": "?", "files": paths}]}))


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    sent, got = tmp_path / "sent", tmp_path / "got"
    (sent / "deep").mkdir(parents=True)
    (sent / "a.bin").write_bytes(bytes(range(256)))
    (sent / "deep" / "文.txt").write_text("text")
    parcels = packed(sent, line("a.bin", "deep/文.txt", "a.bin"), 300)
    assert len(parcels) == 2
    unpacked(got, orjson.loads(orjson.dumps(parcels)))
    unpacked(got, parcels)
    for name in ("a.bin", "deep/文.txt"):
        assert (got / name).read_bytes() == (sent / name).read_bytes()
        assert (got / name).stat().st_mtime_ns == (sent / name).stat().st_mtime_ns
    assert len(list(got.rglob("*"))) == 3


@pytest.mark.parametrize("paths", [("big",), ("small", "none"), ("../out",), ("/etc/passwd",), ()])
def test_line_whose_files_cannot_all_travel_takes_none(
    tmp_path: Path, paths: tuple[str, ...]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "big").write_bytes(b"x" * 11)
    (folder / "small").write_bytes(b"x")
    (tmp_path / "out").write_bytes(b"x")
    assert packed(folder, line(*paths), 10) == []


@pytest.mark.parametrize("path", ["../out", "/tmp/gpt4batch-out", "", "a/../../out", "link/out"])
def test_parcel_that_leads_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="does not lie"):
        unpacked(folder, [[path, 0, "eA=="]])
    assert not (tmp_path / "out").exists()
