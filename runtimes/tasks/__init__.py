"""Tasks of EleutherAI's lm-evaluation-harness over exports, in their runtimes."""
