"""The files of a run on disk; knows no service."""
