"""Per-position comparison of an export's logits with the reference's, in float64.

Formulas: KL(p‖q) = Σ p (log p − log q) in nats; token acceptance = Σ min(p̃, q̃) over the
distributions that a sampler at temperature 0.2 and top-p 0.9 draws from, which is the probability
that an optimally coupled sampler emits the same token (Leviathan et al. 2023, arXiv:2211.17192).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np

# Sampling defaults of the SmolLM model card.
TEMPERATURE = 0.2
TOP_P = 0.9
# Below one nat between the two best tokens the reference itself is undecided.
CLEAR_MARGIN = 1.0
# Tokens this many temperatures below the best one have e^-30 = 1e-13 of its chance.
CANDIDATE_TEMPERATURES = 30.0
# Rows per step: their float64 temporaries stay in the processor's cache.
BLOCK_ROWS = 4


@dataclass(frozen=True)
class PositionMetrics:
    """One value per position (float64 [T], bool [T]).

    The `nll` arrays are the negative log-likelihood of the next token, NaN at the last position;
    the `best` ones are the most likely tokens (int64); the squares are means over the vocabulary.
    """

    kl: np.ndarray
    top1: np.ndarray
    clear: np.ndarray
    acceptance: np.ndarray
    nll_reference: np.ndarray
    nll_export: np.ndarray
    max_difference: np.ndarray
    squared_error: np.ndarray
    squared_signal: np.ndarray
    best_reference: np.ndarray
    best_export: np.ndarray


def compare(
    reference: np.ndarray, exports: Sequence[np.ndarray], ids: Sequence[int], threads: int = 1
) -> list[PositionMetrics]:
    """Compare logits [T, V] of several exports with the reference's at consecutive positions.

    `ids` are the tokens there, and the one that follows where the text goes on: [T] or [T + 1].
    The reference's side is computed once for all exports.

    Raises:
        ValueError: the shapes differ.
    """
    for export in exports:
        if reference.shape != export.shape or len(ids) - len(reference) not in (0, 1):
            raise ValueError(f"logits {export.shape} against {reference.shape}, {len(ids)} tokens")
    following = np.array([*ids[1:], -1])[: len(reference)]

    def share(first: int, stop: int) -> list[list[PositionMetrics]]:
        scratch = np.empty((3, BLOCK_ROWS, reference.shape[-1]))
        blocks = []
        for start in range(first, stop, BLOCK_ROWS):
            rows = slice(start, min(start + BLOCK_ROWS, stop))
            known = _Reference(reference[rows], following[rows], scratch)
            blocks.append([_compare_block(known, export[rows], scratch) for export in exports])
        return blocks

    bounds = np.linspace(0, len(reference), min(threads, len(reference)) + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        shares = list(pool.map(share, bounds, bounds[1:]))
    return [concatenate(parts) for parts in zip(*(b for s in shares for b in s), strict=True)]


def concatenate(parts: Sequence[PositionMetrics]) -> PositionMetrics:
    """Join metrics of consecutive positions or of several documents."""
    return PositionMetrics(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(PositionMetrics)
        }
    )


class _Reference:
    """What a block of reference logits [B, V] contributes to every comparison.

    `weights` are exp(logit − peak), `total` their sums [B]. Logits and weights lie in the first and
    the second third of `scratch` [3, ≥ B, V]: new memory for each block costs more than the work.
    """

    def __init__(self, block: np.ndarray, following: np.ndarray, scratch: np.ndarray) -> None:
        self.logits, self.weights = logits, weights = scratch[:2, : len(block)]
        np.copyto(logits, block)
        self.following = following
        self.rows = rows = np.arange(len(following))
        self.best = block.argmax(-1)
        peak = logits[rows, self.best]
        self.total = _softmax_terms(logits, peak, weights)
        self.log_total = peak + np.log(self.total)
        self.nll = self.log_total - logits[rows, following]
        self.signal = _mean_square(logits) - logits.mean(-1) ** 2
        self.nuclei = [nucleus(row) for row in logits]
        logits[rows, self.best] = -np.inf
        self.clear = peak - logits.max(-1) > CLEAR_MARGIN
        logits[rows, self.best] = peak


def _compare_block(
    reference: _Reference, block: np.ndarray, scratch: np.ndarray
) -> PositionMetrics:
    third = scratch[2, : len(block)]
    rows, following = reference.rows, reference.following
    best = block.argmax(-1)
    peak = block[rows, best].astype(np.float64)
    log_total = peak + np.log(_softmax_terms(block, peak, third))
    difference = np.subtract(block, reference.logits, out=third)  # [B, V]
    mean = np.einsum("bv,bv->b", reference.weights, difference) / reference.total
    last = following < 0
    return PositionMetrics(
        # Σ p (log p − log q), with both normalisers taken out of the sum
        kl=log_total - reference.log_total - mean,
        top1=reference.best == best,
        clear=reference.clear,
        acceptance=np.array(
            [_overlap(p, nucleus(row)) for p, row in zip(reference.nuclei, block, strict=True)]
        ),
        nll_reference=np.where(last, np.nan, reference.nll),
        nll_export=np.where(last, np.nan, log_total - block[rows, following]),
        max_difference=np.maximum(difference.max(-1), -difference.min(-1)),
        squared_error=_mean_square(difference),
        squared_signal=reference.signal,
        best_reference=reference.best,
        best_export=best,
    )


def _mean_square(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("bv,bv->b", rows, rows) / rows.shape[-1])


def _softmax_terms(logits: np.ndarray, peak: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write exp(logits − peak) [B, V] in float64; its sums over V [B]."""
    np.exp(np.subtract(logits, peak[:, None], out=out), out=out)
    return np.asarray(out.sum(-1))


def _overlap(p: dict[int, float], q: dict[int, float]) -> float:
    return sum(min(mass, q[token]) for token, mass in p.items() if token in q)


def nucleus(
    logits: np.ndarray, temperature: float = TEMPERATURE, top_p: float = TOP_P
) -> dict[int, float]:
    """The sampling distribution over logits [V]: token → renormalised probability.

    The set is the smallest one of most likely tokens whose mass reaches `top_p`.
    """
    peak = logits.max()
    candidates = np.flatnonzero(logits >= peak - CANDIDATE_TEMPERATURES * temperature)
    weights = np.exp((logits[candidates].astype(np.float64) - peak) / temperature)
    order = np.argsort(-weights, kind="stable")
    mass = weights[order] / weights.sum()
    size = min(int(np.searchsorted(np.cumsum(mass), top_p)) + 1, len(order))
    kept = mass[:size] / mass[:size].sum()
    return dict(zip(candidates[order[:size]].tolist(), kept.tolist(), strict=True))
