"""A `.gguf` file of a Llama decoder as a source.

Invariant: the file's name reaches the label only; names in bytes come from the file's content.
"""

from __future__ import annotations

from pathlib import Path

from export.sources.gguf_cache import converted
from export.sources.gguf_split_names import model_stem
from export.sources.source import Source


def resolve_gguf(path: Path) -> Source:
    """The checkpoint made from the file, in the cache.

    Raises:
        InputError: the file is not a supported model, or the cache cannot be written.
    """
    stem = model_stem(path)
    made = converted(path, stem)
    return Source(made.path, label=stem or "model", name=made.name)
