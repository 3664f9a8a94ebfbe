"""MLX, as mlx-lm loads it on Apple silicon."""

from __future__ import annotations

from export.checkpoint import open_checkpoint
from export.format import Format, RecoveredDtypes
from export.mlx.exporter import write
from export.mlx.looking import complete_from_checkpoint
from export.mlx.publication import PUBLICATION
from export.mlx.recipe import AUTO, OPTIONS, RECOVERED, variant_of, with_options
from export.mlx.schemes import SCHEMES

FORMAT = Format(
    name="mlx",
    title="MLX (mlx-lm on Apple silicon)",
    variants=(*map(variant_of, SCHEMES.values()), RECOVERED),
    tools=("numpy", "ml_dtypes"),
    open=open_checkpoint,
    write=write,
    check=None,
    complete_from_checkpoint=complete_from_checkpoint,
    options=OPTIONS,
    with_options=with_options,
    engines={},
    example="python -m export.mlx --model bundled --dtype bf16,q4",
    publication=PUBLICATION,
    recovered=RecoveredDtypes({AUTO: RECOVERED.name}, mixes=True),
)

__all__ = ["FORMAT"]
