"""What an MLC variant asks for: a scheme, and what the command line's options add to it.

A variant's `storage` holds the whole recipe, so that reuse and the manifest follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import click

from edgeproof.artifact import Precision, Variant
from edgeproof.errors import InputError
from edgeproof.files.cache import keep_file, kept_file
from export.mlc.app_record import runs_in_webllm
from export.mlc.model_library import read_model_library
from export.mlc.schemes import QUANTIZATION, SCHEMES, Scheme
from export.rounding.cast import FLOAT32
from export.rounding.options import (
    IMATRIX_OPTION,
    ROUNDING_OPTION,
    with_imatrix,
    with_rounding,
)

# Keys of `Variant.storage` beside the tensor classes: the options they come from.
RAW_F32 = "raw-f32"
MODEL_LIB = "model-lib"  # → hex SHA-256 of the file
MODEL_URL = "model-url"
KEPT = "model-libraries"

OPTIONS = (
    click.Option(
        ["--raw-f32"],
        is_flag=True,
        help="Keep float32 values exact (q0f32, q4f32_1); MLC itself stores them as bfloat16.",
    ),
    click.Option(
        ["--model-lib"],
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE.wasm",
        help="Model library for WebLLM, to be put beside the weights; refused if it was compiled"
        " for other dimensions, another rotary base or another dtype.",
    ),
    click.Option(
        ["--model-url"],
        metavar="URL",
        help="Where the folder will be served, for webllm-model.json; without it, relative to the"
        " page.",
    ),
    ROUNDING_OPTION,
    IMATRIX_OPTION,
)


@dataclass(frozen=True)
class Recipe:
    """A variant, read; `library` is the content of a model library."""

    scheme: Scheme
    library: bytes | None
    url: str | None


def read_recipe(variant: Variant) -> Recipe:
    """The recipe that a variant's storage describes."""
    storage = dict(variant.storage)
    scheme = SCHEMES[storage[QUANTIZATION]]
    return Recipe(
        scheme=_raw(scheme) if RAW_F32 in storage else scheme,
        library=kept_file(storage[MODEL_LIB], KEPT).read_bytes() if MODEL_LIB in storage else None,
        url=storage.get(MODEL_URL),
    )


def with_options(
    variant: Variant,
    *,
    raw_f32: bool = False,
    model_lib: Path | None = None,
    model_url: str | None = None,
    rounding: str | None = None,
    imatrix: Path | None = None,
) -> Variant:
    """The variant with the options' values in its recipe.

    What changes the weights is in its name too, such as q0f32-raw-f32.

    Raises:
        InputError: an option that does not fit the scheme, a model library or an importance matrix
            that is none, an unknown method.
    """
    if raw_f32:
        variant = _with_raw_f32(variant)
    extra = []
    if model_lib is not None:
        digest = keep_file(model_lib, KEPT)
        read_model_library(kept_file(digest, KEPT).read_bytes(), str(model_lib))
        extra.append((MODEL_LIB, digest))
    if model_url is not None:
        if not model_url.startswith(("https://", "http://")):
            raise InputError(f"--{MODEL_URL} {model_url!r}: must begin with https:// or http://")
        extra.append((MODEL_URL, model_url))
    scheme = read_recipe(variant).scheme
    if extra and not runs_in_webllm(scheme):
        raise InputError(
            f"--{extra[0][0]}: WebLLM cannot run {variant.name}: no WebGPU has bfloat16"
        )
    chosen = replace(variant, storage=(*variant.storage, *extra))
    rounded = with_rounding(chosen, rounding, has_codes=scheme.grid is not None)
    return with_imatrix(rounded, imatrix)


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
    precision = Precision.FP32 if scheme.grid is None else scheme.precision
    return replace(scheme, raw=True, precision=precision)
