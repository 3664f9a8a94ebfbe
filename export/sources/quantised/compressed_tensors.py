"""compressed-tensors: integers or 8-bit floats with scales per tensor, channel, group or block.

Source: https://github.com/neuralmagic/compressed-tensors, `compressors/pack_quantized`,
`compressors/naive_quantized` and `quantization/lifecycle/forward_helpers.py` (`_dequantize`), which
transformers loads such checkpoints with:

    weight_packed      int32 [out, in × bits / 32]  codes + 2^(bits − 1), the lowest bits first
    weight_shape       int64 [2]
    or weight          int8 or float8 (e4m3) [out, in]
    weight_scale       float [out, groups], [out, 1], [1], [] or [out / rows, in / columns] (blocks)
    weight_zero_point  as the scales; packed ones along the outputs: int32 [out × bits / 32, groups]
    weight_g_idx       int32 [in], the group of each input where activations gave the order
    weight[o, i] = scale × (code[o, i] − zero point)

The library multiplies in the scales' type, mostly bfloat16; here the product is exact for it. Which
of the config's groups a weight belongs to follows from its tensors: their types and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.sources.quantised.arithmetic import affine, unpacked
from export.sources.quantised.blocks import block_rows
from export.sources.quantised.compressed_schemes import Scheme, groups_of, schemes_of
from export.sources.quantised.reader import Matrix, Reading, Rows, Shape, stem
from export.sources.quantised.tensors import FLOAT8, FLOATS, INT8, INT32, INT64, Tensors

# Scales of activations and of the KV cache: no weight depends on them.
UNUSED = (
    "input_scale", "input_zero_point", "output_scale", "output_zero_point", "k_scale", "v_scale",
    "k_zero_point", "v_zero_point", "q_scale", "input_global_scale",
)  # fmt: skip
ACTIVATIONS = "that checkpoint also quantises activations; here they are computed in float"
CACHE = "that checkpoint also quantises keys and values in the cache; here they are floats"


class CompressedTensors:
    """See `export.sources.quantised.reader.Reader`."""

    def read(
        self, settings: Mapping[str, Any], tensors: Tensors, shapes: Mapping[str, Shape]
    ) -> Reading:
        """See `Reader`."""
        groups = groups_of(settings)
        schemes = schemes_of(groups)
        matrices: dict[str, Matrix] = {}
        for name, shape in shapes.items():
            packed = f"{stem(name)}.weight_packed"
            if packed in tensors:
                matrices[name] = _packed(tensors, packed, shape, schemes)
            elif name in tensors and _stored_as_codes(tensors, name):
                matrices[name] = _plain(tensors, name, shape, schemes)
        notes = []
        if any(group.get("input_activations") for group in groups):
            notes.append(ACTIVATIONS)
        if settings.get("kv_cache_scheme"):
            notes.append(CACHE)
        unused = {name for name in tensors if name.rpartition(".")[2] in UNUSED}
        said = "; ".join(dict.fromkeys(scheme.said for scheme in schemes))
        return Reading(f"compressed-tensors, {said}", matrices, frozenset(unused), tuple(notes))


def _stored_as_codes(tensors: Tensors, name: str) -> bool:
    """Whether a weight is stored as codes; floats with scales are refused."""
    if tensors.dtype(name) not in FLOATS:
        return True
    if f"{name}_scale" in tensors:
        raise tensors.wrong(
            name, "is not compressed but has scales; save it again with save_compressed=True"
        )
    return False


def _packed(tensors: Tensors, codes: str, shape: Shape, schemes: Sequence[Scheme]) -> Matrix:
    out, inputs = shape
    tensors.require(codes, codes, (INT32,))
    stored = tensors.shape(codes)
    fitting = [
        scheme
        for scheme in schemes
        if scheme.kind == "int" and stored == (out, -(-inputs * scheme.bits // 32))
    ]
    if not fitting:
        raise tensors.wrong(
            codes,
            f"has shape {list(stored)}, into which no group of config.json packs {list(shape)}",
        )
    said = tensors.require(f"{codes.removesuffix('_packed')}_shape", codes, (INT64, INT32), (2,))
    if tuple(tensors.array(said).tolist()) != shape:
        raise tensors.wrong(
            said, f"says {tensors.array(said).tolist()}, config.json asks for {list(shape)}"
        )
    bits = fitting[0].bits

    def read(start: int, stop: int) -> np.ndarray:
        fields = unpacked(tensors.array(codes)[start:stop], bits)[:, :inputs]
        return np.asarray(fields.astype(np.int16) - (1 << (bits - 1)))

    return _scaled((codes, said), shape, _scaling(tensors, codes, shape, fitting), read)


def _plain(tensors: Tensors, codes: str, shape: Shape, schemes: Sequence[Scheme]) -> Matrix:
    tensors.require(codes, codes, (INT8, FLOAT8), shape)
    kind = "float" if tensors.dtype(codes) == FLOAT8 else "int"
    fitting = [scheme for scheme in schemes if scheme.kind == kind]
    if not fitting:
        raise tensors.wrong(
            codes, f"is stored as {tensors.dtype(codes).name}, as no group of config.json says"
        )
    scaling = _scaling(tensors, codes, shape, fitting)
    return _scaled((codes,), shape, scaling, lambda start, stop: tensors.array(codes)[start:stop])


@dataclass(frozen=True)
class _Scaling:
    """What goes with the codes of a weight.

    `groups` are those of an output; `outputs` is 1 where one scale is for all. `zeros` and `order`
    are None where there are none. `bits` are those of packed zero points, else 0.
    """

    tensors: Tensors
    outputs: int
    groups: int
    scales: str
    zeros: str | None
    order: str | None
    index: np.ndarray | None
    bits: int
    block: tuple[int, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(name for name in (self.scales, self.zeros, self.order) if name)

    @property
    def step(self) -> int:
        """See `Matrix`."""
        return 32 // self.bits if self.bits else 1

    def apply(self, codes: np.ndarray, start: int) -> np.ndarray:
        """Outputs from `start` on, float32."""
        if self.block:
            return block_rows(codes, self.tensors.array(self.scales), self.block, start)
        stop = start + len(codes)
        scales = self._of(self.scales, start, stop).astype(np.float32)
        return affine(codes, scales, self._zero_points(start, stop), self.index)

    def _zero_points(self, start: int, stop: int) -> np.ndarray | int:
        if self.zeros is None:
            return 0
        if not self.bits:
            return self._of(self.zeros, start, stop)
        words = self.tensors.array(self.zeros)[start // self.step : -(-stop // self.step)]
        fields = unpacked(words.T, self.bits)[:, : stop - start]
        return np.asarray(fields.T.astype(np.int16) - (1 << (self.bits - 1)))

    def _of(self, name: str, start: int, stop: int) -> np.ndarray:
        stored = self.tensors.array(name)
        if self.outputs == 1:
            return np.broadcast_to(stored.reshape(1, 1), (stop - start, 1))
        return np.asarray(stored.reshape(self.outputs, self.groups)[start:stop])


def _scaled(codes: tuple[str, ...], shape: Shape, scaling: _Scaling, read: Rows) -> Matrix:
    def rows(start: int, stop: int) -> np.ndarray:
        return scaling.apply(read(start, stop), start)

    return Matrix(shape, (*codes, *scaling.parts), rows, scaling.step)


def _scaling(tensors: Tensors, codes: str, shape: Shape, schemes: Sequence[Scheme]) -> _Scaling:
    """Scales, zero points and order of a weight, of the first scheme that they fit."""
    out, inputs = shape
    at = codes.removesuffix("_packed")
    allowed = [size for scheme in schemes for size in scheme.scale_shapes(out, inputs)]
    if not allowed:
        raise tensors.wrong(codes, f"cannot be divided into groups of {schemes[0].size}")
    scales = tensors.scales(f"{at}_scale", codes, *allowed)
    fitting = [s for s in schemes if tensors.shape(scales) in s.scale_shapes(out, inputs)]
    scheme, zeros, order = fitting[0], f"{at}_zero_point", f"{at}_g_idx"
    if zeros not in tensors and not any(item.symmetric for item in fitting):
        tensors.require(zeros, codes, (INT8, INT32))
    groups = inputs // scheme.size if scheme.strategy == "group" else 1
    block = scheme.block if scheme.strategy == "block" else ()
    bits = 0
    if zeros in tensors:
        if block:
            raise tensors.wrong(zeros, "is a zero point of blocks, which is not read")
        bits = _bits_of_zeros(tensors, zeros, scales, (out, groups), scheme.bits)
    index = None
    if scheme.strategy == "group" and order in tensors:
        index = _order(tensors, order, inputs, groups)
    return _Scaling(
        tensors,
        1 if scheme.strategy == "tensor" else out,
        groups,
        scales,
        zeros if zeros in tensors else None,
        order if order in tensors else None,
        index,
        bits,
        block,
    )


def _bits_of_zeros(
    tensors: Tensors, zeros: str, scales: str, shape: tuple[int, int], bits: int
) -> int:
    """The bits of a packed zero point [outputs, groups]; 0 where each is a number of its own."""
    tensors.require(zeros, zeros, (INT8, INT32, FLOAT8))
    if tensors.dtype(zeros) != INT32:
        tensors.require(zeros, zeros, (INT8, FLOAT8), tensors.shape(scales))
        return 0
    tensors.require(zeros, zeros, (INT32,), (-(-shape[0] * bits // 32), shape[1]))
    return bits


def _order(tensors: Tensors, name: str, inputs: int, groups: int) -> np.ndarray | None:
    """The group of each input; None where it is filled with −1: no order."""
    tensors.require(name, name, (INT32, INT64), (inputs,))
    index = tensors.array(name).astype(np.int64)
    if (index == -1).all():
        return None
    if not 0 <= index.min() <= index.max() < groups:
        raise tensors.wrong(
            name, f"names groups {index.min()} to {index.max()}; there are {groups}"
        )
    return index
