"""adapter_config.json: PEFT's settings of a LoRA, and which modules of the base it changes.

Sources: https://github.com/huggingface/peft, `tuners/lora/config.py` (keys), `tuners_utils.py`
(`check_target_module_exists`: targets are whole names or ends of names, a text is a pattern of
whole names) and `utils/other.py` (`get_pattern_key`: the first pattern that ends the name).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproof.checkpoints.json_object import read_object
from edgeproof.checkpoints.weight_files import ADAPTER
from edgeproof.errors import InputError

LORA = "LORA"
ALL_LINEAR = "all-linear"
BIASES = ("none", "all", "lora_only")
# What no weight can express, or what changes the base by more than the file's tensors.
UNMERGEABLE = {
    "alora_invocation_tokens": "it acts only after certain tokens, so no weights can hold it",
    "arrow_config": "it chooses between adapters token by token, so no weights can hold it",
    "layer_replication": "it repeats layers of the base",
    "target_parameters": "it changes parameters that are no module's weight",
    "use_bdlora": "block-diagonal LoRA is not read",
    "use_qalora": "QALoRA, for quantised bases, is not read",
}
# Values of init_lora_weights with which PEFT changes the base when it loads the adapter.
BASE_CHANGING = ("pissa", "corda", "olora", "loftq", "lora_ga")
# Patterns of settings, as PEFT puts them into larger ones.
WHOLE, END = "{}", r"(.*\.)?({})$"
LAYERS = r".*\.{}\.(?P<layer>\d+)\."
ANY_LAYERS = "[^.]*"


@dataclass(frozen=True)
class AdapterConfig:
    """The parsed file.

    Attributes:
        base: what the adapter was made for, as PEFT noted it: a hub id or a path.
        revision: of a hub id.
        rank: the usual r; `rank_patterns` has others.
        alpha: the usual lora_alpha; `alpha_patterns` has others.
        root_scaled: rsLoRA, alpha / √r instead of alpha / r.
        magnitudes: DoRA.
        ties: a change of the embedding is one of a tied head.
        saved: ends of names of modules that are in the file whole.
        token_rows: end of a module's name → the rows of its table that are in the file.
        says_transposed: fan_in_fan_out; PEFT takes it back for such layers as there are here.
    """

    path: Path
    base: str | None
    revision: str | None
    rank: int
    alpha: float
    root_scaled: bool
    magnitudes: bool
    ties: bool
    targets: str | tuple[str, ...] | None
    excluded: str | tuple[str, ...]
    layers: tuple[int, ...] | None
    layer_patterns: tuple[str, ...]
    saved: tuple[str, ...]
    token_rows: Mapping[str, tuple[int, ...]]
    rank_patterns: Mapping[str, float]
    alpha_patterns: Mapping[str, float]
    says_transposed: bool

    def rank_of(self, module: str) -> int:
        """The rank that a module's change must have."""
        return int(_by_pattern(self.rank_patterns, module, self.rank))

    def scaling(self, module: str) -> float:
        """What the product of a module's two matrices is multiplied with."""
        alpha, rank = _by_pattern(self.alpha_patterns, module, self.alpha), self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.root_scaled else rank)

    def targets_module(self, module: str, *, head: bool, table: bool) -> bool:
        """Whether a module, by its name in the base, has a low-rank change.

        `head` and `table` tell the output layer and the embedding, which "all-linear" leaves out.
        """
        if self.targets is None or _matches(self.excluded, module):
            return False
        if self.targets == ALL_LINEAR:
            return not head and not table
        if isinstance(self.targets, str):
            return re.fullmatch(self.targets, module) is not None
        return _matches(self.targets, module) and self._has_layer(module)

    def _has_layer(self, module: str) -> bool:
        if self.layers is None:
            return True
        patterns = self.layer_patterns or (ANY_LAYERS,)
        matches = (re.match(LAYERS.format(pattern), module) for pattern in patterns)
        found = next(filter(None, matches), None)
        return found is not None and int(found["layer"]) in self.layers


