"""What an ONNX variant asks for, and how command-line options become part of its recipe and name.

Reuse and the manifest follow from the recipe; the name gets what differs from the dtype's defaults,
so that two recipes never share a folder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import click

from edgeproof.artifact import Facts, Precision, Variant
from edgeproof.errors import InputError
from export.rounding.recipe import RoundedRecipe

# --embedding → name of the storage, and the precision that it limits the variant to.
EMBEDDINGS = {
    "fp32": ("float32", Precision.FP32),
    "fp16": ("float16", Precision.FP16),
    "q8": ("q8", Precision.EIGHT_BIT),
    "q4": ("q4", Precision.LOW_BIT),
}
ASYMMETRIC = "-asymmetric"
WEB, NATIVE = "web", "native"
# Storage of linear layers and embedding: as many bits for each as its grid in recovery.json needs.
RECOVERED = "recovered"
FUSED, PORTABLE = "fused", "portable"
# The embeddings that standard operators look up and multiply with as they are.
PORTABLE_EMBEDDINGS = ("float32", "float16")
FLOAT_DTYPES = ("fp32", "fp16")
FOUR_BIT_DTYPES = ("q4", "q4f16")
# Linear layers whose activations are rounded to 8 bits in every call.
DYNAMIC = ("int8", "uint8")

OPTIONS = (
    click.Option(
        ["--embedding"],
        type=click.Choice(list(EMBEDDINGS)),
        help="How quantised dtypes store token embedding and head (once, if they are tied).",
    ),
    click.Option(
        ["--symmetric/--asymmetric"],
        default=None,
        help="q4 and q4f16: blocks without or with a zero point.  [default: asymmetric]",
    ),
    click.Option(
        ["--target"],
        type=click.Choice([WEB, NATIVE]),
        help="native: look up q8 and q4 embeddings with GatherBlockQuantized, which older"
        " ONNX Runtime builds for browsers lack.  [default: web; native in q4f16-recovered]",
    ),
    click.Option(
        ["--graph"],
        type=click.Choice([FUSED, PORTABLE]),
        default=FUSED,
        show_default=True,
        help="fused: ONNX Runtime's own operators where they are faster. portable: standard"
        " operators of opset 23 only, for other runtimes; needs an embedding of floats.",
    ),
)


@dataclass(frozen=True)
class Recipe(RoundedRecipe):
    """How each class of tensors is stored, by the names of `export.onnx.schemes`.

    `dtype` is transformers.js's name of the whole. `activations` is the NumPy dtype of activations,
    norms and KV cache. With `native`, quantised embeddings are looked up where they lie.
    """

    dtype: str
    linear: str
    embedding: str
    activations: str
    native: bool = False
    graph: str = FUSED
    residual_scale: float = 1.0

    @property
    def facts(self) -> Facts:
        """What the graph computes in and with."""
        dynamic = self.linear in DYNAMIC
        return Facts(self.activations, residual_scale=self.residual_scale, dynamic=dynamic)


def with_options(
    variant: Variant[Recipe],
    *,
    embedding: str | None = None,
    symmetric: bool | None = None,
    target: str | None = None,
    graph: str = FUSED,
) -> Variant[Recipe]:
    """The variant with the options' values in its recipe and in its name.

    Raises:
        InputError: an option that the dtype does not have, or a graph that its storage rules out.
    """
    recipe, labels, precision = variant.recipe, [], variant.precision
    if symmetric is not None and variant.name not in FOUR_BIT_DTYPES:
        raise InputError(
            f"--symmetric/--asymmetric: {variant.name} has no 4-bit blocks; choose"
            f" {' or '.join(FOUR_BIT_DTYPES)}"
        )
    if symmetric is not None and symmetric == recipe.linear.endswith(ASYMMETRIC):
        recipe = replace(recipe, linear="q4" if symmetric else "q4" + ASYMMETRIC)
        labels.append("symmetric" if symmetric else "asymmetric")
    if embedding is not None:
        name, limit = _embedding(variant, embedding)
        if name != recipe.embedding:
            labels.append(f"embedding-{embedding}")
            precision = max(precision, limit, key=list(Precision).index)
        recipe = replace(recipe, embedding=name)
    if recipe.embedding.startswith("q4"):
        name = recipe.linear if variant.name in FOUR_BIT_DTYPES else "q4"
        recipe = replace(recipe, embedding=name)
    blocks = recipe.embedding.startswith("q") or recipe.embedding == RECOVERED
    if target is not None and blocks and recipe.native != (target == NATIVE):
        recipe = replace(recipe, native=target == NATIVE)
        labels.append(target)
    if graph == PORTABLE:
        _check_portable(variant.name, recipe)
        recipe = replace(recipe, graph=PORTABLE)
        labels.append(PORTABLE)
    if not labels:
        return variant
    return replace(
        variant,
        name="-".join((variant.name, *labels)),
        precision=precision,
        recipe=recipe,
        aliases=(),
    )


def _embedding(variant: Variant[Recipe], embedding: str) -> tuple[str, Precision]:
    if variant.name in FLOAT_DTYPES:
        raise InputError(
            f"--embedding: {variant.name} stores every weight as {variant.name}; choose a quantised"
            " dtype, such as q8"
        )
    if variant.recipe.embedding == RECOVERED:
        raise InputError(f"--embedding: recovery.json says how {variant.name} stores it")
    name, limit = EMBEDDINGS[embedding]
    if embedding == "fp32" and variant.recipe.activations == "float16":
        raise InputError(f"--embedding fp32: {variant.name} computes in fp16; choose fp16")
    return name, limit


def _check_portable(name: str, recipe: Recipe) -> None:
    if recipe.linear == "bnb4":
        raise InputError("--graph portable: no standard operator reads bnb4; choose q4f16")
    if recipe.embedding not in PORTABLE_EMBEDDINGS:
        raise InputError(
            f"--graph portable: {name} would store the embedding as {recipe.embedding},"
            " which no standard operator looks up and multiplies with; add --embedding fp16"
        )
