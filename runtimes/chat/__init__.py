"""A chat in the terminal with an export in its runtime, or with two beside each other."""
