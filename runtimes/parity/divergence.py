"""Per-position comparison of an export's logits with the reference's.

Formulas: KL(p‖q) = Σ p (log p − log q) in nats; token acceptance = Σ min(p̃, q̃) over the
distributions that a sampler at temperature 0.2 and top-p 0.9 draws from, which is the probability
that an optimally coupled sampler emits the same token (Leviathan et al. 2023, arXiv:2211.17192).

Everything is float64 but the exponentials of unlikely tokens, which are taken in the logits' own
precision: below e⁻¹² of the best one's probability, all of them together have a hundredth of it.
They change a KL by some 1e-10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

# Sampling defaults of the SmolLM model card.
TEMPERATURE = 0.2
TOP_P = 0.9
# Below one nat between the two best tokens the reference itself is undecided.
CLEAR_MARGIN = 1.0
# Tokens this many temperatures below the best one have e^-30 = 1e-13 of its chance.
CANDIDATE_TEMPERATURES = 30.0
# Nats below the best token within which probabilities are float64.
HEAD = 12.0
# Rows per step: many, since steps are short; few, since their memory is the processor's cache.
BLOCK_ROWS = 8

# The reference's logits [B, V], the export's [B, V], and the token that follows each position,
# int64 [B], -1 where none does → float64 [B]. B is small; it is called in several threads.
PerPosition = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class PositionMetrics:
    """One value per position (float64 [T], bool [T]).

    The `nll` arrays are the negative log-likelihood of the next token, NaN at the last position;
    the `best` ones are the most likely tokens (int64); the squares are means over the vocabulary.
    `further` has what metrics with a function of their own gave, by the metric's name.
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
    further: Mapping[str, np.ndarray] = field(default_factory=dict)

    def taken(self, positions: np.ndarray) -> PositionMetrics:
        """The values at these positions (int64 [n]), in this order."""
        own = {name: getattr(self, name)[positions] for name in ARRAYS}
        return PositionMetrics(
            **own, further={name: values[positions] for name, values in self.further.items()}
        )


ARRAYS = tuple(field.name for field in fields(PositionMetrics) if field.name != "further")


def compare(
    reference: np.ndarray,
    export: np.ndarray,
    ids: Sequence[int],
    further: Mapping[str, PerPosition] | None = None,
) -> PositionMetrics:
    """Compare an export's logits [T, V] with the reference's at consecutive positions.

    `ids` are the tokens there, and the one that follows where the text goes on: [T] or [T + 1].
    A position with NaN or infinite logits has a `kl` of NaN and an `acceptance` of 0. The functions
    in `further` see the same blocks of rows while those are in the processor's cache.

    Raises:
        ValueError: the shapes differ, or a further function's.
    """
    if reference.shape != export.shape or len(ids) - len(reference) not in (0, 1):
        raise ValueError(f"logits {export.shape} against {reference.shape}, {len(ids)} tokens")
    kind = np.result_type(reference, export)
    reference, export = reference.astype(kind, copy=False), export.astype(kind, copy=False)
    scratch = np.empty((2, BLOCK_ROWS, reference.shape[-1]), kind)
    following = np.array([*ids[1:], -1])[: len(reference)]
    blocks = (slice(start, start + BLOCK_ROWS) for start in range(0, len(reference), BLOCK_ROWS))
    parts = []
    for b in blocks:
        rows = reference[b], export[b], following[b]
        part = _compare_block(*rows, scratch)
        parts.append(replace(part, further=_further(further, *rows)) if further else part)
    return concatenate(parts)


def concatenate(parts: Sequence[PositionMetrics]) -> PositionMetrics:
    """Join metrics of consecutive positions or of several documents."""
    own = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    names = parts[0].further
    return PositionMetrics(
        **own, further={n: np.concatenate([part.further[n] for part in parts]) for n in names}
    )


