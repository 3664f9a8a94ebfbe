"""8-bit floats (e4m3) with scales: DeepSeek's and Qwen3's blocks, or one scale per row or tensor.

Source: https://github.com/huggingface/transformers, `integrations/finegrained_fp8.py`
(`Fp8Dequantize`), `integrations/fbgemm_fp8.py`, and https://huggingface.co/deepseek-ai/DeepSeek-V3,
`inference/fp8_cast_bf16.py`:

    weight            float8 e4m3 [out, in]
    weight_scale_inv  float [out / 128, in / 128], both rounded up (`weight_block_size`)
    or weight_scale   float [out, 1], or one number (`fbgemm_fp8`; per tensor)
    weight = float8 × its scale

The scale is multiplied with, whatever its name says. transformers computes the product in float32,
as here, and then rounds it to the type in which the model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from export.sources.quantised.blocks import block_rows
from export.sources.quantised.reader import Matrix, Reading, Shape, stem
from export.sources.quantised.settings import WHERE, is_whole
from export.sources.quantised.tensors import FLOAT8, Tensors

SCALES = ("weight_scale_inv", "weight_scale")
UNUSED = ("activation_scale", "input_scale", "input_scale_ub", "k_scale", "v_scale")
ACTIVATIONS = "that checkpoint also quantises activations; here they are computed in float"


class Fp8:
    """See `export.sources.quantised.reader.Reader`."""

    def read(
        self, settings: Mapping[str, Any], tensors: Tensors, shapes: Mapping[str, Shape]
    ) -> Reading:
        """See `Reader`."""
        block = _block(settings)
        found = {
            name: _matrix(tensors, stem(name), shape, block)
            for name, shape in shapes.items()
            if name in tensors and tensors.dtype(name) == FLOAT8
        }
        unused = {name for name in tensors if name.rpartition(".")[2] in UNUSED}
        place = f"blocks of {block[0]}×{block[1]}" if block else "scales per row or tensor"
        return Reading(f"float8 e4m3, {place}", found, frozenset(unused), (ACTIVATIONS,))


def _block(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    block = settings.get("weight_block_size")
    if block is None:
        return None
    if (
        not isinstance(block, list)
        or len(block) != 2
        or not all(is_whole(item) and item > 0 for item in block)
    ):
        raise InputError(f"{WHERE}: weight_block_size must be two whole numbers, it is {block!r}")
    return block[0], block[1]


def _matrix(tensors: Tensors, at: str, shape: Shape, block: tuple[int, int] | None) -> Matrix:
    (out, inputs), codes = shape, f"{at}.weight"
    tensors.require(codes, codes, (FLOAT8,), shape)
    allowed: list[tuple[int, ...]] = [(), (1,), (1, 1), (out, 1), (out,)]
    if block:
        allowed = [(-(-out // block[0]), -(-inputs // block[1])), ()]
    name = next((f"{at}.{key}" for key in SCALES if f"{at}.{key}" in tensors), None)
    scales = tensors.scales(name or f"{at}.{SCALES[0]}", codes, *allowed)
    one = tensors.size(scales) == 1
    sizes = (out, inputs) if one else block or (1, inputs)

    def rows(start: int, stop: int) -> np.ndarray:
        grid = tensors.array(scales).reshape(-1, -(-inputs // sizes[1]))
        return block_rows(tensors.array(codes)[start:stop], grid, sizes, start)

    return Matrix(shape, (codes, scales), rows)
