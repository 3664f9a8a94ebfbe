"""The GGUF variants: which storage type each class of tensors gets."""

from __future__ import annotations

import click

from export.artifact import Precision, Variant
from export.format import Format
from export.gguf.exporter import write
from export.gguf.splits import with_splits
from export.gguf.verification import check_tensors


def _variant(
    linear: str, precision: Precision, *, head: str | None = None, aliases: tuple[str, ...] = ()
) -> Variant:
    storage = {"linear": linear, "embedding": linear, "head": head or linear, "norm": "F32"}
    return Variant("gguf", linear.lower(), precision, tuple(storage.items()), aliases)


# Types as llama.cpp gives them: the first four as convert_hf_to_gguf.py --outtype, 4 bits as
# llama-quantize, where the output matrix keeps more bits. Where its rows divide into 256,
# llama-quantize would take Q6_K for it; that type is not written here, Q8_0 stands in.
FORMAT = Format(
    name="gguf",
    title="GGUF",
    variants=(
        _variant("F32", Precision.FP32, aliases=("fp32",)),
        _variant("F16", Precision.FP16, aliases=("fp16", "q016")),
        _variant("BF16", Precision.BF16),
        _variant("Q8_0", Precision.EIGHT_BIT),
        _variant("Q4_0", Precision.LOW_BIT, head="Q8_0"),
        _variant("Q4_1", Precision.LOW_BIT, head="Q8_0"),
    ),
    tools={},
    write=write,
    options=(
        click.Option(
            ["--split-max-size"],
            metavar="SIZE",
            help="Write several files with at most this size of tensors, for example 500M or 2G;"
            " the first also has the metadata.",
        ),
        click.Option(
            ["--split-max-tensors"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Write several files of at most N tensors.",
        ),
    ),
    customise=with_splits,
    check=check_tensors,
)
