"""Planted faults: what the parity run must notice, and where it must say the fault is.

`python -m tests.faults` plants each in real exports and writes docs/faults.md.
"""
