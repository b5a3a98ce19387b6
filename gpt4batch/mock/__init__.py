"""The embedded service: all of gpt4api on a loopback port, for rehearsals and tests."""
