"""Compare artifacts with the PyTorch reference, position by position, and judge them by gates."""
