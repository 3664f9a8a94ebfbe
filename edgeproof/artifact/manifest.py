"""`edgeproof.json`: where an artifact came from, how it was made, and the hash of every file in it.

Nothing in it depends on folder names, clock, locale or machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgeproof.artifact.schema_2 import upgraded
from edgeproof.artifact.variant import Facts, Precision, Variant
from edgeproof.files.hashing import OutputFile
from edgeproof.files.own import parse_own, typed
from edgeproof.files.schema import Schema

MANIFEST = "edgeproof.json"
SCHEMA = Schema(
    current=3,
    oldest=2,
    again="export it again",
    what="an edgeproof manifest",
    writer=("tools", "edgeproof"),
)


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
class VariantRecord:
    """A variant as its artifact records it: `recipe` is for people, programs read the `facts`."""

    format: str
    name: str
    precision: Precision
    recipe: Mapping[str, Any]
    facts: Facts

    @staticmethod
    def of(variant: Variant[Any]) -> VariantRecord:
        """The record of a variant; what its recipe leaves open (None) is not in it."""
        text = json.dumps(asdict(variant.recipe, dict_factory=_given))
        return VariantRecord(
            variant.format,
            variant.name,
            variant.precision,
            json.loads(text),
            variant.recipe.facts,
        )

    @property
    def by_importance(self) -> bool:
        """Whether an importance matrix weighted the rounding, as the recipe says."""
        rounding = self.recipe.get("rounding")
        return isinstance(rounding, Mapping) and rounding.get("imatrix") is not None


def _given(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in items if value is not None}


@dataclass(frozen=True)
class Manifest:
    """The parsed content of `edgeproof.json`; `schema` is that of the file."""

    model: ModelIdentity
    variant: VariantRecord
    recipe_digest: str
    tools: dict[str, str]
    outputs: tuple[OutputFile, ...]
    weights: dict[str, Any]
    schema: int = SCHEMA.current

    @property
    def effective_bpw(self) -> float:
        """Effective bits per weight, as it was counted when the file was written."""
        return float(self.weights["effective_bpw"])

    def to_json(self) -> str:
        """Stable text in the current schema: sorted keys, two spaces, final newline."""
        content = {**asdict(self), "schema": SCHEMA.current}
        return json.dumps(content, indent=2, sort_keys=True) + "\n"

    @staticmethod
    def from_json(data: bytes, source: str) -> Manifest:
        """Parse a manifest of this schema or of an older one; `source` names the file in errors.

        Raises:
            DamagedFileError: not a manifest.
            InputError: one of a newer edgeproof.
        """
        return parse_own(data, source, SCHEMA, _manifest)


@dataclass(frozen=True)
class _TypeCount:
    """What is stored in one type."""

    tensors: int
    elements: int
    bytes: int


@dataclass(frozen=True)
class _FallbackCount(Fallback):
    """The tensors that one reason is about."""

    tensors: int
    elements: int


@dataclass(frozen=True)
class _Weights:
    """What `weights_record` gives."""

    bytes: int
    classes: dict[str, dict[str, int]]
    effective_bpw: float
    fallback_share: float
    fallbacks: tuple[_FallbackCount, ...]
    types: dict[str, _TypeCount]


def _manifest(raw: dict[str, Any]) -> Manifest:
    found = typed(
        Manifest,
        upgraded(raw) if raw["schema"] == 2 else raw,
        exact=(ModelIdentity, OutputFile, Facts),
    )
    typed(_Weights, found.weights, "weights")
    return found


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


def recipe_digest(model: ModelIdentity, variant: VariantRecord, tools: dict[str, str]) -> str:
    """SHA-256 of everything that the output bytes depend on, and of the manifest's schema."""
    recipe = {
        "model": asdict(model),
        "variant": asdict(variant),
        "tools": tools,
        "schema": SCHEMA.current,
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
