"""Make a batch of a folder of pictures: one line a picture, the same questions for each.

python examples/pictures_to_jsonl.py PICTURES prompts.jsonl "What is this?" "Now in one sentence"

It is `gpt4batch convert` with its arguments in this order.
"""

from __future__ import annotations

import sys

from gpt4batch.cli import main

if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    _, pictures, batch, *questions = sys.argv
    asks = [f"--ask={question}" for question in questions or ["描述下图片"]]
    main(["convert", "--force", "-o", batch, *asks, "--", pictures])
