"""Whole runs in virtual time: one seed is one history, with faults at any step."""
