"""What of edgeproof's surroundings is there: runtimes, devices, tools, room."""
