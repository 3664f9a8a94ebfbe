"""The command-line options that only GGUF has, and what they make of a variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeproof.artifact import Variant
from edgeproof.errors import InputError
from export.gguf.imatrix import with_imatrix
from export.gguf.measured_imatrix import with_measured_imatrix
from export.gguf.recipe import Recipe, with_method, with_overrides
from export.gguf.splits import with_splits
from export.rounding.options import AUTO, ROUNDING_OPTION

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
    ROUNDING_OPTION,
    click.Option(
        ["--imatrix"],
        type=click.Path(dir_okay=False, path_type=Path),
        is_flag=False,
        flag_value=AUTO,
        metavar="[FILE]",
        help="Importance matrix for types below 8 bits. With --rounding auto, which is the"
        " default, llama.cpp itself then rounds all of them, as llama-quantize does; with search"
        " this program does. Without FILE (or with `auto`) it is measured in PyTorch, once for each"
        " checkpoint. FILE is from `python -m runtimes.imatrix` or llama-imatrix (GGUF).",
    ),
    click.Option(
        ["--calibration"],
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Text that --imatrix is measured on; by default the model's own.",
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


def with_options(
    variant: Variant[Recipe],
    *,
    rounding: str | None = None,
    imatrix: Path | None = None,
    calibration: Path | None = None,
    split_max_size: str | None = None,
    split_max_tensors: int | None = None,
    **overrides: Any,
) -> Variant[Recipe]:
    """The variant with the options' values in its recipe and in its name.

    Raises:
        InputError: an unknown type or method; a pattern, size, text or importance matrix that
            is none; a method or a matrix that the variant has no use for.
    """
    chosen = with_method(with_overrides(variant, **overrides), rounding)
    if imatrix == Path(AUTO):
        chosen = with_measured_imatrix(chosen, calibration)
    elif calibration is None:
        chosen = with_imatrix(chosen, imatrix)
    else:
        raise InputError("--calibration: it is for --imatrix without a file; give that too")
    return with_splits(chosen, split_max_size, split_max_tensors)
