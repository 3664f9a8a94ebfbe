"""What all formats store: the 4-bit grid; norms in float32, as the largest of them has them."""

from __future__ import annotations

from runtimes.recover.targets.target import Target, copied_tokenizer

TARGET = Target("any", ("q4",), 32, copied_tokenizer)
