"""What an MLC variant asks for: a scheme, and what the command line's options add to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import click

from edgeproof.artifact import Facts, Precision, Variant
from edgeproof.errors import InputError
from edgeproof.files.cache import keep_file, kept_file
from export.mlc.app_record import runs_in_webllm
from export.mlc.model_library import read_model_library
from export.mlc.schemes import SCHEMES, Scheme
from export.rounding.cast import FLOAT32
from export.rounding.options import (
    IMATRIX_OPTION,
    ROUNDING_OPTION,
    with_imatrix,
    with_rounding,
)
from export.rounding.recipe import ROUNDING, RoundedRecipe, Rounding
from export.rounding.registry import LATTICE

# Names of options.
RAW_F32 = "raw-f32"
MODEL_LIB = "model-lib"
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
class Recipe(RoundedRecipe):
    """`quantization` is MLC's name of the scheme, `model_lib` the hex SHA-256 of the file.

    `recovered`: recovery.json says that every matrix lies on the scheme's grid.
    """

    quantization: str
    raw_f32: bool = False
    model_lib: str | None = None
    model_url: str | None = None
    recovered: bool | None = None

    @property
    def scheme(self) -> Scheme:
        """How weights are stored."""
        scheme = SCHEMES[self.quantization]
        if not self.raw_f32:
            return scheme
        precision = Precision.FP32 if scheme.grid is None else scheme.precision
        return replace(scheme, raw=True, precision=precision)

    @property
    def library(self) -> bytes | None:
        """The content of the model library."""
        return None if self.model_lib is None else kept_file(self.model_lib, KEPT).read_bytes()

    @property
    def facts(self) -> Facts:
        """The model computes in the scheme's dtype."""
        return Facts(activations=self.scheme.dtype.name)


def variant_of(scheme: Scheme) -> Variant[Recipe]:
    """The scheme as the command line and the manifest know it."""
    return Variant("mlc", scheme.name, scheme.precision, Recipe(scheme.name), scheme.aliases)


AUTO = "auto"
# A recovered checkpoint's: the one scheme whose grid its matrices can all lie on.
RECOVERED = Variant(
    "mlc",
    "q4f16_1-recovered",
    Precision.LOW_BIT,
    Recipe("q4f16_1", rounding=Rounding(LATTICE), recovered=True),
    (AUTO,),
)


def with_options(
    variant: Variant[Recipe],
    *,
    raw_f32: bool = False,
    model_lib: Path | None = None,
    model_url: str | None = None,
    rounding: str | None = None,
    imatrix: Path | None = None,
) -> Variant[Recipe]:
    """The variant with the options' values in its recipe.

    What changes the weights is in its name too, such as q0f32-raw-f32.

    Raises:
        InputError: an option that does not fit the scheme, a model library or an importance matrix
            that is none, an unknown method.
    """
    if raw_f32:
        variant = _with_raw_f32(variant)
    given = None
    if model_lib is not None:
        digest, given = keep_file(model_lib, KEPT), MODEL_LIB
        read_model_library(kept_file(digest, KEPT).read_bytes(), str(model_lib))
        variant = replace(variant, recipe=replace(variant.recipe, model_lib=digest))
    if model_url is not None:
        if not model_url.startswith(("https://", "http://")):
            raise InputError(f"--{MODEL_URL} {model_url!r}: must begin with https:// or http://")
        given = given or MODEL_URL
        variant = replace(variant, recipe=replace(variant.recipe, model_url=model_url))
    scheme = variant.recipe.scheme
    if given is not None and not runs_in_webllm(scheme):
        raise InputError(f"--{given}: WebLLM cannot run {variant.name}: no WebGPU has bfloat16")
    if variant.recipe.recovered and rounding is not None:
        raise InputError(f"--{ROUNDING}: {variant.name} has codes already; leave it out")
    rounded = with_rounding(variant, rounding, has_codes=scheme.grid is not None)
    return with_imatrix(rounded, imatrix)


def _with_raw_f32(variant: Variant[Recipe]) -> Variant[Recipe]:
    if variant.recipe.scheme.dtype != FLOAT32:
        wide = ", ".join(name for name, item in SCHEMES.items() if item.dtype == FLOAT32)
        raise InputError(f"--{RAW_F32}: {variant.name} has no float32 values; choose from {wide}")
    recipe = replace(variant.recipe, raw_f32=True)
    return replace(
        variant,
        name=f"{variant.name}-{RAW_F32}",
        precision=recipe.scheme.precision,
        recipe=recipe,
        aliases=(),
    )
