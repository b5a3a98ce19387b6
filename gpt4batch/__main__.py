"""Run the command line by `python -m gpt4batch`."""

from gpt4batch.cli import main

main()
