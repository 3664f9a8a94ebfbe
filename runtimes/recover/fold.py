"""Scale input channels so that rounding hurts those least that matter most; the function stays.

A matrix's columns are multiplied with importance^α, and what is before it is divided by the same: a
norm's weights, or the rows of `up` for `down`. α is what plain rounding under H likes best. Source:
Lin et al. 2023 (AWQ, arXiv:2306.00978). What norms multiply with comes out as float16 values; what
that rounding changes is made up for in the columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from edgeproof.families import BIASES, DecoderConfig, Parameter, Role
from runtimes.calibrate.moments import Moments
from runtimes.recover.grids import GRIDS
from runtimes.recover.rounding import ROWS, plainly_rounded
from runtimes.recover.scales import row_errors

ALPHAS = (0.0, 0.2, 0.4, 0.6)
LEAST, MOST = 0.05, 20.0
PLAIN = GRIDS["q4"]

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Fold:
    """Matrices that read the same channels, and what before them can be divided, if anything."""

    before: Role | None
    matrices: tuple[Role, ...]


@dataclass(frozen=True)
class Folded:
    """New values, moments of the new inputs, and by name the error of plain rounding in nats."""

    weights: Weights
    moments: Moments
    errors: dict[str, float]


def folds(config: DecoderConfig) -> tuple[Fold, ...]:
    """What can be folded in a layer of this decoder, and what else is to be rounded."""
    gated, norms = config.structure.gated, config.structure.norms
    input_norm, mlp_norm = (
        role if role in norms else None for role in (Role.INPUT_NORM, Role.MLP_NORM)
    )
    return (
        Fold(input_norm, (Role.QUERY, Role.KEY, Role.VALUE)),
        Fold(None, (Role.OUTPUT,)),
        Fold(mlp_norm, (Role.GATE, Role.UP) if gated else (Role.UP,)),
        # Without a gate the activation is between the two.
        Fold(Role.UP if gated else None, (Role.DOWN,)),
    )


def fold(
    config: DecoderConfig,
    parameters: Sequence[Parameter],
    weights: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    wanted: Sequence[Fold],
    shares: torch.Tensor | None = None,
) -> Folded:
    """Fold what a layer, or the end of the model, has.

    Args:
        config: the decoder.
        parameters: those of the layer.
        weights: their values, by name; float32.
        moments: H of the matrices, by name.
        wanted: what to fold.
        shares: how often each row is used [rows], where they are not used alike.
    """
    names = {p.role: p.name for p in parameters}
    result = Folded(dict(weights), dict(moments), {})
    for item in wanted:
        best = min(_tries(config, names, result, item, shares), key=lambda found: found.error)
        result.weights.update(best.before)
        result.errors.update(best.errors)
        for name in best.errors:
            result.weights[name] = result.weights[name] * best.scales
            result.moments[name] = _rescaled(result.moments[name], best.scales)
    for p in parameters:
        if (norm := config.structure.norms.get(p.role)) is not None:
            result.weights[p.name] = halved(result.weights[p.name], norm.offset)
    return result


def halved(weights: torch.Tensor, offset: float) -> torch.Tensor:
    """A norm's weights such that offset + weight, with which x is multiplied, is a float16.

    So formats that store the sum in float16 hold it; float32 holds both exactly.
    """
    return (weights + offset).half().float() - offset


@dataclass(frozen=True)
class _Try:
    """Scales [in] of the matrices' columns, what is before them, and errors by name."""

    scales: torch.Tensor
    before: Weights
    errors: dict[str, float]

    @property
    def error(self) -> float:
        return sum(self.errors.values())


def _tries(
    config: DecoderConfig,
    names: Mapping[Role, str],
    now: Folded,
    item: Fold,
    shares: torch.Tensor | None,
) -> Iterator[_Try]:
    matrices = [names[role] for role in item.matrices]
    importance = sum((_relative(now.moments[name]) for name in matrices), torch.zeros(()))
    for alpha in ALPHAS if item.before is not None else (0.0,):
        scales, before = _scales(importance, alpha), Weights()
        if item.before is not None:
            before, scales = _divided(config, names, now.weights, item.before, scales)
        errors = {
            name: plain_error(
                now.weights[name] * scales, _rescaled(now.moments[name], scales), shares
            )
            for name in matrices
        }
        yield _Try(scales, before, errors)


def plain_error(
    weights: torch.Tensor, moment: torch.Tensor, shares: torch.Tensor | None = None
) -> float:
    """The loss in nats of KL that plain rounding to 4 bits predicts; as for `fold`."""
    errors = torch.cat(
        [
            row_errors(rows, plainly_rounded(rows, moment.diagonal(), PLAIN), moment)
            for rows in torch.split(weights, ROWS)
        ]
    )
    return float(errors.mean() if shares is None else (errors * shares).sum()) / 2


def _relative(moment: torch.Tensor) -> torch.Tensor:
    diagonal = moment.diagonal()
    return diagonal / diagonal.mean().clamp(min=torch.finfo(torch.float32).tiny)


def _scales(importance: torch.Tensor, alpha: float) -> torch.Tensor:
    """importance^α with geometric mean 1; importance is of squares."""
    scales: torch.Tensor = importance.clamp(min=1e-9) ** (alpha / 2)
    scales = scales / scales.log().mean().exp()
    return scales.clamp(LEAST, MOST)


def _divided(
    config: DecoderConfig,
    names: Mapping[Role, str],
    weights: Mapping[str, torch.Tensor],
    before: Role,
    scales: torch.Tensor,
) -> tuple[Weights, torch.Tensor]:
    """What is before, divided by scales; and the scales that make up for exactly that."""
    old = weights[names[before]]
    norm = config.structure.norms.get(before)
    if norm is None:
        changed = {names[before]: old / scales[:, None]}
        if before in config.biased:
            bias = names[BIASES[before]]
            changed[bias] = weights[bias] / scales
        return changed, scales
    offset = norm.offset
    new = halved((old + offset) / scales - offset, offset)
    effective = new + offset
    exact = torch.where(effective != 0, (old + offset) / effective, scales)
    return {names[before]: new}, exact


def _rescaled(moment: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Of inputs that are divided by scales."""
    return moment / torch.outer(scales, scales)
