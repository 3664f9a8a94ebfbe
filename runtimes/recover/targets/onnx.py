"""ONNX: MatMulNBits of 4 and 8 bits in blocks of 32, scales and norms in float16."""

from __future__ import annotations

from pathlib import Path

from runtimes.recover.targets.target import Target, copied_tokenizer

GRAPH = 1_500_000


def _beside(folder: Path) -> int:
    return GRAPH + copied_tokenizer(folder)


TARGET = Target("onnx", ("q4", "q8"), 16, _beside)
