"""`python -m export.gguf`."""

from __future__ import annotations

import click

from export.artifact import Variant
from export.command import format_command, run_main
from export.gguf import FORMAT
from export.gguf.recipe import customise

OPTIONS = (
    click.option("--pure", is_flag=True, help="One type for all matrices, no mixture."),
    click.option("--token-embedding-type", metavar="TYPE", help="Type of the token embedding."),
    click.option("--output-tensor-type", metavar="TYPE", help="Type of the output matrix."),
    click.option(
        "--tensor-type",
        multiple=True,
        metavar="PATTERN=TYPE",
        help="Type of tensors in whose name the regular expression is found, for example"
        " attn_v=q8_0. Repeatable, the first match counts.",
    ),
)


def _customise(
    variant: Variant,
    pure: bool,
    token_embedding_type: str | None,
    output_tensor_type: str | None,
    tensor_type: tuple[str, ...],
) -> Variant:
    return customise(
        variant,
        pure=pure,
        token_embedding_type=token_embedding_type,
        output_tensor_type=output_tensor_type,
        tensor_types=tensor_type,
    )


main = format_command(
    FORMAT,
    "python -m export.gguf --model bundled --dtype f16,q4_k_m",
    options=OPTIONS,
    customise=_customise,
)

if __name__ == "__main__":
    run_main(main)
