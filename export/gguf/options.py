"""The command-line options that only GGUF has, and what they make of a variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from export.artifact import Variant
from export.gguf.imatrix import with_imatrix
from export.gguf.recipe import with_overrides
from export.gguf.splits import with_splits

OPTIONS = (
    click.Option(["--pure"], is_flag=True, help="One type for all matrices, no mixture."),
    click.Option(["--token-embedding-type"], metavar="TYPE", help="Type of the token embedding."),
    click.Option(["--output-tensor-type"], metavar="TYPE", help="Type of the output matrix."),
    click.Option(
        ["--tensor-type"],
        multiple=True,
        metavar="PATTERN=TYPE",
        help="Type of tensors in whose name the regular expression is found, for example"
        " attn_v=q8_0. Repeatable, the first match counts.",
    ),
    click.Option(
        ["--imatrix"],
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Importance matrix for 4- and 5-bit, K- and IQ-types, from"
        " `python -m runtimes.imatrix` or llama-imatrix (GGUF). llama.cpp then rounds all types.",
    ),
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
)


def customise(
    variant: Variant,
    *,
    imatrix: Path | None = None,
    split_max_size: str | None = None,
    split_max_tensors: int | None = None,
    **overrides: Any,
) -> Variant:
    """The variant with the options' values in its recipe and in its name.

    Raises:
        InputError: an unknown type, a pattern, a size or an importance matrix that is none.
    """
    chosen = with_imatrix(with_overrides(variant, **overrides), imatrix)
    return with_splits(chosen, split_max_size, split_max_tensors)
