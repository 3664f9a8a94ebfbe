"""MLX: codes of 4, 5 and 8 bits in groups of 32, each with a scale and a bias; all in float16."""

from __future__ import annotations

from pathlib import Path

from runtimes.recover.targets.target import Target, copied_tokenizer

# config.json, which names each matrix that has other bits, the index, and names in the header.
RECORDS = 200_000


def _beside(folder: Path) -> int:
    return RECORDS + copied_tokenizer(folder)


TARGET = Target("mlx", ("q4", "q5", "q8"), 16, _beside, group_bits=16)
