"""What building a decoder's graph needs: its weights by role, and the operators to choose from.

`Operators` is the seam: norms and attention are contrib operators of ONNX Runtime in
`export.onnx.fused`, standard ones in `export.onnx.portable`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from edgeproof.families import BIASES, DecoderConfig, Parameter, Role
from edgeproof.families.rope import Rope, scaled_frequencies
from export.onnx.graph import Dim, Graph
from export.onnx.linear import EmitLinear
from export.onnx.rotary import cosines, sines
from export.onnx.weights import table
from export.targets import Target, stack_rows, with_norm_offset

# A norm → the linear layer whose outputs it takes on their way into the residual stream.
BEFORE_OUT_NORM = {Role.ATTENTION_OUT_NORM: Role.OUTPUT, Role.MLP_OUT_NORM: Role.DOWN}
BATCH, SEQUENCE = "batch_size", "sequence_length"
PAST, TOTAL = "past_sequence_length", "total_sequence_length"
# exp(-10000) is 0 in every float type, yet sums with scores stay finite in float16: with -inf, a
# row of padding would become NaN and poison the real rows through the KV cache.
HIDDEN_KEY_BIAS = -10_000.0


# Whether linear weights that share their input may be stored as one.
Fusible = Callable[[Sequence[Parameter]], bool]


class Operators(Protocol):
    """How a graph computes norms and attention. Values are of the graph's `dtype`."""

    def norm(self, x: str, weight: Target, path: str, shape: Sequence[Dim], epsilon: float) -> str:
        """RMSNorm of the last axis of x, whose shape is `shape`."""

    def add_norm(
        self, residual: str, skip: str, weight: Target, path: str, epsilon: float
    ) -> tuple[str, str]:
        """RMSNorm of residual + skip [batch, sequence, hidden]; and that sum."""

    def attention(self, query_key_value: Sequence[str], layer: int, path: str) -> str:
        """Attention of a layer over its past and the new: [batch, sequence, heads × size].

        Rotates queries and keys where the layer does. `query_key_value` are three values [batch,
        sequence, heads × size], or one with all three side by side. Produces the outputs
        present.N.key and present.N.value.
        """


class DecoderGraph:
    """A graph under construction, with the targets that it has used. See `build_decoder`."""

    def __init__(
        self,
        config: DecoderConfig,
        parameters: tuple[Parameter, ...],
        dtype: np.dtype[Any],
        linear: EmitLinear,
        residual_scale: float,
        fusible: Fusible,
    ) -> None:
        self.config = config
        self.dtype = dtype
        self.linear = linear
        self.residual_scale = residual_scale
        self.graph = Graph()
        self.targets: list[Target] = []
        self._fusible = fusible
        self._parameters = {(item.layer, item.role): item for item in parameters}
        self._into_residual = _into_residual(config)

    @property
    def epsilon(self) -> float:
        """What norms of the residual stream add to the mean square."""
        return self.config.norm_eps * self.residual_scale**2

    def rotary_tables(self) -> dict[Rope, list[str]]:
        """Stored cosines and sines [positions, rotated / 2] of each rotary embedding there is."""
        c = self.config
        stored = {}
        for number, rope in enumerate(filter(None, c.structure.ropes)):
            shape = (c.max_positions, rope.rotated(c.head_dim) // 2)
            angles = c.max_positions, scaled_frequencies(c.head_dim, rope), rope.amplitude
            name = f"rotary.{number}" if number else "rotary"
            tables = {f"{name}.cosine": cosines, f"{name}.sine": sines}
            stored[rope] = [
                self.graph.store(table(key, shape, self.dtype, partial(blocks, *angles)))
                for key, blocks in tables.items()
            ]
        return stored

    def window(self, layer: int) -> int | None:
        """How many positions a token sees there, its own included; None for all before it."""
        window = self.config.structure.layers[layer].window
        return None if window is None or window >= self.config.max_positions else window

    def path(self, role: Role, layer: int | None = None) -> str:
        """The module of a weight: /model/layers.0/mlp/up_proj of model.layers.0.mlp.up_proj."""
        module = self._parameters[layer, role].name.rpartition(".")[0]
        return "/" + re.sub(r"\.(?!\d)", "/", module)

    def parent(self, role: Role, layer: int) -> str:
        """The module around that of a weight."""
        return self.path(role, layer).rpartition("/")[0]

    def target(self, role: Role, layer: int | None = None) -> Target:
        """One parameter as the graph computes with it; remembers that it is used.

        A norm has its offset in it, and what enters the residual stream the stream's scale.
        """
        parameter = self._parameters[layer, role]
        target = Target(parameter.name, (parameter,), parameter.shape)
        target = with_norm_offset(target, self.config.structure)
        if role in self._into_residual and self.residual_scale != 1:
            target = _times(target, np.float32(self.residual_scale))
        return self._use(target)

    def fuses(self, roles: tuple[Role, ...], layer: int) -> bool:
        """Whether these linear weights may be stored as one."""
        return self._fusible([self._parameters[layer, role] for role in roles])

    def fused(self, name: str, roles: tuple[Role, ...], layer: int) -> Target:
        """Linear weights of one layer that share their input, or biases, stacked along outputs."""
        sources = tuple(self._parameters[layer, role] for role in roles)
        shape = (sum(source.shape[0] for source in sources), *sources[0].shape[1:])
        return self._use(Target(name, sources, shape, stack_rows))

    def multiplied(self, x: str, factor: float, name: str, path: str) -> str:
        """X times a constant; x itself for 1."""
        if factor == 1:
            return x
        return self.graph.node(
            "Mul", [x, self.graph.constant(name, np.array(factor, self.dtype))], path
        )

    def _use(self, target: Target) -> Target:
        self.targets.append(target)
        return target


def _into_residual(config: DecoderConfig) -> frozenset[Role]:
    """The last weights, and their biases, before something is added to the residual stream."""
    last = {
        norm if norm in config.structure.norms else linear
        for norm, linear in BEFORE_OUT_NORM.items()
    }
    return frozenset(last | {BIASES[role] for role in last if role in BIASES})


def _times(target: Target, scale: np.float32) -> Target:
    before = target.transform or (lambda arrays: arrays[0])
    return replace(target, transform=lambda arrays: before(arrays).astype(np.float32) * scale)
