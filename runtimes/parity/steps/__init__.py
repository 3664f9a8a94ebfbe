"""What `edgeproof run` asks of the parity run: one command for each step, and the report."""
