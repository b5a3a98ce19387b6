"""Run the command line by `python -m gpt4batch`, and as the command."""

import signal
import sys

NO_WINDOWS = (
    "gpt4batch does not run on Windows itself: install WSL (wsl --install) and run it there, "
    "https://learn.microsoft.com/windows/wsl/install"
)


def main() -> None:
    """Run the command line; Ctrl-C while it is loading ends it quietly."""
    if sys.platform == "win32":
        sys.stderr.write(f"{NO_WINDOWS}\n")
        sys.exit(2)
    ours = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from gpt4batch.cli import main as run
    from gpt4batch.cli import streams

    signal.signal(signal.SIGINT, ours)
    streams.make_usable()
    try:
        run()
    finally:
        streams.let_go()


if __name__ == "__main__":
    main()
