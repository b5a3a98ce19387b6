"""Run the command line by `python -m gpt4batch`, and as the command."""

import signal


def main() -> None:
    """Run the command line; Ctrl-C while it is loading ends it quietly."""
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
