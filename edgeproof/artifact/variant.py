"""A variant: the named recipe by which one format stores a model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar


class Precision(str, Enum):
    """The class of a variant's weights; it selects the parity gate."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    EIGHT_BIT = "8-bit"
    LOW_BIT = "4-bit"


@dataclass(frozen=True)
class Facts:
    """What readers of an artifact need to know of its recipe, whatever the format.

    `activations` is the NumPy dtype that it computes in and whose KV cache it takes; None where the
    runtime decides. The residual stream is `residual_scale` times the model's. A `traced` graph has
    lost the weights' names. With `dynamic`, activations are rounded to 8 bits in every call.
    """

    activations: str | None = None
    residual_scale: float = 1.0
    traced: bool = False
    dynamic: bool = False


@dataclass(frozen=True)
class Recipe:
    """All that a variant's bytes depend on beside the model: a frozen dataclass of its format.

    Fields are numbers, strings, tuples and dataclasses, and name no path: the manifest has them as
    JSON, and reuse follows from them.
    """

    @property
    def facts(self) -> Facts:
        """What readers of the artifact need to know of it."""
        return Facts()


R_co = TypeVar("R_co", bound=Recipe, covariant=True)


@dataclass(frozen=True)
class Variant(Generic[R_co]):
    """A recipe. `aliases` are accepted on the command line, `name` is what is shown and stored."""

    format: str
    name: str
    precision: Precision
    recipe: R_co
    aliases: tuple[str, ...] = ()
