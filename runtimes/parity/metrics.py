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
# Tokens this many nats below the best one: e^(-6 / 0.2) = 1e-13 of its probability when sampling.
CANDIDATE_NATS = 6.0
# Rows per step: their float64 temporaries stay in the processor's cache.
BLOCK_ROWS = 4


@dataclass(frozen=True)
class PositionMetrics:
    """One value per position (float64 [T], bool [T]).

    The `nll` arrays are the negative log-likelihood of the next token, NaN at the last position.
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

    def block(start: int) -> list[PositionMetrics]:
        rows = slice(start, start + BLOCK_ROWS)
        known = _Reference(reference[rows], following[rows])
        return [_compare_block(known, export[rows]) for export in exports]

    with ThreadPoolExecutor(threads) as pool:
        blocks = list(pool.map(block, range(0, len(reference), BLOCK_ROWS)))
    return [concatenate(parts) for parts in zip(*blocks, strict=True)]


def concatenate(parts: Sequence[PositionMetrics]) -> PositionMetrics:
    """Join metrics of consecutive positions or of several documents."""
    return PositionMetrics(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(PositionMetrics)
        }
    )


class _Reference:
    """What a block of reference logits [B, V] contributes to every comparison."""

    def __init__(self, logits: np.ndarray, following: np.ndarray) -> None:
        self.logits = logits.astype(np.float64)
        self.following = following
        self.rows = np.arange(len(following))
        self.best = self.logits.argmax(-1)
        peak = self.logits[self.rows, self.best]
        weights = np.exp(self.logits - peak[:, None])
        total = weights.sum(-1)
        self.p = weights / total[:, None]
        self.log_total = peak + np.log(total)
        self.nll = self.log_total - self.logits[self.rows, following]
        runner_up = self.logits.copy()
        runner_up[self.rows, self.best] = -np.inf
        self.clear = peak - runner_up.max(-1) > CLEAR_MARGIN
        self.signal = self.logits.var(-1) * self.logits.shape[-1]
        self.nuclei = [nucleus(row) for row in self.logits]


def _compare_block(reference: _Reference, logits: np.ndarray) -> PositionMetrics:
    export = logits.astype(np.float64)
    rows, following = reference.rows, reference.following
    best = export.argmax(-1)
    peak = export[rows, best]
    log_total = peak + np.log(np.exp(export - peak[:, None]).sum(-1))
    difference = export - reference.logits  # [B, V]
    last = following < 0
    return PositionMetrics(
        # Σ p (log p − log q), with both normalisers taken out of the sum
        kl=log_total - reference.log_total - np.einsum("bv,bv->b", reference.p, difference),
        top1=reference.best == best,
        clear=reference.clear,
        acceptance=np.array(
            [_overlap(p, nucleus(row)) for p, row in zip(reference.nuclei, export, strict=True)]
        ),
        nll_reference=np.where(last, np.nan, reference.nll),
        nll_export=np.where(last, np.nan, log_total - export[rows, following]),
        max_difference=np.maximum(difference.max(-1), -difference.min(-1)),
        squared_error=np.einsum("bv,bv->b", difference, difference),
        squared_signal=reference.signal,
    )


def _overlap(p: dict[int, float], q: dict[int, float]) -> float:
    return sum(min(mass, q[token]) for token, mass in p.items() if token in q)


def nucleus(logits: np.ndarray) -> dict[int, float]:
    """The sampling distribution at T = 0.2, top-p = 0.9: token → renormalised probability.

    The set is the smallest one of most likely tokens whose mass reaches top-p.
    """
    peak = logits.max()
    candidates = np.flatnonzero(logits >= peak - CANDIDATE_NATS)
    weights = np.exp((logits[candidates] - peak) / TEMPERATURE)
    order = np.argsort(-weights, kind="stable")
    mass = weights[order] / weights.sum()
    size = min(int(np.searchsorted(np.cumsum(mass), TOP_P)) + 1, len(order))
    kept = mass[:size] / mass[:size].sum()
    return dict(zip(candidates[order[:size]].tolist(), kept.tolist(), strict=True))
