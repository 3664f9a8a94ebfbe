"""Per-position comparison of an export's logits with the reference's, in float64.

Formulas: KL(p‖q) = Σ p (log p − log q) in nats; token acceptance = Σ min(p̃, q̃) over the
distributions that a sampler at temperature 0.2 and top-p 0.9 draws from, which is the probability
that an optimally coupled sampler emits the same token (Leviathan et al. 2023, arXiv:2211.17192).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

# Sampling defaults of the SmolLM model card.
TEMPERATURE = 0.2
TOP_P = 0.9
# Below one nat between the two best tokens the reference itself is undecided.
CLEAR_MARGIN = 1.0
# Tokens e^-14 below the best one are sorted only where the others do not reach top-p.
CANDIDATE_CUT = -14.0
BLOCK_ROWS = 64


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


def compare(reference: np.ndarray, export: np.ndarray, ids: Sequence[int]) -> PositionMetrics:
    """Compare float32 logits [T, V] of the sequence `ids` (length T).

    Raises:
        ValueError: the shapes differ.
    """
    if reference.shape != export.shape or len(reference) != len(ids):
        raise ValueError(f"logits {export.shape} against {reference.shape}, {len(ids)} tokens")
    following = np.array([*ids[1:], -1])
    blocks = [
        _compare_block(
            reference[start : start + BLOCK_ROWS].astype(np.float64),
            export[start : start + BLOCK_ROWS].astype(np.float64),
            following[start : start + BLOCK_ROWS],
        )
        for start in range(0, len(ids), BLOCK_ROWS)
    ]
    return concatenate(blocks)


def concatenate(parts: Sequence[PositionMetrics]) -> PositionMetrics:
    """Join metrics of consecutive positions or of several documents."""
    return PositionMetrics(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(PositionMetrics)
        }
    )


def _compare_block(reference: np.ndarray, export: np.ndarray, nxt: np.ndarray) -> PositionMetrics:
    difference = export - reference  # [B, V]
    log_p, log_q = _log_softmax(reference), _log_softmax(export)
    kl = np.einsum("bv,bv->b", np.exp(log_p), log_p - log_q)
    best = reference.argmax(-1)
    two = np.partition(reference, -2, axis=-1)[:, -2:]
    rows = np.arange(len(nxt))
    last = nxt < 0
    centred = reference - reference.mean(-1, keepdims=True)
    return PositionMetrics(
        kl=kl,
        top1=best == export.argmax(-1),
        clear=two[:, 1] - two[:, 0] > CLEAR_MARGIN,
        acceptance=_acceptance(reference, export),
        nll_reference=np.where(last, np.nan, -log_p[rows, nxt]),
        nll_export=np.where(last, np.nan, -log_q[rows, nxt]),
        max_difference=np.abs(difference).max(-1),
        squared_error=np.einsum("bv,bv->b", difference, difference),
        squared_signal=np.einsum("bv,bv->b", centred, centred),
    )


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    normalised: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalised


def _acceptance(reference: np.ndarray, export: np.ndarray) -> np.ndarray:
    overlap = np.empty(len(reference))
    for row, (p_logits, q_logits) in enumerate(zip(reference, export, strict=True)):
        p, q = nucleus(p_logits), nucleus(q_logits)
        overlap[row] = sum(min(mass, q[token]) for token, mass in p.items() if token in q)
    return overlap


def nucleus(logits: np.ndarray) -> dict[int, float]:
    """The sampling distribution at T = 0.2, top-p = 0.9: token → renormalised probability.

    The set is the smallest one of most likely tokens whose mass reaches top-p.
    """
    shifted = (logits - logits.max()) / TEMPERATURE
    total = np.exp(shifted).sum()
    candidates = np.flatnonzero(shifted > CANDIDATE_CUT)
    if np.exp(shifted[candidates]).sum() < TOP_P * total:
        candidates = np.arange(len(logits))
    order = candidates[np.argsort(-shifted[candidates], kind="stable")]
    mass = np.exp(shifted[order]) / total
    size = min(int(np.searchsorted(np.cumsum(mass), TOP_P)) + 1, len(order))
    kept = mass[:size] / mass[:size].sum()
    return dict(zip(order[:size].tolist(), kept.tolist(), strict=True))
