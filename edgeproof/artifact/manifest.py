"""`edgeproof.json`: where an artifact came from, how it was made, and the hash of every file in it.

Nothing in it depends on folder names, clock, locale or machine.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from edgeproof.artifact.variant import Precision, Variant
from edgeproof.errors import InputError
from edgeproof.files.hashing import OutputFile

MANIFEST = "edgeproof.json"
SCHEMA = 2


@dataclass(frozen=True)
class ModelIdentity:
    """What was exported. `repo` and `revision` are None for a folder of unknown origin."""

    name: str
    repo: str | None
    revision: str | None
    parameters: int
    inputs: tuple[OutputFile, ...]


@dataclass(frozen=True)
class Fallback:
    """Why a tensor is not in the type that was asked for: its rows do not divide into blocks."""

    asked: str
    stored: str
    row: int
    block: int


@dataclass
class WeightStats:
    """Per storage type: tensors, elements and bytes, counted while they are written.

    `classes` counts elements per kind of tensor and storage type.
    """

    types: dict[str, dict[str, int]] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    fallbacks: dict[Fallback, dict[str, int]] = field(default_factory=dict)

    def add(
        self,
        type_name: str,
        elements: int,
        nbytes: int,
        *,
        kind: str | None = None,
        fallback: Fallback | None = None,
    ) -> None:
        """Count one stored tensor; `fallback` when it is not in the type that was asked for."""
        entry = self.types.setdefault(type_name, {"tensors": 0, "elements": 0, "bytes": 0})
        entry["tensors"] += 1
        entry["elements"] += elements
        entry["bytes"] += nbytes
        if kind is not None:
            of_kind = self.classes.setdefault(kind, {})
            of_kind[type_name] = of_kind.get(type_name, 0) + elements
        if fallback is not None:
            count = self.fallbacks.setdefault(fallback, {"tensors": 0, "elements": 0})
            count["tensors"] += 1
            count["elements"] += elements

    @property
    def bytes(self) -> int:
        """Bytes of all weights, scales and zero points included."""
        return sum(entry["bytes"] for entry in self.types.values())

    def effective_bpw(self, parameters: int) -> float:
        """All bytes of weights × 8 / parameters."""
        return self.bytes * 8 / parameters


@dataclass(frozen=True)
class Manifest:
    """The parsed content of `edgeproof.json`."""

    model: ModelIdentity
    variant: Variant
    recipe: str
    tools: dict[str, str]
    outputs: tuple[OutputFile, ...]
    weights: dict[str, Any]

    @property
    def effective_bpw(self) -> float:
        """Effective bits per weight, as it was counted when the file was written."""
        return float(self.weights["effective_bpw"])

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of `edgeproof.json` as it was written."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Stable text: sorted keys, two spaces, final newline."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str, source: str) -> Manifest:
        """Parse; `source` names the file in errors.

        Raises:
            InputError: not a manifest of this schema.
        """
        try:
            raw = json.loads(text)
            if raw.pop("schema") != SCHEMA:
                raise InputError(f"{source}: written by another version; export it again")
            model, variant = raw["model"], raw["variant"]
            return Manifest(
                model=ModelIdentity(
                    **{**model, "inputs": tuple(OutputFile(**item) for item in model["inputs"])}
                ),
                variant=Variant(
                    format=variant["format"],
                    name=variant["name"],
                    precision=Precision(variant["precision"]),
                    storage=tuple((key, value) for key, value in variant["storage"]),
                    aliases=tuple(variant["aliases"]),
                ),
                recipe=raw["recipe"],
                tools=raw["tools"],
                outputs=tuple(OutputFile(**item) for item in raw["outputs"]),
                weights=raw["weights"],
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{source}: not an edgeproof manifest; export it again") from None


def weights_record(stats: WeightStats, parameters: int) -> dict[str, Any]:
    """The manifest's `weights` section."""
    fallbacks = [{**asdict(why), **count} for why, count in stats.fallbacks.items()]
    return {
        "bytes": stats.bytes,
        "classes": stats.classes,
        "effective_bpw": round(stats.effective_bpw(parameters), 4),
        "fallback_share": round(sum(f["elements"] for f in fallbacks) / parameters, 6),
        "fallbacks": fallbacks,
        "types": stats.types,
    }


def recipe_digest(model: ModelIdentity, variant: Variant, tools: dict[str, str]) -> str:
    """SHA-256 of everything that the output bytes depend on."""
    recipe = {"model": asdict(model), "variant": asdict(variant), "tools": tools, "schema": SCHEMA}
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
