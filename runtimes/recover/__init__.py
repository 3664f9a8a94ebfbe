"""Recovery: a checkpoint that lies on the grids of a few bits, and loses as little as it can."""
