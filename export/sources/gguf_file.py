"""A `.gguf` file of a Llama decoder as a source.

Invariant: the file's name reaches the label only; names in bytes come from the file's content.
"""

from __future__ import annotations

from pathlib import Path

from export.sources.gguf_cache import converted
from export.sources.source import Source


def resolve_gguf(path: Path) -> Source:
    """The checkpoint made from the file, in the cache.

    Raises:
        InputError: the file is not a supported model, or the cache cannot be written.
    """
    made = converted(path, path.stem)
    return Source(made.path, label=path.stem or "model", name=made.name)
