"""Calls to the service: what is sent, tried again, kept and fetched."""
