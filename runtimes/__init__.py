"""Run exported artifacts in their real runtimes and compare them with PyTorch."""
