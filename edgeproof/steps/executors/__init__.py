"""Who does a graph's steps, and where: one module for each way, chosen by its name."""
