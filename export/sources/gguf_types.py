"""How GGUF stores values: block sizes and dequantisation of every supported type.

Dequantised values are those of `gguf.quants.dequantize`, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from edgeproof.errors import InputError

# Stored as they are, and written on in the same type.
FLOATS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# IQ4_NL and IQ4_XS are here because llama.cpp mixes them into its K-quant files.
QUANTISED = (
    *("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"),
)


@dataclass(frozen=True)
class Storage:
    """One type: `block` values take `block_bytes` bytes."""

    name: str
    block: int
    block_bytes: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values that `decode` returns."""
        return FLOATS.get(self.name, FLOATS["F32"])


def storage(code: int, where: str) -> Storage:
    """The type of that number in a GGUF file.

    Raises:
        InputError: unknown or unsupported; the message begins with `where`.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    names = {int(kind): str(kind.name) for kind in GGMLQuantizationType}
    name = names.get(code, f"type {code}")
    if name not in FLOATS and name not in QUANTISED:
        known = ", ".join([*FLOATS, *QUANTISED])
        raise InputError(f"{where} is stored as {name}; supported are {known}")
    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    return Storage(name, block, block_bytes)


def decode(raw: np.ndarray, kind: Storage) -> np.ndarray:
    """Values [rows, columns] in `kind.dtype` of stored rows, uint8 [rows, row bytes].

    A hostile scale may decode to NaN or infinity; the caller checks.
    """
    if kind.name in FLOATS:
        return raw.view(kind.dtype)
    from gguf import GGMLQuantizationType, quants

    # One long row: the library works on groups of 16 rows, each of which costs Python time.
    with np.errstate(all="ignore"):
        flat = quants.dequantize(raw.reshape(1, -1), GGMLQuantizationType[kind.name])
    return np.asarray(flat.reshape(len(raw), -1), dtype=np.float32)
