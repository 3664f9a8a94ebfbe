"""What only running the artifact again tells: strings that tokenize differently, the KV cache."""

from __future__ import annotations

from collections.abc import Sequence

from runtimes.parity.decoding import CACHE_KL_LIMIT
from runtimes.parity.localise.result import Cause, Component, Finding
from runtimes.parity.metrics import compare
from runtimes.parity.tokenizer import awkward_strings
from runtimes.protocol import Runtime

SHOWN_IDS = 8
STEPS = 16


def tokenizer_fault(runtime: Runtime, reference: Runtime) -> Finding | None:
    """The shortest piece found of a string that the artifact tokenizes differently."""

    def differs(text: str) -> bool:
        return runtime.tokenize(text) != reference.tokenize(text)

    strings = sorted(awkward_strings(), key=len)
    text = next((text for text in strings if differs(text)), None)
    if text is None:
        return None
    index = 0
    while index < len(text):  # leave out what is not needed
        shorter = text[:index] + text[index + 1 :]
        if shorter and differs(shorter):
            text = shorter
        else:
            index += 1
    got, want = (_ids(side.tokenize(text)) for side in (runtime, reference))
    return Finding(
        Cause.TOKENIZER, f"{text!r} becomes {got}, with the checkpoint's tokenizer {want}"
    )


def cache_fault(
    runtime: Runtime, ids: Sequence[int], limit: float = CACHE_KL_LIMIT
) -> Finding | None:
    """The first step after a prompt that differs from the same position of one pass."""
    whole = runtime.logits(ids)
    first = max(1, len(ids) - STEPS)
    rows = [runtime.start(ids[:first])]
    rows += [runtime.step(token) for token in ids[first:]]
    for step, row in enumerate(rows):
        position = first - 1 + step
        (metrics,) = compare(whole[position][None], [row[None]], ids[position : position + 2])
        if not metrics.kl[0] <= limit:
            after = f"step {step} after a prompt of {first} tokens" if step else "the prompt"
            return Finding(
                Cause.KV_CACHE,
                f"one pass is consistent, but {after} differs from it by KL {metrics.kl[0]:.3g}",
                component=Component.ATTENTION,
            )
    return None


def _ids(ids: Sequence[int]) -> str:
    more = ", …" if len(ids) > SHOWN_IDS else ""
    return f"[{', '.join(map(str, ids[:SHOWN_IDS]))}{more}]"
