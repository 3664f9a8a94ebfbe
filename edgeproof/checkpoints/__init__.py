"""How a Hugging Face folder is read: one rule each, which exporters, reference and parity all ask.

What transformers does with the folder decides; where that is silence, a note says what was done.
"""
