"""Make a batch of a folder of pictures: one line a picture, the same questions for each.

python examples/pictures_to_jsonl.py PICTURES prompts.jsonl "What is this?" "Now in one sentence"
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import orjson

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".gif"}


def line_of(picture: Path, folder: Path, questions: list[str]) -> dict[str, object]:
    """Return the line for a picture; its path is relative to the folder of the batch."""
    asks: list[dict[str, object]] = [
        {"id": f"a-{number}", "content": question} for number, question in enumerate(questions, 1)
    ]
    asks[0]["images"] = [os.path.relpath(picture, folder)]
    return {"id": picture.stem, "asks": asks}


def main(pictures: str, batch: str, *questions: str) -> None:
    """Write the batch, the pictures in the order of their names."""
    found = sorted(path for path in Path(pictures).rglob("*") if path.suffix.lower() in ENDINGS)
    asked = list(questions) or ["描述下图片"]
    with Path(batch).open("wb") as file:
        for picture in found:
            file.write(orjson.dumps(line_of(picture, Path(batch).parent, asked)) + b"\n")
    print(f"{len(found)} pictures: {batch}", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
