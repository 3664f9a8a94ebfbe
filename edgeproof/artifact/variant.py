"""A variant: the named recipe by which one format stores a model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Precision(str, Enum):
    """The class of a variant's weights; it selects the parity gate."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    EIGHT_BIT = "8-bit"
    LOW_BIT = "4-bit"


@dataclass(frozen=True)
class Variant:
    """A recipe. `aliases` are accepted on the command line, `name` is what is shown and stored.

    `storage` maps a tensor class ("linear", "embedding", "norm", "kv_cache") to the format's own
    name of the type it is stored in.
    """

    format: str
    name: str
    precision: Precision
    storage: tuple[tuple[str, str], ...]
    aliases: tuple[str, ...] = ()
