"""GGUF: llama.cpp's blocks of 32 in 4, 5 and 8 bits; norms in float32."""

from __future__ import annotations

from pathlib import Path

from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.tokenizer import TOKENIZER, token_ids
from runtimes.recover.targets.target import Target

HEADERS = 64_000  # keys, the chat template, names and alignment of some hundred tensors


def _beside(folder: Path) -> int:
    """Tokens, types and merges are arrays of the header: eight bytes more for each string.

    Source: the GGUF specification (ggml's docs/gguf.md).
    """
    document = read_json(folder / TOKENIZER)
    tokens, merges = token_ids(document), document["model"].get("merges", [])
    pairs = (merge if isinstance(merge, str) else " ".join(merge) for merge in merges)
    strings = sum(len(token.encode()) + 12 for token in tokens)
    return HEADERS + strings + sum(len(pair.encode()) + 8 for pair in pairs)


TARGET = Target("gguf", ("iq4_nl", "q5", "q8"), 32, _beside, whole=True)
