"""Left-padded batches: every row must come out as it does alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtimes.parity.metrics import compare
from runtimes.parity.suite import Document
from runtimes.protocol import BatchRuntime, Runtime

# Tokens of the batch's rows: the longest has no padding, the shortest hardly anything else.
LENGTHS = (64, 23, 41, 7)
# Other shapes may use other kernels; a wrong mask or position costs whole nats.
PADDING_KL_LIMIT = 0.02
# Two independent roundings differ by twice the KL of one; a batch's common scale is coarser too.
ROUNDINGS = 4


def padding_kl(runtime: Runtime, documents: Sequence[Document]) -> float | None:
    """Mean KL in nats between rows alone and in one batch; None where there are no batches."""
    if not isinstance(runtime, BatchRuntime):
        return None
    sequences = [
        documents[index % len(documents)].ids[:length] for index, length in enumerate(LENGTHS)
    ]
    divergences = []
    for ids, padded in zip(sequences, runtime.padded_logits(sequences), strict=True):
        (metrics,) = compare(runtime.logits(ids), [padded], ids)
        divergences.append(metrics.kl)
    return float(np.concatenate(divergences).mean())


def padding_fault(padded: float, mean_kl: float) -> str | None:
    """What is wrong with a batch whose rows differ by `padded` from the rows alone.

    An artifact that rounds activations with one scale per call (ONNX's int8 and uint8) rounds
    otherwise in other company. That is no fault up to `ROUNDINGS` times what rounding costs it at
    all, `mean_kl`.
    """
    limit = max(PADDING_KL_LIMIT, ROUNDINGS * mean_kl)
    if padded <= limit:
        return None
    return (
        f"left padding: a row in a batch differs from the same row alone by KL {padded:.3g}, more"
        f" than {limit:.3g}: attention mask or positions are wrong"
    )
