"""MLC weights, as MLC-LLM and WebLLM load them."""

from __future__ import annotations

from export.checkpoint import open_checkpoint
from export.format import Format, RecoveredDtypes
from export.mlc.app_record import mlc_name
from export.mlc.exporter import write
from export.mlc.looking import complete_from_checkpoint
from export.mlc.publication import PUBLICATION
from export.mlc.recipe import AUTO, OPTIONS, RECOVERED, variant_of, with_options
from export.mlc.schemes import SCHEMES

FORMAT = Format(
    name="mlc",
    title="MLC weights (MLC-LLM, WebLLM)",
    variants=(*map(variant_of, SCHEMES.values()), RECOVERED),
    tools=("numpy", "ml_dtypes"),
    open=open_checkpoint,
    write=write,
    check=None,
    complete_from_checkpoint=complete_from_checkpoint,
    options=OPTIONS,
    with_options=with_options,
    folder=mlc_name,
    engines={},
    example="python -m export.mlc --model bundled --dtype q0f16,q4f16_1",
    publication=PUBLICATION,
    recovered=RecoveredDtypes({AUTO: RECOVERED.name}, mixes=False),
)

__all__ = ["FORMAT"]
