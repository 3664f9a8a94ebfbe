"""Second moments of what enters each matrix, weighted by how much its outputs matter.

For a matrix an H [in, in] such that errors e [out, in] of its weights cost a KL of about half the
mean over rows r of e_r H e_rᵀ, in nats. H is the mean of two parts, scaled to equal trace:

- Fisher information: a token counts |dL/dy|², y the matrix's outputs and L the loss on a label that
  is drawn from the model itself. Clipped at `CLIP` times a batch's median: else the first token, on
  which attention rests, outweighs all others together.
- the plain moment of more text, which new text is nearer to than to the Fisher part alone.

The table that is looked up gets the moment of the loss's gradient by its rows; the head, 1 − Σ p²
as a token's weight; a tied table the sum of both, since a token is looked up about as often as it
is predicted. Sources: Fisher weighting as in Kim et al. 2023 (SqueezeLLM, arXiv:2306.07629);
moments of inputs as in Frantar et al. 2022 (GPTQ, arXiv:2210.17323).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from edgeproof.families import Parameter, Role, rows_held
from runtimes.calibrate.decoder import Decoder

CLIP = 10.0
# Logits of so many positions are in memory at a time.
LOGIT_ROWS = 128
# Matrices with the same inputs → whose plain moment they share.
SHARED = {Role.KEY: Role.QUERY, Role.VALUE: Role.QUERY, Role.UP: Role.GATE}
FLOAT_BYTES = 4

Moments = dict[str, torch.Tensor]


@dataclass
class Sums:
    """Sums over the batches read yet: [in, in] by name, and the tokens of the weighted ones.

    `plain` is by role and layer of what stands for all matrices with the same inputs.
    """

    plain: dict[str, torch.Tensor] = field(default_factory=dict)
    weighted: dict[str, torch.Tensor] = field(default_factory=dict)
    batches: int = 0
    graded_tokens: int = 0

    def state(self) -> dict[str, torch.Tensor]:
        """All of it as tensors, for a file."""
        counts = torch.tensor([self.batches, self.graded_tokens])
        named = {f"plain/{key}": value for key, value in self.plain.items()}
        named |= {f"weighted/{key}": value for key, value in self.weighted.items()}
        return {**named, "counts": counts}

    @staticmethod
    def of_state(state: Mapping[str, torch.Tensor]) -> Sums:
        """What `state` gave."""
        parts: dict[str, dict[str, torch.Tensor]] = {"plain": {}, "weighted": {}}
        for name, value in state.items():
            kind, _, key = name.partition("/")
            if key:
                parts[kind][key] = value
        batches, tokens = (int(count) for count in state["counts"])
        return Sums(parts["plain"], parts["weighted"], batches, tokens)


@dataclass(frozen=True)
class Request:
    """What is measured: the matrices of these layers, and whether the tables' too.

    `graded` batches, the first ones, have a backward pass.
    """

    layers: range
    tables: bool
    graded: int


def layer_bytes(decoder: Decoder) -> int:
    """What the sums of one layer take."""
    matrices = [p for p in decoder.layer_matrices if p.layer == 0]
    plain = [p for p in matrices if _stands_for(decoder, p) == p.role]
    return FLOAT_BYTES * sum(p.shape[1] ** 2 for p in (*matrices, *plain))


def measure(
    decoder: Decoder,
    batches: Sequence[torch.Tensor],
    request: Request,
    sums: Sums,
    after: Callable[[Sums], None],
) -> None:
    """Add what batches [rows, time] of token ids give, from where `sums` are; `after` each one."""
    with _watched(decoder, request, sums) as graded:
        while sums.batches < len(batches):
            ids = batches[sums.batches]
            graded.on = sums.batches < request.graded
            embedded = decoder.embed(ids).requires_grad_(graded.on)
            with torch.set_grad_enabled(graded.on):
                hidden = decoder.hidden(embedded).flatten(0, 1)
            if request.tables:
                _add(sums.plain, "head", hidden.detach())
            if graded.on:
                torch.autograd.backward(
                    hidden, _draw(decoder, hidden.detach(), sums, request.tables)
                )
                if request.tables:
                    rows = embedded.grad.flatten(0, 1)  # type: ignore[union-attr]
                    weights = _clipped(rows.square().sum(1))
                    _add(sums.weighted, "lookup", functional.normalize(rows), weights)
                sums.graded_tokens += ids.numel()
            sums.batches += 1
            after(sums)


def layer_moments(decoder: Decoder, sums: Sums, layer: int) -> Moments:
    """H of a layer's matrices, by their names."""
    return {
        p.name: _mixed(sums.weighted[p.name], sums.plain[_plain_key(decoder, p)], sums)
        for p in decoder.layer_matrices
        if p.layer == layer
    }


