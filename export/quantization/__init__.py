"""How to round weights: pure functions on arrays, shared by the formats."""
