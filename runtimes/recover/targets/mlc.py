"""MLC: q4f16_1, embedding included; norms in float16."""

from __future__ import annotations

from pathlib import Path

from runtimes.recover.targets.target import Target, copied_tokenizer

RECORDS = 200_000  # the JSON files that list shards and settings


def _beside(folder: Path) -> int:
    return RECORDS + copied_tokenizer(folder)


TARGET = Target("mlc", ("q4",), 16, _beside)
