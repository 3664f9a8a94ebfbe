"""The type that a GGUF file calls itself, against those of its linear layers.

Which types llama-quantize mixes under a name, and what it takes where rows do not divide into
blocks: llama.cpp `src/llama-quant.cpp`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

LABEL = re.compile(
    r"(?<![A-Za-z0-9])(IQ\d_[A-Z]+|T?Q\d_K(?:_[SMLX]+)?|T?Q\d_\d|MXFP4|BF16|FP?16|FP?32)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
# Names of mixtures that say no type → the types that most of their weights have.
MIXED = {
    "Q2_K_S": ("Q2_K",),
    "Q2_K": ("Q2_K", "Q3_K"),
    "IQ3_XS": ("IQ3_XXS", "IQ3_S"),
    "IQ3_M": ("IQ3_S",),
    "IQ2_S": ("IQ2_XS", "IQ2_S"),
    "IQ2_M": ("IQ2_S", "IQ2_XS"),
    "MXFP4_MOE": ("MXFP4",),
}
# What llama-quantize takes in place of a type whose blocks do not divide the rows.
FALLBACKS = {
    **dict.fromkeys(
        ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M", "Q2_K", "Q3_K",
         "IQ4_XS", "TQ1_0", "TQ2_0"),
        ("IQ4_NL", "Q4_0", "F16"),
    ),
    "Q4_K": ("Q5_0",),
    "Q5_K": ("Q5_1",),
    "Q6_K": ("Q8_0",),
}  # fmt: skip


def label_of(file: str, stated: str | None) -> str | None:
    """What a file calls itself: its name, which people choose by, goes before its metadata."""
    found = LABEL.findall(file)
    if not found:
        return stated
    return re.sub("^FP", "F", str(found[-1]).upper())


def misnomer(label: str | None, linears: Mapping[str, int], rows: Sequence[int] = ()) -> str | None:
    """In a line, where most weights of the linear layers are of no type that the label stands for.

    `linears` are the parameters of each type, `rows` how long rows there are.
    """
    if label is None:
        return None
    meant = _meant(label)
    if not all(name in GGMLQuantizationType.__members__ for name in meant):
        return None
    allowed = {*meant}
    for name in meant:
        block = GGML_QUANT_SIZES[GGMLQuantizationType[name]][0]
        if any(row % block for row in rows):
            allowed |= {*FALLBACKS.get(name, ())}
    most = max(linears, key=lambda name: (linears[name], name))
    if most in allowed:
        return None
    share = linears[most] / sum(linears.values())
    bits = sum(_bits(name) * count for name, count in linears.items()) / sum(linears.values())
    return (
        f"mislabelled: called {label}, but {share:.0%} of the linear layers' weights are {most}"
        f" ({bits:.2f} bits where {label} has about {_bits(meant[0]):.2f})"
    )


def fallbacks(label: str | None, linears: Mapping[str, int]) -> str | None:
    """In a line, the weights that are in another type since rows do not divide into blocks."""
    others = {other for name in _meant(label or "") for other in FALLBACKS.get(name, ())}
    found = {name: count for name, count in linears.items() if name in others}
    if not found:
        return None
    share = sum(found.values()) / sum(linears.values())
    return f"{share:.0%} of the linear layers' weights fell back to {'/'.join(sorted(found))}"


def _meant(label: str) -> tuple[str, ...]:
    return MIXED.get(label, (re.sub(r"(_K)_[SMLX]+$", r"\1", label),))


def _bits(name: str) -> float:
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    return float(size * 8 / block)
