"""The embedded service: all that a batch calls, for rehearsals and tests, with faults."""
