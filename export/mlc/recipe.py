"""What an MLC variant asks for: a scheme, and what the command line's options add to it.

A variant's `storage` holds the whole recipe, so that reuse and the manifest follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import click

from export.artifact import Precision, Variant
from export.errors import InputError
from export.mlc.schemes import QUANTIZATION, SCHEMES, Scheme
from export.quantization.cast import FLOAT32

RAW_F32 = "raw-f32"

OPTIONS = (
    click.Option(
        ["--raw-f32"],
        is_flag=True,
        help="Keep float32 values exact (q0f32, q4f32_1); MLC itself stores them as bfloat16.",
    ),
)


@dataclass(frozen=True)
class Recipe:
    """A variant, read."""

    scheme: Scheme


def read_recipe(variant: Variant) -> Recipe:
    """The recipe that a variant's storage describes."""
    storage = dict(variant.storage)
    scheme = SCHEMES[storage[QUANTIZATION]]
    return Recipe(scheme=_raw(scheme) if RAW_F32 in storage else scheme)


def customise(variant: Variant, *, raw_f32: bool = False) -> Variant:
    """The variant with the options' values in its recipe, and in its name such as q0f32-raw-f32.

    Raises:
        InputError: an option that does not fit the scheme.
    """
    if raw_f32:
        variant = _with_raw_f32(variant)
    return variant


def _with_raw_f32(variant: Variant) -> Variant:
    scheme = read_recipe(variant).scheme
    if scheme.dtype != FLOAT32:
        wide = ", ".join(name for name, item in SCHEMES.items() if item.dtype == FLOAT32)
        raise InputError(f"--{RAW_F32}: {scheme.name} has no float32 values; choose from {wide}")
    changed = _raw(scheme).variant
    return replace(
        changed,
        name=f"{variant.name}-{RAW_F32}",
        storage=(*changed.storage, (RAW_F32, "yes")),
        aliases=(),
    )


def _raw(scheme: Scheme) -> Scheme:
    precision = Precision.FP32 if scheme.rounding is None else scheme.precision
    return replace(scheme, raw=True, precision=precision)
