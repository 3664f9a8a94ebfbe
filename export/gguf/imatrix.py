"""What an importance matrix means for a GGUF file: who rounds with it, and what the file says.

With the default method llama.cpp itself rounds all types, as llama-quantize does; another method
gets the matrix as its evidence.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgeproof.artifact import Variant
from edgeproof.errors import InputError
from export.gguf.container import STRING, UINT32, MetadataEntry
from export.gguf.recipe import Recipe
from export.rounding import options
from export.rounding.imatrix import Imatrix, keep_imatrix
from export.rounding.registry import OWN

# Types that llama.cpp rounds without looking at importance.
UNWEIGHTED = ("F32", "F16", "BF16", "Q8_0")


def with_imatrix(variant: Variant[Recipe], path: Path | None) -> Variant[Recipe]:
    """The variant with the file's SHA-256 in its recipe.

    Raises:
        InputError: the file cannot be read or is no importance matrix, the variant's type does not
            use one, or its method needs one and there is none.
    """
    if path is None:
        options.check_needs(variant)
        return variant
    check_use(variant)
    recipe = options.with_digest(variant.recipe, keep_imatrix(path))
    return options.named_after_imatrix(variant, recipe)


def check_use(variant: Variant[Recipe]) -> None:
    """Refuse a type that is rounded without a matrix.

    Raises:
        InputError: naming those that use one.
    """
    if variant.recipe.rounding.method not in OWN:
        options.check_use(variant)
    elif variant.recipe.linear in UNWEIGHTED:
        raise InputError(
            f"--imatrix: {variant.name} is rounded without it; leave it out, or choose q4_0, q4_1,"
            " q5_0, q5_1, a K- or an IQ-type"
        )


def imatrix_entries(imatrix: Imatrix) -> list[MetadataEntry]:
    """The metadata that llama-quantize adds, without the file's name, which is the machine's.

    Of the data set's path, only the last part.
    """
    dataset = re.split(r"[/\\]", imatrix.dataset or "")[-1]
    counts = (("entries_count", len(imatrix.values)), ("chunks_count", imatrix.chunks))
    return [
        *([MetadataEntry("quantize.imatrix.dataset", STRING, dataset)] if dataset else ()),
        *(
            MetadataEntry(f"quantize.imatrix.{key}", UINT32, count)
            for key, count in counts
            if count
        ),
    ]
