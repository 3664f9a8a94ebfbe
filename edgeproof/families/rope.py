"""Rotary position embedding: its base, and how a family stretches it to longer contexts.

Source of the arithmetic: transformers, `modeling_rope_utils.py`. Each step rounds to float32 as
PyTorch's does there, so that far positions rotate by the reference's own angles.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeproof.errors import InputError

DEFAULT_THETA = 10000.0
ONE = np.float32(1)


@dataclass(frozen=True)
class RopeScaling(ABC):
    """Frequencies are divided by `factor`, all of them or the lower ones."""

    factor: float

    @property
    @abstractmethod
    def kind(self) -> str:
        """Its name in `rope_type` of config.json."""

    @property
    def amplitude(self) -> float:
        """What cosines and sines are multiplied with."""
        return 1.0

    @abstractmethod
    def kept_share(self, frequencies: np.ndarray) -> np.ndarray:
        """How much of each frequency stays as it is: 0 … 1, float32 [rotated / 2]."""

    def frequencies(self, powers: np.ndarray) -> np.ndarray:
        """Radians per position, from the powers of the base: float32 [rotated / 2] both."""
        plain = ONE / powers
        kept = self.kept_share(plain)
        return np.asarray((ONE - kept) * plain / np.float32(self.factor) + kept * plain)


@dataclass(frozen=True)
class LinearScaling(RopeScaling):
    """All frequencies are divided: positions are squeezed together."""

    kind = "linear"

    def kept_share(self, frequencies: np.ndarray) -> np.ndarray:
        """See `RopeScaling`."""
        return np.zeros_like(frequencies)


@dataclass(frozen=True)
class Llama3Scaling(RopeScaling):
    """Low frequencies are divided, high ones kept, with a smooth passage in between."""

    low_freq_factor: float
    high_freq_factor: float
    original_positions: int

    kind = "llama3"

    def kept_share(self, frequencies: np.ndarray) -> np.ndarray:
        """See `RopeScaling`."""
        # PyTorch divides a number by a tensor as number × reciprocal.
        wavelengths = ONE / frequencies * np.float32(2 * np.pi)
        turns = ONE / wavelengths * np.float32(self.original_positions)
        span = np.float32(self.high_freq_factor - self.low_freq_factor)
        smooth = (turns - np.float32(self.low_freq_factor)) / span
        low = wavelengths > np.float32(self.original_positions / self.low_freq_factor)
        high = wavelengths < np.float32(self.original_positions / self.high_freq_factor)
        return np.asarray(np.where(low, np.float32(0), np.where(high, ONE, smooth)))


@dataclass(frozen=True)
class LongScaling(RopeScaling):
    """Each frequency is divided by a number of its own; there are two tables of them.

    transformers takes `short` for a text of at most `original_positions` and `long` for a longer
    one, at all of its positions. Cosines and sines are multiplied with `attention`.
    """

    original_positions: int
    short: tuple[float, ...]
    long: tuple[float, ...]
    attention: float

    kind = "longrope"

    @property
    def amplitude(self) -> float:
        """See `RopeScaling`."""
        return self.attention

    def kept_share(self, frequencies: np.ndarray) -> np.ndarray:
        """See `RopeScaling`; none of them does."""
        return np.zeros_like(frequencies)

    def frequencies(self, powers: np.ndarray) -> np.ndarray:
        """See `RopeScaling`; of a text of at most `original_positions`."""
        return np.asarray(ONE / (np.array(self.short, np.float32) * powers))


@dataclass(frozen=True)
class Rope:
    """A rotary embedding: its base, before `scaling`, and the share of channels that it rotates."""

    theta: float
    scaling: RopeScaling | None = None
    share: float = 1.0

    @property
    def amplitude(self) -> float:
        """What cosines and sines are multiplied with."""
        return self.scaling.amplitude if self.scaling else 1.0

    def rotated(self, head_dim: int) -> int:
        """How many channels of a head it rotates, the first ones."""
        return int(head_dim * self.share)


def frequencies(rotated: int, theta: float) -> np.ndarray:
    """Radians per position of each rotated pair, before any scaling: float32 [rotated / 2]."""
    return np.asarray(ONE / _powers(rotated, theta))


def scaled_frequencies(head_dim: int, rope: Rope) -> np.ndarray:
    """Radians per position of each rotated pair: float32 [rotated / 2]."""
    powers = _powers(rope.rotated(head_dim), rope.theta)
    return np.asarray(ONE / powers) if rope.scaling is None else rope.scaling.frequencies(powers)


def _powers(rotated: int, theta: float) -> np.ndarray:
    exponents = np.arange(0, rotated, 2, dtype=np.float32) / np.float32(rotated)
    return np.array([theta ** float(exponent) for exponent in exponents], np.float32)


def divisors(head_dim: int, theta: float, scaling: RopeScaling) -> np.ndarray:
    """By what scaling divides each frequency, as llama.cpp stores it: float32 [head_dim / 2].

    Source: `generate_extra_tensors` of llama.cpp's conversion/llama.py.
    """
    kept = scaling.kept_share(frequencies(head_dim, theta))
    factor = np.float32(scaling.factor)
    return np.asarray(np.where(kept == 0, factor, ONE / ((ONE - kept) / factor + kept)))


def read_rope(raw: Mapping[str, Any]) -> Rope:
    """The rotary embedding of a config.json.

    Both spellings are read: `rope_theta` with `rope_scaling` (transformers 4), and
    `rope_parameters` (transformers 5), which does not count beside `rope_scaling`, as there.

    Raises:
        InputError: a scaling that is not exported, or one without its numbers.
    """
    rope = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        raise InputError("rope parameters that differ between layers are not supported")
    if rope.get("partial_rotary_factor", raw.get("partial_rotary_factor")) not in (None, 1.0):
        raise InputError("partial_rotary_factor is not supported: every channel must be rotated")
    theta = positive(rope if "rope_theta" in rope else raw, "rope_theta", DEFAULT_THETA)
    return Rope(theta, read_scaling(rope, raw))


def read_scaling(
    rope: Mapping[str, Any], raw: Mapping[str, Any] | None = None
) -> RopeScaling | None:
    """The scaling that `rope` names, in a config `raw` where that says something of it too.

    Raises:
        InputError: as for `read_rope`.
    """
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in SCALINGS:
        known = ", ".join(repr(name) for name in SCALINGS)
        raise InputError(f"rope scaling of type {kind!r} is not supported; supported: {known}")
    return SCALINGS[kind](rope, raw or {})


def _linear(rope: Mapping[str, Any], raw: Mapping[str, Any]) -> RopeScaling:
    return LinearScaling(positive(rope, "factor"))


def _llama3(rope: Mapping[str, Any], raw: Mapping[str, Any]) -> RopeScaling:
    key = "original_max_position_embeddings"
    original = rope.get(key)
    low, high = positive(rope, "low_freq_factor"), positive(rope, "high_freq_factor")
    if not isinstance(original, int) or raw.get(key, original) != original or low >= high:
        raise InputError(
            f"rope scaling of type 'llama3': low_freq_factor {low:g} must be below high_freq_factor"
            f" {high:g}, and {key} {original!r} an integer, the same everywhere"
        )
    return Llama3Scaling(positive(rope, "factor"), low, high, original)


def _unscaled(rope: Mapping[str, Any], raw: Mapping[str, Any]) -> None:
    return None


# `rope_type` → how its numbers are read.
SCALINGS = {"default": _unscaled, "linear": _linear, "llama3": _llama3}


def positive(values: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """A positive number of a config.

    Raises:
        InputError: it is none.
    """
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise InputError(f"{key} must be a positive number, not {value!r}")
    return float(value)
