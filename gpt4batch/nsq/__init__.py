"""The message queue that answers and fleets go through."""
