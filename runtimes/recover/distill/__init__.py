"""Training of what a grid leaves free, so that a recovered model's logits near the original's."""
