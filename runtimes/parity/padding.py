"""Left-padded batches: every row must come out as it does alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtimes.parity.divergence import compare
from runtimes.parity.fields import AnyFloat
from runtimes.parity.suite import Document
from runtimes.protocol import BatchRuntime, Runtime

# Tokens of the batch's rows: the longest has no padding, the shortest hardly anything else.
LENGTHS = (64, 23, 41, 7)
# Other shapes may use other kernels; a wrong mask or position costs whole nats.
PADDING_KL_LIMIT = 0.02
# A padded batch may be rounded more coarsely than one without padding.
COARSER = 4


@dataclass(frozen=True)
class PaddingResult:
    """Mean KL in nats between rows in a batch and the same rows alone.

    Above 0 where a row's rounding depends on its company, as with ONNX's int8 and uint8, which
    round activations with one scale per call. That is no fault.
    """

    kl: AnyFloat
    """Of a left-padded batch."""
    unpadded_kl: AnyFloat
    """Of a batch of equally long rows: the measure of what padding may cost."""

    @property
    def limit(self) -> float:
        """What another call of the same tokens may cost: that much is the artifact's rounding."""
        return max(PADDING_KL_LIMIT, COARSER * self.unpadded_kl)

    @property
    def fault(self) -> str | None:
        """What is wrong, in words."""
        if self.kl <= self.limit:
            return None
        return (
            f"left padding: a row in a batch differs from the same row alone by KL {self.kl:.3g},"
            f" more than {self.limit:.3g}: attention mask or positions are wrong"
        )


def can_be_padded(documents: Sequence[Document]) -> bool:
    """Whether pieces of the documents differ in length, so that a batch of them has padding."""
    return len({len(row) for row in _rows(documents)}) > 1


def measure_padding(runtime: Runtime, documents: Sequence[Document]) -> PaddingResult | None:
    """Run batches of pieces of the documents.

    None where the runtime has no batches, or the documents are too short for padding.
    """
    if not isinstance(runtime, BatchRuntime) or not can_be_padded(documents):
        return None
    texts = _texts(documents)
    equal = min(max(LENGTHS), *map(len, texts))
    return PaddingResult(
        kl=_batch_kl(runtime, _rows(documents)),
        unpadded_kl=_batch_kl(runtime, [ids[:equal] for ids in texts]),
    )


def _texts(documents: Sequence[Document]) -> list[tuple[int, ...]]:
    return [documents[index % len(documents)].ids for index in range(len(LENGTHS))]


def _rows(documents: Sequence[Document]) -> list[tuple[int, ...]]:
    """Rows of a batch with padding: pieces of LENGTHS, where the documents are long enough."""
    return [ids[:length] for ids, length in zip(_texts(documents), LENGTHS, strict=True)]


def _batch_kl(runtime: BatchRuntime, sequences: Sequence[Sequence[int]]) -> float:
    divergences = []
    for ids, batched in zip(sequences, runtime.padded_logits(sequences), strict=True):
        metrics = compare(runtime.logits(ids), batched, ids)
        divergences.append(metrics.kl)
    return float(np.concatenate(divergences).mean())
