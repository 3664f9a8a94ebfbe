"""What `edgeproof run` asks of the exporters: a plan as data, and one variant in one process."""
