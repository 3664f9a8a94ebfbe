"""What is measured with PyTorch for rounding: text of the model's own, and second moments."""
