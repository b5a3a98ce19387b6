"""One batch on many machines."""
