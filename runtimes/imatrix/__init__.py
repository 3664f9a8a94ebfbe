"""The importance matrix of a checkpoint: computed in PyTorch, stored as llama.cpp stores it."""