def read_config(folder: Path) -> AdapterConfig:
    """The settings of the LoRA in a folder.

    Raises:
        InputError: no such file, another kind of adapter, a setting of a wrong type, or one that
            cannot be merged.
    """
    path = folder / ADAPTER
    if not path.is_file():
        raise InputError(f"{path}: missing; {_where_else(folder)}")
    raw = read_object(path)
    kind = raw.get("peft_type")
    if kind != LORA:
        raise InputError(f"{path}: peft_type is {_shown(kind)}; only {LORA!r} can be merged")
    for key, why in UNMERGEABLE.items():
        if raw.get(key):
            raise InputError(f"{path}: {key}: {why}")
    start = raw.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(BASE_CHANGING):
        raise InputError(
            f"{path}: init_lora_weights is {_shown(start)}, with which PEFT changes the base too;"
            " save it as plain LoRA (path_initial_model_for_weight_conversion), or merge it there"
        )
    take = _Settings(path, raw)
    if raw.get("bias", BIASES[0]) not in BIASES:
        raise take.wrong("bias", f"one of {', '.join(BIASES)}")
    targets = raw.get("target_modules")
    return AdapterConfig(
        path=path,
        base=take.text("base_model_name_or_path"),
        revision=take.text("revision"),
        rank=take.rank("r", 8),
        alpha=take.number("lora_alpha", 8.0),
        root_scaled=take.flag("use_rslora"),
        magnitudes=take.flag("use_dora"),
        ties=take.flag("ensure_weight_tying"),
        targets=None if targets is None else take.names_or_pattern("target_modules"),
        excluded=take.names_or_pattern("exclude_modules"),
        layers=take.layers(),
        layer_patterns=take.patterns("layers_pattern"),
        saved=take.names("modules_to_save"),
        token_rows=take.token_rows(),
        rank_patterns=take.by_pattern("rank_pattern", whole=True),
        alpha_patterns=take.by_pattern("alpha_pattern", whole=False),
        says_transposed=take.flag("fan_in_fan_out"),
    )


@dataclass(frozen=True)
class _Settings:
    """Settings by type; what has another one is an InputError that names the key."""

    path: Path
    raw: Mapping[str, Any]

    def wrong(self, key: str, expected: str) -> InputError:
        return InputError(f"{self.path}: {key} must be {expected}, not {_shown(self.raw.get(key))}")

    def text(self, key: str) -> str | None:
        value = self.raw.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value or None

    def flag(self, key: str) -> bool:
        value = self.raw.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return bool(value)

    def rank(self, key: str, default: int) -> int:
        value = self.raw.get(key, default)
        if not _is_rank(value):
            raise self.wrong(key, "a whole number of at least 1")
        return int(value)

    def number(self, key: str, default: float) -> float:
        value = self.raw.get(key, default)
        if not _is_number(value):
            raise self.wrong(key, "a finite number")
        return float(value)

    def names(self, key: str) -> tuple[str, ...]:
        value = self.raw.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "a list of names")
        return tuple(value)

    def names_or_pattern(self, key: str) -> str | tuple[str, ...]:
        value = self.raw.get(key)
        if not isinstance(value, str):
            return self.names(key)
        return value if value == ALL_LINEAR else self._pattern(key, value, WHOLE)

    def patterns(self, key: str) -> tuple[str, ...]:
        value = self.raw.get(key)
        found = (value,) if isinstance(value, str) and value else self.names(key)
        return tuple(self._pattern(key, item, LAYERS) for item in found)

    def layers(self) -> tuple[int, ...] | None:
        key = "layers_to_transform"
        value = self.raw.get(key)
        found = [value] if type(value) is int else value
        if found is None or found == []:
            return None
        if not isinstance(found, list) or not all(type(item) is int for item in found):
            raise self.wrong(key, "layers' numbers")
        return tuple(found)

    def by_pattern(self, key: str, *, whole: bool) -> dict[str, float]:
        value = self.raw.get(key) or {}
        sound = _is_rank if whole else _is_number
        if not isinstance(value, dict) or not all(map(sound, value.values())):
            raise self.wrong(key, "patterns and numbers")
        return {self._pattern(key, pattern, END): item for pattern, item in value.items()}

    def token_rows(self) -> dict[str, tuple[int, ...]]:
        key = "trainable_token_indices"
        value = self.raw.get(key) or {}
        tables = {"embed_tokens": value} if isinstance(value, list) else value
        if not isinstance(tables, dict):
            raise self.wrong(key, "tokens' ids")
        for rows in tables.values():
            sound = isinstance(rows, list) and all(type(row) is int and row >= 0 for row in rows)
            if not sound or len(set(rows)) != len(rows):
                raise self.wrong(key, "tokens' ids, each once")
        return {name: tuple(rows) for name, rows in tables.items()}

    def _pattern(self, key: str, text: str, where: str) -> str:
        try:
            re.compile(where.format(text))
        except (re.error, OverflowError, RecursionError):
            raise InputError(f"{self.path}: {key}: {_shown(text)} is no pattern") from None
        return text


def _where_else(folder: Path) -> str:
    """What a folder without settings is."""
    below = [item for item in folder.glob("checkpoint-*") if (item / ADAPTER).is_file()]
    if below:
        newest = max(below, key=lambda item: (len(item.name), item.name))
        return f"this holds a trainer's checkpoints; the newest is {newest}"
    return "is this the folder of a PEFT adapter?"


def _by_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    for pattern, value in patterns.items():
        if re.match(END.format(pattern), module):
            return value
    return default


def _matches(names: str | tuple[str, ...], module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _is_rank(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < 1e30


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
