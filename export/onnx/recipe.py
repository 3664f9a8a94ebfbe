"""The command-line options of ONNX, and how they become part of a variant's storage and name.

`Variant.storage` holds the whole recipe, so that reuse and the manifest follow from it; the name
gets what differs from the dtype's defaults, so that two recipes never share a folder.
"""

from __future__ import annotations

from dataclasses import replace

import click

from edgeproof.artifact import Precision, Variant
from edgeproof.errors import InputError

# --embedding → name of the storage, and the precision that it limits the variant to.
EMBEDDINGS = {
    "fp32": ("float32", Precision.FP32),
    "fp16": ("float16", Precision.FP16),
    "q8": ("q8", Precision.EIGHT_BIT),
    "q4": ("q4", Precision.LOW_BIT),
}
ASYMMETRIC = "-asymmetric"
NATIVE = "native"
FUSED, PORTABLE = "fused", "portable"
# The embeddings that standard operators look up and multiply with as they are.
PORTABLE_EMBEDDINGS = ("float32", "float16")
FLOAT_DTYPES = ("fp32", "fp16")
FOUR_BIT_DTYPES = ("q4", "q4f16")

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
        type=click.Choice(["web", NATIVE]),
        default="web",
        show_default=True,
        help="native: look up q8 and q4 embeddings with GatherBlockQuantized, which older"
        " ONNX Runtime builds for browsers lack.",
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


def dtype_name(variant: Variant) -> str:
    """transformers.js's dtype of a variant: what its options added follows after a hyphen."""
    return variant.name.partition("-")[0]


def with_options(
    variant: Variant,
    *,
    embedding: str | None = None,
    symmetric: bool | None = None,
    target: str = "web",
    graph: str = FUSED,
) -> Variant:
    """The variant with the options' values in its recipe and in its name.

    Raises:
        InputError: an option that the dtype does not have, or a graph that its storage rules out.
    """
    storage, labels, precision = dict(variant.storage), [], variant.precision
    if symmetric is not None and variant.name not in FOUR_BIT_DTYPES:
        raise InputError(
            f"--symmetric/--asymmetric: {variant.name} has no 4-bit blocks; choose"
            f" {' or '.join(FOUR_BIT_DTYPES)}"
        )
    if symmetric is not None and symmetric == storage["linear"].endswith(ASYMMETRIC):
        storage["linear"] = "q4" if symmetric else "q4" + ASYMMETRIC
        labels.append("symmetric" if symmetric else "asymmetric")
    if embedding is not None:
        name, limit = _embedding(variant, embedding)
        if name != storage["embedding"]:
            labels.append(f"embedding-{embedding}")
            precision = max(precision, limit, key=list(Precision).index)
        storage["embedding"] = name
    if storage["embedding"].startswith("q4"):
        storage["embedding"] = storage["linear"] if variant.name in FOUR_BIT_DTYPES else "q4"
    if target == NATIVE and storage["embedding"].startswith("q"):
        storage["target"] = NATIVE
        labels.append(NATIVE)
    if graph == PORTABLE:
        _check_portable(variant, storage)
        storage["graph"] = PORTABLE
        labels.append(PORTABLE)
    if not labels:
        return variant
    return replace(
        variant,
        name="-".join((variant.name, *labels)),
        precision=precision,
        storage=tuple(storage.items()),
        aliases=(),
    )


def _embedding(variant: Variant, embedding: str) -> tuple[str, Precision]:
    if variant.name in FLOAT_DTYPES:
        raise InputError(
            f"--embedding: {variant.name} stores every weight as {variant.name}; choose a quantised"
            " dtype, such as q8"
        )
    name, limit = EMBEDDINGS[embedding]
    if embedding == "fp32" and dict(variant.storage)["kv_cache"] == "float16":
        raise InputError(f"--embedding fp32: {variant.name} computes in fp16; choose fp16")
    return name, limit


def _check_portable(variant: Variant, storage: dict[str, str]) -> None:
    if storage["linear"] == "bnb4":
        raise InputError("--graph portable: no standard operator reads bnb4; choose q4f16")
    if storage["embedding"] not in PORTABLE_EMBEDDINGS:
        raise InputError(
            f"--graph portable: {variant.name} would store the embedding as {storage['embedding']},"
            " which no standard operator looks up and multiplies with; add --embedding fp16"
        )
