"""What only running the artifact again tells: strings that tokenize differently, the KV cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtimes.parity.divergence import compare
from runtimes.parity.localise.result import Cause, Component, Finding
from runtimes.parity.tokenizer import awkward_strings, strings_of
from runtimes.protocol import AddedToken, Runtime

SHOWN_IDS = 8
STEPS = 16


def tokenizer_fault(
    runtime: Runtime, reference: Runtime, added: Sequence[AddedToken]
) -> Finding | None:
    """The shortest piece found of a string that the artifact tokenizes differently."""

    def differs(text: str) -> bool:
        return runtime.tokenize(text) != reference.tokenize(text)

    strings = sorted((*awkward_strings(), *strings_of(added)), key=len)
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


def cache_fault(runtime: Runtime, ids: Sequence[int], limit: float) -> Finding | None:
    """The first of `STEPS` steps after a prompt that differs from the same position of one pass.

    Nothing where they differ on average by no more than the limit, as rounding makes them.
    """
    whole = runtime.logits(ids)
    first = max(1, len(ids) - STEPS)
    rows = [runtime.start(ids[:first]), *(runtime.step(token) for token in ids[first:])]
    metrics = compare(whole[first - 1 :], np.stack(rows), ids[first - 1 :])
    if metrics.kl.mean() <= limit:
        return None
    step = int(np.argmax(~(metrics.kl <= limit)))
    place = f"step {step} after a prompt of {first} tokens" if step else "the prompt's last token"
    text = f"one pass and step by step part at {place}, by KL {metrics.kl[step]:.3g}"
    return Finding(Cause.KV_CACHE, text, component=Component.ATTENTION)


def _ids(ids: Sequence[int]) -> str:
    more = ", …" if len(ids) > SHOWN_IDS else ""
    return f"[{', '.join(map(str, ids[:SHOWN_IDS]))}{more}]"
