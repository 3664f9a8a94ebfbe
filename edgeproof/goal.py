"""What is asked of a recovery: for which format, and how small."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeproof.errors import InputError

SHARED = "any"  # the 4-bit grid that all formats store; it has one size
GATES = ("4-bit",)
LEAST_TOKENS, TOKENS = 512, 40_960
LEAST_BITS, MOST_BITS = 4.5, 16.0  # per weight: no grid of a recovery takes fewer
LEAST_MB = 0.1
SIZES = ("bits", "max-mb", "gate")
KEYS = (*SIZES, "tokens", "format", "distill", "optional")
MINUTES, LEAST_MINUTES, MOST_MINUTES = 10.0, 0.1, 10_080.0  # of a distillation: at most a week
DISTILL = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?(min|h)")
MINUTES_IN = {"min": 1, "h": 60}


@dataclass(frozen=True)
class Goal:
    """A recovery that a plan asks for.

    Attributes:
        format: whose grids are mixed, or `SHARED`.
        bits: all stored bytes × 8 / parameters; at most one of this and the next two is given.
        max_mb: 10⁶ bytes of the model's files.
        gate: the smallest size that passes these gates.
        tokens: how much calibration text.
        distill: minutes of training after that; None: none.
        optional: leave it out of a model that no grid fits.
    """

    format: str
    bits: float | None = None
    max_mb: float | None = None
    gate: str | None = None
    tokens: int = TOKENS
    distill: float | None = None
    optional: bool = False

    @property
    def text(self) -> str:
        """In words, as a plan has it: `gguf, bits = 5.0`."""
        sizes = {"bits": self.bits, "max-mb": self.max_mb, "gate": self.gate}
        given = [f"{key} = {value}" for key, value in sizes.items() if value is not None]
        if self.distill is not None:
            given.append(f'distill = "{self.distill:g} min"')
        return ", ".join([self.format, *given])


def parse_goal(table: Any, form: str, *, mixes: bool) -> Goal:
    """The goal that a plan's `recover` table says, of a variant of the format `form`.

    `mixes` tells whether that format stores several grids, so that there is a size to choose.

    Raises:
        InputError: no such table: an unknown key, several goals or none, a value out of range.
    """
    if not isinstance(table, Mapping):
        raise InputError("recover must be a table, such as { bits = 5.0 }")
    unknown = sorted(set(table) - set(KEYS))
    if unknown:
        known = ", ".join(sorted(KEYS))
        raise InputError(f"unknown key {unknown[0]!r} in recover; known: {known}")
    given = [key for key in SIZES if key in table]
    if len(given) > 1:
        raise InputError(f"recover has {given[0]} and {given[1]}; give one of {', '.join(SIZES)}")
    target = table.get("format", form)
    if target not in (form, SHARED):
        raise InputError(f"recover: format must be {form!r} or {SHARED!r}, not {target!r}")
    if mixes and target != SHARED and not given:
        raise InputError(f"recover: how small? give one of {', '.join(SIZES)}")
    gate = table.get("gate")
    if gate is not None:
        if gate not in GATES:
            raise InputError(f"recover: gate must be {', '.join(GATES)}, not {gate!r}")
        if not mixes or target == SHARED:
            raise InputError(f"recover: {target} has one size, so no gate chooses one")
    tokens = table.get("tokens", TOKENS)
    if type(tokens) is not int or tokens < LEAST_TOKENS:
        raise InputError(f"recover: tokens must be a whole number from {LEAST_TOKENS}")
    bits = _number(table, "bits", LEAST_BITS, MOST_BITS)
    most = _number(table, "max-mb", LEAST_MB, math.inf)
    optional = table.get("optional", False)
    if not isinstance(optional, bool):
        raise InputError(f"recover: optional must be true or false, not {optional!r}")
    return Goal(target, bits, most, gate, tokens, _minutes(table), optional)


def _number(table: Mapping[str, Any], key: str, least: float, most: float) -> float | None:
    if key not in table:
        return None
    value = table[key]
    if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
        limits = f"from {least:g}" + (f" to {most:g}" if math.isfinite(most) else "")
        raise InputError(f"recover: {key} must be a number {limits}, not {value!r}")
    return float(value)


def _minutes(table: Mapping[str, Any]) -> float | None:
    if "distill" not in table:
        return None
    value = table["distill"]
    found = DISTILL.fullmatch(value) if isinstance(value, str) else None
    minutes = float(found[1]) * MINUTES_IN[found[2]] if found else 0.0
    if not LEAST_MINUTES <= minutes <= MOST_MINUTES:
        raise InputError(f'recover: distill must be a time, such as "10 min", not {value!r}')
    return minutes
