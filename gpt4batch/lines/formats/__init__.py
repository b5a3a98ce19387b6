"""The forms that inputs and outputs may have; the log is always in our own form."""