def table_moments(decoder: Decoder, sums: Sums) -> Moments:
    """H of the embedding and, where it is another matrix, the head."""
    # Logits are a multiple of hidden · weightᵀ, and what a weight costs grows with its square.
    head = _mixed(sums.weighted["head"], sums.plain["head"], sums) * decoder.logits_factor**2
    lookup = sums.weighted["lookup"] / sums.graded_tokens
    names = {p.role: p.name for p in decoder.parameters.values()}
    if Role.HEAD in names:
        return {names[Role.EMBEDDING]: lookup, names[Role.HEAD]: head}
    return {names[Role.EMBEDDING]: lookup + head}


@dataclass
class _Graded:
    on: bool = False


@contextlib.contextmanager
def _watched(decoder: Decoder, request: Request, sums: Sums) -> Iterator[_Graded]:
    """Meanwhile, what enters the matrices is added up."""
    graded, modules = _Graded(), dict(decoder.model.named_modules())
    held = rows_held(decoder.parameters.values())
    with contextlib.ExitStack() as hooks:
        for p in decoder.layer_matrices:
            if p.layer in request.layers:
                module = modules[p.holder.removesuffix(".weight")]
                hook = _hook(decoder, p, held[p.name], sums)
                hooks.callback(module.register_forward_hook(hook).remove)
        yield graded


def _hook(
    decoder: Decoder, parameter: Parameter, outputs: slice, sums: Sums
) -> Callable[..., None]:
    """`outputs` are those of the module that the parameter gives."""
    own = _stands_for(decoder, parameter) == parameter.role

    def watch(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        rows = inputs[0].detach().flatten(0, 1)  # [tokens, in]
        if own:
            _add(sums.plain, _plain_key(decoder, parameter), rows)
        if output.requires_grad:

            def graded(gradient: torch.Tensor) -> None:
                weights = _clipped(gradient.flatten(0, 1)[:, outputs].square().sum(1))
                _add(sums.weighted, parameter.name, rows, weights)

            hook: Callable[..., Any] = output.register_hook
            hook(graded)

    return watch


def _stands_for(decoder: Decoder, parameter: Parameter) -> Role:
    shared = SHARED.get(parameter.role, parameter.role)
    return parameter.role if shared is Role.GATE and not decoder.config.structure.gated else shared


def _plain_key(decoder: Decoder, parameter: Parameter) -> str:
    return f"{parameter.layer}.{_stands_for(decoder, parameter).value}"


def _clipped(weights: torch.Tensor) -> torch.Tensor:
    return weights.clamp(max=float(CLIP * weights.median()))


def _add(
    sums: dict[str, torch.Tensor],
    name: str,
    rows: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> None:
    """Add Σ w x xᵀ of rows [n, in] with weights [n]."""
    if weights is not None:
        rows = rows * weights.sqrt()[:, None]
    with torch.no_grad():
        if name in sums:
            sums[name].addmm_(rows.T, rows)
        else:
            sums[name] = rows.T @ rows


def _draw(decoder: Decoder, hidden: torch.Tensor, sums: Sums, tables: bool) -> torch.Tensor:
    """dL/dh [n, hidden] of the loss on labels that the model's own distribution gives."""
    draw = torch.Generator().manual_seed(sums.batches)
    gradients = []
    for rows in torch.split(hidden, LOGIT_ROWS):
        chances = (rows @ decoder.head.T).softmax(-1)  # [n, V]
        if tables:
            _add(sums.weighted, "head", rows, 1 - chances.square().sum(-1))
        label = torch.multinomial(chances, 1, generator=draw)
        chances.scatter_add_(1, label, torch.full(label.shape, -1.0))
        gradients.append(chances @ decoder.head)
    return torch.cat(gradients)


def _mixed(weighted: torch.Tensor, plain: torch.Tensor, sums: Sums) -> torch.Tensor:
    share = weighted.trace() / plain.trace().clamp(min=torch.finfo(torch.float32).tiny)
    return (weighted + plain * share) / (2 * sums.graded_tokens)
