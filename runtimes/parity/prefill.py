"""One pass and step-by-step decoding inside one runtime must agree: is its KV cache right?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtimes.parity.divergence import compare
from runtimes.parity.suite import Document
from runtimes.protocol import Runtime

# Cached and uncached passes may use other kernels; a wrong cache costs whole nats.
CACHE_KL_LIMIT = 0.02
# Tokens of a text that are read at once, and then one by one.
READ, STEPS = 48, 16


def logits_from(runtime: Runtime, ids: Sequence[int], first: int) -> np.ndarray:
    """Logits of one pass at positions `first` and later: float32 [T − first, V]."""
    return np.concatenate([np.array(block) for block in runtime.logit_blocks(ids, first)])


def stepwise_kl(runtime: Runtime, documents: Sequence[Document]) -> float | None:
    """Mean KL in nats of a text's tokens in steps against one pass; for texts without chats.

    None where no document has two tokens.
    """
    ids = max((document.ids[: READ + STEPS] for document in documents), key=len)
    read = max(1, len(ids) - STEPS)
    if read == len(ids):
        return None
    rows = [runtime.start(ids[:read]), *(runtime.step(token) for token in ids[read:])]
    metrics = compare(logits_from(runtime, ids, read - 1), np.stack(rows), ids[read - 1 :])
    return float(metrics.kl.mean())
