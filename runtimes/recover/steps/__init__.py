"""What `edgeproof run` asks of recoveries: what each takes, and one of them in one process."""
