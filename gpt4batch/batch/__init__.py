"""One batch, from the first look at its input to its summary: no HTTP, no fleet's wire."""
