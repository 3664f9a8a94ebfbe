"""The tokens that end a reply: what the artifact's runtimes stop at, against the checkpoint's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from runtimes.gguf_file import read_metadata
from runtimes.parity.localise.result import Cause, Finding

GGUF_KEY, MLC_KEY, KEY = "tokenizer.ggml.eos_token_id", "stop_token_ids", "eos_token_id"
GENERATION, CONFIG = "generation_config.json", "config.json"
# Where a stop is said, the tokens said there, and whether they do for the checkpoint's.
Stated = tuple[str, frozenset[int], Callable[[frozenset[int]], bool]]


def compare_stops(artifact: Artifact, checkpoint: Path) -> tuple[Finding, ...]:
    """A finding where generation would run past the checkpoint's end, or stop before it.

    Raises:
        InputError: a config cannot be read.
    """
    expected = _ends(checkpoint)
    if not expected:
        return ()
    key, stated, enough = READERS[artifact.manifest.variant.format](artifact)
    if enough(expected):
        return ()
    text = f"{key} is {sorted(stated)}, the checkpoint's replies end with {sorted(expected)}"
    return (Finding(Cause.METADATA, text, key=key),)


def _gguf(artifact: Artifact) -> Stated:
    """One token; llama.cpp finds further ones by their text."""
    stop = read_metadata(artifact.files(".gguf")[0]).get(GGUF_KEY)
    stated = frozenset() if stop is None else frozenset([int(stop)])
    return GGUF_KEY, stated, lambda expected: bool(stated) and stated <= expected


def _onnx(artifact: Artifact) -> Stated:
    """transformers.js reads the same files as transformers."""
    stated = _ends(artifact.path)
    return KEY, stated, lambda expected: stated == expected


def _mlc(artifact: Artifact) -> Stated:
    """WebLLM stops at these only; chat templates may add their own."""
    template = read_json(artifact.path / "mlc-chat-config.json").get("conv_template", {})
    stated = frozenset(template.get(MLC_KEY, ()))
    return MLC_KEY, stated, lambda expected: stated >= expected


READERS: dict[str, Callable[[Artifact], Stated]] = {"gguf": _gguf, "onnx": _onnx, "mlc": _mlc}


def _ends(folder: Path) -> frozenset[int]:
    """As transformers reads them: of generation_config.json, else of config.json."""
    for name in (GENERATION, CONFIG):
        path = folder / name
        value: Any = read_json(path).get(KEY) if path.exists() else None
        if value is not None:
            return frozenset(value if isinstance(value, list) else [value])
    return frozenset()