class _Softmax:
    """exp(logit − peak) of rows [B, V]: `weights` [n] of likely tokens, `tail` [B, V] of others.

    `best` [B] are the most likely tokens, `head` [n] the places of the likely ones in the flat
    rows, `owner` [n] their rows and `logits` [n] their logits; `total` [B] is the sum of a row's
    weights, `log_total` [B] the logarithm of Σ exp(logit). float64, but the tail.
    """

    def __init__(self, rows: np.ndarray, tail: np.ndarray) -> None:
        """Of logits [B, V]; `tail` [B, V] is memory."""
        self.count, width = rows.shape
        self.best = rows.argmax(-1)
        peak = rows[np.arange(self.count), self.best]
        self.tail = np.subtract(rows, peak[:, None], out=tail)
        self.head = np.flatnonzero(tail > -HEAD)
        np.exp(tail, out=tail)
        tail.reshape(-1)[self.head] = 0
        self.owner, self._tokens = np.divmod(self.head, width)
        self.logits = rows.reshape(-1)[self.head].astype(np.float64)
        self.weights = np.exp(self.logits - peak[self.owner])
        self.total = self._sums(self.weights) + tail.sum(-1, dtype=np.float64)
        self.log_total = peak + np.log(self.total)

    def mean(self, values: np.ndarray, of_head: np.ndarray) -> np.ndarray:
        """The expectations [B] of values [B, V], which are `of_head` [n] in float64."""
        sums = self._sums(self.weights * of_head) + _dot(self.tail, values)
        return np.asarray(sums / self.total)

    def likely(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The likely tokens of each row, and their logits."""
        ends = np.searchsorted(self.owner, np.arange(self.count + 1)).tolist()
        for row in map(slice, ends, ends[1:]):
            yield self._tokens[row], self.logits[row]

    def _sums(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(np.bincount(self.owner, values, self.count))


@np.errstate(invalid="ignore")
def _compare_block(
    reference: np.ndarray, export: np.ndarray, following: np.ndarray, scratch: np.ndarray
) -> PositionMetrics:
    """Compare logits [B, V]; `scratch` is [2, ≥ B, V]: new memory costs more than the work."""
    first, second = scratch[:, : len(reference)]
    q, p = _Softmax(export, first), _Softmax(reference, second)
    difference = np.subtract(export, reference, out=first)
    mean = p.mean(difference, export.reshape(-1)[p.head] - p.logits)
    squared_error = _dot(difference, difference) / difference.shape[-1]
    largest = np.maximum(difference.max(-1), -difference.min(-1))
    centred = np.subtract(reference, reference.mean(-1, keepdims=True), out=first)
    rows, last = np.arange(len(reference)), following < 0
    return PositionMetrics(
        # Σ p (log p − log q), with both normalisers taken out of the sum
        kl=q.log_total - p.log_total - mean,
        top1=p.best == q.best,
        clear=np.array([_margin(logits) > CLEAR_MARGIN for _, logits in p.likely()]),
        acceptance=np.array([_overlap(*pair) for pair in zip(p.likely(), q.likely(), strict=True)]),
        nll_reference=np.where(last, np.nan, p.log_total - reference[rows, following]),
        nll_export=np.where(last, np.nan, q.log_total - export[rows, following]),
        max_difference=largest,
        squared_error=squared_error,
        squared_signal=_dot(centred, centred) / centred.shape[-1],
        best_reference=p.best,
        best_export=q.best,
    )


def _further(
    functions: Mapping[str, PerPosition],
    reference: np.ndarray,
    export: np.ndarray,
    following: np.ndarray,
) -> dict[str, np.ndarray]:
    found = {}
    for name, function in functions.items():
        values = np.asarray(function(reference, export, following), np.float64)
        if values.shape != following.shape:
            raise ValueError(f"{name}: values {values.shape} for {len(following)} positions")
        found[name] = values
    return found


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Σ ab of each row: float64 [B]. Row by row, where einsum adds up more precisely."""
    return np.array([np.einsum("v,v->", *pair) for pair in zip(a, b, strict=True)], np.float64)


def _margin(logits: np.ndarray) -> float:
    """By how much the best one exceeds the second, or infinity if there is no other."""
    return float(np.diff(np.partition(logits, -2)[-2:])[0]) if len(logits) > 1 else np.inf


def _overlap(p: tuple[np.ndarray, np.ndarray], q: tuple[np.ndarray, np.ndarray]) -> float:
    """Σ min(p̃, q̃) of two rows' likely tokens and logits."""
    theirs, ours = (
        {tokens[index]: mass for index, mass in nucleus(logits).items()}
        for tokens, logits in (p, q)
    )
    return sum(min(mass, ours[token]) for token, mass in theirs.items() if token in ours)


def nucleus(
    logits: np.ndarray, temperature: float = TEMPERATURE, top_p: float = TOP_P
) -> dict[int, float]:
    """The sampling distribution over logits [V]: token → renormalised probability.

    The set is the smallest one of most likely tokens whose mass reaches `top_p`.
    """
    peak = logits.max(initial=-np.inf)
    candidates = np.flatnonzero(logits >= peak - CANDIDATE_TEMPERATURES * temperature)
    weights = np.exp((logits[candidates].astype(np.float64) - peak) / temperature)
    order = np.argsort(-weights, kind="stable")
    mass = weights[order] / weights.sum()
    size = min(int(np.searchsorted(np.cumsum(mass), top_p)) + 1, len(order))
    kept = mass[:size] / mass[:size].sum()
    return dict(zip(candidates[order[:size]].tolist(), kept.tolist(), strict=True))
