"""Read MLX folders: codes in 32-bit words, a scale and a bias for each group.

A value is scale × code + bias, here in float32, as MLX computes it for float32 activations; in
float16 or bfloat16 it rounds each value once more. Without biases, scales of uint8 beside 4-bit
codes are exponents, and a value is a level of E2M1 × 2^(exponent − 127): the mode `mxfp4`.
Source: https://github.com/ml-explore/mlx, mlx/backend/cpu/quantized.cpp; mlx_lm/utils.py
(`infer_quant_config`) for what shapes say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from edgeproof.artifact import Artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.checkpoints.special_tokens import CONFIG
from edgeproof.errors import InputError
from runtimes.weights.fused import Heads
from runtimes.weights.safetensors_file import Entry, all_entries
from runtimes.weights.stored import StoredWeights, by_rows

SUFFIX = ".safetensors"
WORD_BITS, AFFINE, MXFP4 = 32, "affine", "mxfp4"
PARTS = ("scales", "biases")
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
E2M1_BITS, EXPONENT_BIAS = 4, 127


def read(artifact: Artifact) -> StoredWeights:
    """See `runtimes.formats.dequantise`.

    Raises:
        InputError: a damaged file, or a mode of quantisation that this reader does not know.
    """
    config = read_json(artifact.path / CONFIG)
    stored = all_entries(artifact.files(SUFFIX))
    sources: dict[str, Callable[[], np.ndarray]] = {}
    for name, entry in stored.items():
        module, _, kind = name.rpartition(".")
        if kind in PARTS:
            continue
        scales = stored.get(f"{module}.scales")
        if kind != "weight" or scales is None:
            sources[name] = entry.read
            continue
        biases = stored.get(f"{module}.biases")
        group, mode = group_of(config, module), mode_of(config, module)
        if mode not in (AFFINE, MXFP4) or (biases is None) != (mode == MXFP4):
            beside = "no biases" if biases is None else "biases"
            raise InputError(f"{artifact.path}: {module} has {beside} in the mode {mode}")
        sources[name] = partial(_dequantised, entry, scales, biases, group)
    try:
        heads = Heads.of(config)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{artifact.path / CONFIG}: no sizes of heads; export it again") from None
    return StoredWeights(sources, heads, artifact.path)


def group_of(config: Mapping[str, Any], module: str) -> int:
    """How many values of a module's rows share a scale, as config.json says.

    Raises:
        InputError: it does not say.
    """
    group = _said(config, module).get("group_size")
    if type(group) is not int or group <= 0:
        raise InputError(f"{CONFIG}: no group_size of {module}, which has scales")
    return group


def mode_of(config: Mapping[str, Any], module: str) -> str:
    """What a module's codes stand for, by MLX's name; where nothing says so, `affine`."""
    return str(_said(config, module).get("mode", AFFINE))


def _said(config: Mapping[str, Any], module: str) -> Mapping[str, Any]:
    said = config.get("quantization", config.get("quantization_config"))
    own = said.get(module) if isinstance(said, Mapping) else None
    found = own if isinstance(own, Mapping) else said
    return found if isinstance(found, Mapping) else {}


def _dequantised(words: Entry, scales: Entry, biases: Entry | None, group: int) -> np.ndarray:
    packed, scale = words.read(), scales.read()
    bias = scale if biases is None else biases.read()
    if packed.ndim != 2 or scale.shape != bias.shape or len(scale) != len(packed):
        raise ValueError(f"words {packed.shape} beside scales {scale.shape}, biases {bias.shape}")
    columns = scale.shape[1] * group
    bits, rest = divmod(packed.shape[1] * WORD_BITS, columns)
    if rest or not 2 <= bits <= 8:
        raise ValueError(f"{packed.shape[1]} words hold no {columns} codes")
    if biases is not None:
        return by_rows(
            len(packed), lambda rows: dequantise_groups(packed[rows], scale[rows], bias[rows], bits)
        )
    if bits != E2M1_BITS or scale.dtype != np.uint8:
        raise ValueError(f"{bits} bits beside scales of {scale.dtype}: not of the mode {MXFP4}")
    return by_rows(len(packed), lambda rows: dequantise_microscaled(packed[rows], scale[rows]))


def dequantise_groups(
    words: np.ndarray, scales: np.ndarray, biases: np.ndarray, bits: int
) -> np.ndarray:
    """The values in float32: scale × code + bias.

    `words` is uint32 [rows, words], a row one stream of codes of so many `bits`, the lowest bits
    first; scales and biases [rows, groups]. Returns [rows, columns].
    """
    grouped = _codes(words, bits).astype(np.float32).reshape(*scales.shape, -1)
    grouped *= scales.astype(np.float32)[..., None]
    grouped += biases.astype(np.float32)[..., None]
    return grouped.reshape(len(words), -1)


def dequantise_microscaled(words: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The values in float32: level × 2^(scale − 127).

    `words` is uint32 [rows, words] of 4-bit codes, scales uint8 [rows, groups]. Returns [rows,
    columns].
    """
    grouped = E2M1[_codes(words, E2M1_BITS)].reshape(*scales.shape, -1)
    with np.errstate(over="ignore"):  # an exponent above 2¹²⁵ is for the parity run to judge
        grouped = np.ldexp(grouped, scales.astype(np.int32)[..., None] - EXPONENT_BIAS)
    return np.asarray(grouped.reshape(len(words), -1))


def _codes(words: np.ndarray, bits: int) -> np.ndarray:
    """Codes uint32 [rows, columns]."""
    columns = words.shape[1] * WORD_BITS // bits
    starts = np.arange(columns, dtype=np.int64) * bits
    index, shift = starts // WORD_BITS, (starts % WORD_BITS).astype(np.uint32)
    codes = words[:, index] >> shift
    over = np.flatnonzero(shift + bits > WORD_BITS)
    codes[:, over] |= words[:, index[over] + 1] << (np.uint32(WORD_BITS) - shift[over])
    codes &= np.uint32((1 << bits) - 1)
    return np.asarray(codes)
