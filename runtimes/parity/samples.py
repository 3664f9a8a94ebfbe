"""The reference's sampled replies: decoded step by step by the shared sampler, once, and cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproof.files.atomic import write_atomic
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import OutputFile
from edgeproof.files.once import once
from runtimes.parity.decoding import REPLY_TOKENS, SEED, sampled_reply
from runtimes.parity.divergence import TEMPERATURE, TOP_P

if TYPE_CHECKING:
    from runtimes.pytorch import TorchRuntime

SAMPLES_VERSION = 1


def reference_samples(
    runtime: TorchRuntime, inputs: tuple[OutputFile, ...], prompts: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """A sampled reply to each prompt. The cache is keyed by all that a reply depends on."""
    return tuple(_sample(runtime, inputs, tuple(prompt)) for prompt in prompts)


def _sample(
    runtime: TorchRuntime, inputs: tuple[OutputFile, ...], prompt: tuple[int, ...]
) -> tuple[int, ...]:
    recipe = {
        "samples": SAMPLES_VERSION,
        "sampler": [TEMPERATURE, TOP_P, SEED, REPLY_TOKENS],
        "runtime": runtime.version,
        "inputs": [[item.path, item.sha256] for item in inputs],
        "stop": sorted(runtime.stop_tokens),
        "prompt": prompt,
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / "samples" / f"{key}.json"

    def make() -> tuple[int, ...]:
        reply = sampled_reply(runtime, prompt, runtime.stop_tokens)
        write_atomic(path, json.dumps(reply).encode())
        return reply

    return once(path, lambda: _read(path), make)


def _read(path: Path) -> tuple[int, ...] | None:
    try:
        return tuple(int(token) for token in json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # a missing or damaged file is sampled again
