"""Rotary tables of a Hugging Face config, computed anew: what a stored table is compared with.

Source: transformers, `modeling_rope_utils.py`. Frequencies are computed in float64 and rounded
once, angles as a float32 product, so that an angle may be off by some units in its last place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Of transformers' configs that state none, and by `model_type` of those that have another.
DEFAULT_THETA, DEFAULT_THETAS = 10000.0, {"gemma3_text": 1e6, "smollm3": 2e6}
FULL = "full_attention"
# What float16 makes of a value near 1, and how much of its size an angle in float32 may be off.
TABLE_ERROR, ANGLE_ERROR = 1e-3, 2.0**-21
BLOCK_POSITIONS = 4096
LONG = "longrope"
ORIGINAL, DEFAULT_ORIGINAL = "original_max_position_embeddings", 4096


@dataclass(frozen=True)
class RotaryTable:
    """Cosines, or sines, of position × frequency, times `size`: [positions, pairs], not kept."""

    frequencies: np.ndarray
    positions: int
    function: Callable[[np.ndarray], np.ndarray]
    size: float = 1.0

    def rows(self, first: int, last: int) -> np.ndarray:
        """Of positions from `first` up to `last`: float64 [last − first, pairs]."""
        return np.asarray(self.size * self.function(self._angles(first, last)))

    def wrong_row(self, table: np.ndarray) -> int | None:
        """The first position that a stored table [rows, pairs] has wrong, or has not."""
        if table.ndim != 2 or table.shape[1] != len(self.frequencies):
            return 0
        for first in range(0, len(table), BLOCK_POSITIONS):
            said = table[first : first + BLOCK_POSITIONS].astype(np.float64)
            angles = self._angles(first, first + len(said))
            allowed = TABLE_ERROR + ANGLE_ERROR * angles
            wrong = ~(np.abs(said - self.size * self.function(angles)) <= allowed)
            if wrong.any():
                return first + int(wrong.any(axis=1).argmax())
        return len(table) if len(table) < self.positions else None

    def _angles(self, first: int, last: int) -> np.ndarray:
        positions = np.arange(first, last, dtype=np.float32)[:, None]
        return np.asarray(positions * self.frequencies, np.float64)


def rope_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a config says of its rope beside the base; transformers 5 has all in one place.

    Of one that has two, that of the layers which see all before a token.
    """
    found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if FULL not in found:
        return found
    return found[FULL] if isinstance(found[FULL], Mapping) else {}


def theta_of(config: Mapping[str, Any]) -> float:
    """The rotary base."""
    assumed = DEFAULT_THETAS.get(str(config.get("model_type")), DEFAULT_THETA)
    return float(rope_of(config).get("rope_theta", config.get("rope_theta", assumed)))


def scaling_of(config: Mapping[str, Any]) -> str:
    """How frequencies are scaled, by transformers' name."""
    rope = rope_of(config)
    return str(rope.get("rope_type", rope.get("type", "default")))


def frequencies(config: Mapping[str, Any], size: int) -> np.ndarray | None:
    """Radians per position of each rotated pair: float32 [pairs]; None for another scaling.

    Of long rope, those of a text of at most the original positions.
    """
    scale, plain = SCALINGS.get(scaling_of(config)), _plain(config, size)
    return None if scale is None else scale(plain, rope_of(config)).astype(np.float32)


def divisors(config: Mapping[str, Any], size: int) -> np.ndarray | None:
    """By what scaling divides each frequency: float64 [pairs]; None for another scaling."""
    scale, plain = SCALINGS.get(scaling_of(config)), _plain(config, size)
    return None if scale is None else plain / scale(plain, rope_of(config))


def rotated_channels(config: Mapping[str, Any], size: int) -> int:
    """How many channels of a head of that size are rotated."""
    key = "partial_rotary_factor"
    return int(size * (rope_of(config).get(key, config.get(key)) or 1.0))


def amplitude_of(config: Mapping[str, Any]) -> float:
    """What cosines and sines are multiplied with: of long rope √(1 + ln s / ln original)."""
    if scaling_of(config) != LONG:
        return 1.0
    rope, original = rope_of(config), config.get(ORIGINAL, DEFAULT_ORIGINAL)
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    stretch = rope.get("factor") or config["max_position_embeddings"] / original
    return float(np.sqrt(1 + np.log(max(stretch, 1)) / np.log(original)))


def _plain(config: Mapping[str, Any], size: int) -> np.ndarray:
    size = rotated_channels(config, size)
    return np.asarray(theta_of(config) ** (-np.arange(0, size, 2) / size))


def _linear(plain: np.ndarray, rope: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(plain / rope["factor"])


def _llama3(plain: np.ndarray, rope: Mapping[str, Any]) -> np.ndarray:
    """Long waves are stretched, short ones kept, those in between partly."""
    turns = rope["original_max_position_embeddings"] * plain / (2 * np.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray(kept * plain + (1 - kept) * plain / rope["factor"])


def _long(plain: np.ndarray, rope: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(plain / np.array(rope["short_factor"]))


SCALINGS: dict[str, Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]] = {
    "default": lambda plain, rope: plain,
    "linear": _linear,
    "llama3": _llama3,
    LONG: _long,
}
