"""Run exported artifacts in their runtimes and compare them with PyTorch."""
