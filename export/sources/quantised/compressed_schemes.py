"""What `quantization_config` of compressed-tensors says of weights.

Source: https://github.com/neuralmagic/compressed-tensors, `quantization/quant_config.py`,
`quant_scheme.py` and `quant_args.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeproof.errors import InputError
from export.sources.quantised.settings import MOST, WHERE, table, whole, word

BITS = (4, 8)
FORMS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "dense")
MIXED = "mixed-precision"  # the groups say their own


@dataclass(frozen=True)
class Scheme:
    """How the weights of a group are stored.

    `kind` is "int" or "float"; `strategy` says what shares a scale: "tensor", "channel", "group" of
    `size` inputs, or "block" of `block` rows and columns.
    """

    bits: int
    kind: str
    symmetric: bool
    strategy: str
    size: int
    block: tuple[int, ...]

    def scale_shapes(self, out: int, inputs: int) -> tuple[tuple[int, ...], ...]:
        """The shapes that scales may have; none where the weight cannot be divided so."""
        if self.strategy == "tensor":
            return ((1,), (), (1, 1))
        if self.strategy == "channel":
            return ((out, 1), (out,))
        if self.strategy == "block":
            rows, columns = self.block
            return ((-(-out // rows), -(-inputs // columns)),)
        return ((out, inputs // self.size),) if inputs % self.size == 0 else ()

    @property
    def said(self) -> str:
        """In words."""
        place = {"group": f"groups of {self.size}", "block": "×".join(map(str, self.block))}
        kind = "" if self.kind == "int" else "float "
        zeros = "" if self.symmetric else ", zero points"
        return f"{kind}{self.bits} bits, {place.get(self.strategy, self.strategy)}{zeros}"


def groups_of(settings: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The groups of weights; each says how its weights and activations are quantised.

    Raises:
        InputError: weights of such a checkpoint are not read.
    """
    named = table(settings, "config_groups")
    groups = tuple(table(named, name) for name in named)
    forms = [word(group, ("format",), MIXED) for group in (settings, *groups)]
    wrong = [form for form in forms if form not in (*FORMS, MIXED)]
    if wrong:
        raise InputError(
            f"{WHERE}: compressed-tensors in the format {wrong[0]!r} is not read, only"
            f" {', '.join(FORMS)}; export the model that it was made from"
        )
    sparse = word(table(settings, "sparsity_config"), ("format",), "dense")
    if sparse != "dense":
        raise InputError(
            f"{WHERE}: compressed-tensors with sparse weights ({sparse}) is not read; export the"
            " model that it was made from"
        )
    if table(table(settings, "transform_config"), "config_groups"):
        raise InputError(
            f"{WHERE}: compressed-tensors with transforms (transform_config) computes more than its"
            " weights say; export the model that it was made from"
        )
    return groups


def schemes_of(groups: Sequence[Mapping[str, Any]]) -> tuple[Scheme, ...]:
    """How the weights of groups are stored.

    Raises:
        InputError: such weights are not read, or the config makes no sense.
    """
    return tuple(_scheme(table(group, "weights")) for group in groups if group.get("weights"))


def _scheme(weights: Mapping[str, Any]) -> Scheme:
    bits, kind = whole(weights, "num_bits", 8), word(weights, ("type",), "int")
    size = whole(weights, "group_size", -1)
    strategy = word(weights, ("strategy",), _usual(size))
    block = _block(weights.get("block_structure"))
    fits = {"tensor": True, "channel": True, "group": size > 0, "block": len(block) == 2}
    if bits not in BITS or (kind != "int" and (kind, bits) != ("float", 8)) or strategy not in fits:
        raise InputError(
            f"{WHERE}: compressed-tensors weights of type {kind}, {bits} bits, strategy {strategy}"
            " are not read; export the model that they were made from"
        )
    if not fits[strategy]:
        raise InputError(
            f"{WHERE}: weights of strategy {strategy} have group_size {size} and block_structure"
            f" {weights.get('block_structure')!r}"
        )
    return Scheme(bits, kind, weights.get("symmetric") is not False, strategy, size, block)


def _usual(size: int) -> str:
    """The strategy where none is named."""
    return "group" if size > 0 else "tensor"


def _block(said: Any) -> tuple[int, ...]:
    """Rows and columns, as a list or as "128x128"; () where they are not said."""
    parts = said.split("x") if isinstance(said, str) else said
    try:
        sizes = tuple(int(part) for part in parts or ())
    except (TypeError, ValueError):
        return ()
    return sizes if len(sizes) == 2 and 0 < min(sizes) <= max(sizes) < MOST else ()
