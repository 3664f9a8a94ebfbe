"""Graphs traced by Optimum in an environment of its own: for architectures not written directly."""
