"""A chat in the terminal with an export in its real runtime, or with two beside each other."""
