"""Checkpoints whose weights are stored quantised, read as floats."""
