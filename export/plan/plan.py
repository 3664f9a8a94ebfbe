"""Read a plan (TOML): models × variants, what may be degraded, and gate overrides.

Everything is checked before anything is exported: unknown keys, formats, dtypes and bad values of a
format's own options are refused.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgeproof.artifact import Precision, Variant
from edgeproof.errors import InputError
from edgeproof.files.schema import Schema
from edgeproof.goal import Goal, parse_goal
from edgeproof.verdicts import METRICS, RUNTIME_CLASSES
from export.format import DIRECT, Exporter, Format, RecoveredDtypes
from export.formats import load_format
from export.model_name import model_name
from export.sources.adapters import AdapterRequest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = Schema(current=1, oldest=1, again="copy the default plan and edit it")
UP_TO = "recover-up-to"
PLAN_KEYS = {"schema", "models", "variant", "gates", UP_TO}
COUNT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?([MB])")  # of parameters
TIMES = {"M": 10**6, "B": 10**9}
VARIANT_KEYS = {"format", "dtype", "allow-degraded", "strict", "engine", "recover", "runtime"}
APART = ", for two runtimes: give one of them a plan and an --out of its own"
MODEL_KEYS = {"id", "revision", "adapter", "adapters", "name"}
ADAPTER_KEYS = {"id", "weight"}


@dataclass(frozen=True)
class ModelRequest:
    """A model as `--model`, `--revision`, `--adapter` and `--name` name it."""

    id: str
    revision: str | None = None
    adapters: tuple[AdapterRequest, ...] = ()
    name: str | None = None


@dataclass(frozen=True)
class VariantRequest:
    """One variant to export; a degraded one fails the run unless `allow_degraded`.

    `strict` refuses a fallback to another type; `engine` makes the files; `options` are the
    format's own with that engine, as the plan has them. With a `goal` it is made from a recovered
    checkpoint, after all others are compared. It is run in its format's usual runtime, or in the
    other one named.
    """

    format: str
    dtype: str
    allow_degraded: bool = False
    strict: bool = False
    engine: str = DIRECT
    options: Mapping[str, Any] = field(default_factory=dict)
    goal: Goal | None = None
    runtime: str | None = None

    def resolve(self) -> tuple[Exporter[Any], Variant[Any]]:
        """What makes it, and the variant with the options worked into it.

        Raises:
            InputError: an unknown format, engine or dtype, or a bad option.
        """
        form = load_format(self.format).engine(self.engine)
        return form, form.variant(self.dtype, **form.parse_options(self.options))

    @property
    def plain(self) -> bool:
        """Whether it is made from the model as it is."""
        return self.goal is None


@dataclass(frozen=True)
class Plan:
    """Models × variants, with gate overrides (precision class → metric → limit).

    Of a model with more than `recover_up_to` parameters there are no recovered variants.
    """

    models: tuple[ModelRequest, ...]
    variants: tuple[VariantRequest, ...]
    gates: dict[str, dict[str, float]]
    recover_up_to: int | None = None

    def only(self, formats: Sequence[str]) -> Plan:
        """The same without other formats; no formats mean all.

        Raises:
            InputError: the plan has nothing of one of them.
        """
        missing = sorted(set(formats) - {request.format for request in self.variants})
        if missing:
            raise InputError(f"--format {missing[0]}: the plan has no such variant")
        kept = tuple(item for item in self.variants if not formats or item.format in formats)
        return replace(self, variants=kept)

    def recovering(self, wanted: bool | None) -> Plan:
        """The same as --recover (of all models), --no-recover or neither asks for it."""
        if wanted is None:
            return self
        return replace(self, recover_up_to=None) if wanted else self.unrecovered

    @property
    def unrecovered(self) -> Plan:
        """The same without recovered variants."""
        return replace(self, variants=tuple(item for item in self.variants if item.plain))


def load_plan(path: Path | None) -> Plan:
    """The plan in `path`, or the built-in default plan.

    Raises:
        InputError: missing, not TOML, not a plan, or one for a newer edgeproof.
    """
    name = str(path) if path else "default plan"
    try:
        text = path.read_text("utf-8-sig") if path else default_text()
        raw = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not valid TOML ({error})") from None
    if not _of_64_bits(raw):
        raise InputError(f"{name}: has a number of more than 64 bits, which TOML has not")
    try:
        SCHEMA.check(raw.get("schema", SCHEMA.current), name)
    except TypeError:
        raise InputError(f"{name}: schema must be a number") from None
    try:
        return _parse(raw)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _of_64_bits(value: Any) -> bool:
    """Whether all whole numbers are."""
    if isinstance(value, dict | list):
        return all(map(_of_64_bits, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def default_text() -> str:
    """The built-in plan's TOML."""
    return files("export.plan").joinpath("default.toml").read_text("utf-8")


def _parse(raw: dict[str, Any]) -> Plan:
    _only(raw, PLAN_KEYS, "plan")
    models = tuple(_model(item) for item in _list(raw.get("models", ["bundled"]), "models"))
    variants = tuple(
        request for item in _list(raw.get("variant", []), "variant") for request in _variant(item)
    )
    _no_duplicates(variants)
    _no_name_twice(models)
    return Plan(models, variants, _gates(raw.get("gates", {})), _up_to(raw.get(UP_TO)))


def _up_to(value: Any) -> int | None:
    """A number of parameters: `"400M"`, `"1.5B"`, or a whole number."""
    if value is None or (type(value) is int and value > 0):
        return value
    found = COUNT.fullmatch(value) if isinstance(value, str) else None
    if found is None or not float(found[1]):
        raise InputError(f'{UP_TO} must be a number of parameters, such as "400M", not {value!r}')
    return round(float(found[1]) * TIMES[found[2]])


def _model(item: Any) -> ModelRequest:
    if isinstance(item, str):
        return ModelRequest(item)
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        raise InputError("a model is a string or a table with id, revision, name and adapters")
    _only(item, MODEL_KEYS, "model")
    name = model_name(item.get("name"), "a model's name")
    return ModelRequest(item["id"], item.get("revision"), tuple(_adapters(item)), name)


def _adapters(model: Mapping[str, Any]) -> Iterator[AdapterRequest]:
    """`adapter` is one, `adapters` are some; each a string, or a table with id and weight."""
    if "adapter" in model and "adapters" in model:
        raise InputError("a model has adapter or adapters, not both")
    given = model.get("adapter", model.get("adapters", []))
    for item in given if isinstance(given, list) else [given]:
        table = {"id": item} if isinstance(item, str) else item
        if not isinstance(table, dict) or not isinstance(table.get("id"), str):
            raise InputError("an adapter is a string or a table with id and weight")
        _only(table, ADAPTER_KEYS, "adapter")
        weight = table.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise InputError(f"an adapter's weight must be a number, not {weight!r}")
        yield AdapterRequest(table["id"], float(weight))


def _variant(item: Any) -> list[VariantRequest]:
    if not isinstance(item, dict) or not isinstance(item.get("format"), str):
        raise InputError("a [[variant]] needs format and dtype")
    engine = item.get("engine", DIRECT)
    whole = load_format(item["format"])
    form, runtime = whole.engine(str(engine)), _runtime(item, whole)
    _only(item, VARIANT_KEYS.union(form.option_names), f"a {form.name} variant")
    options = {name: value for name, value in item.items() if name not in VARIANT_KEYS}
    dtypes, goal = [str(dtype) for dtype in _list(item.get("dtype", []), "dtype")], None
    if "recover" in item:
        recovered = _recovered(item["format"], engine)
        goal = parse_goal(item["recover"], form.name, mixes=recovered.mixes)
        dtypes = [_recovered_name(form.name, recovered, dtype) for dtype in dtypes]
    requests = [
        VariantRequest(
            form.name,
            dtype,
            _flag(item, "allow-degraded"),
            _flag(item, "strict"),
            str(engine),
            options,
            goal,
            runtime,
        )
        for dtype in dtypes
    ]
    for request in requests:
        request.resolve()
    return requests


def _runtime(item: Mapping[str, Any], form: Format[Any]) -> str | None:
    name = item.get("runtime")
    if name is None or name in form.runtimes:
        return name
    known = ", ".join(form.runtimes)
    others = f"choose from {known}, or leave" if known else "it has only its usual one: leave"
    raise InputError(f"runtime: {name!r} does not execute {form.name}; {others} that out")


def _recovered(name: str, engine: Any) -> RecoveredDtypes:
    recovered = load_format(name).recovered
    if recovered is None:
        raise InputError(f"recover: {name} has no variants of a recovered checkpoint")
    if engine != DIRECT:
        raise InputError(f"recover has no effect with engine {engine!r}; leave that out")
    return recovered


def _recovered_name(form: str, recovered: RecoveredDtypes, dtype: str) -> str:
    names = recovered.names
    if dtype.lower() not in (*names, *names.values()):
        known = ", ".join(names)
        raise InputError(f"recover: {form} has no recovered {dtype!r}; its dtypes are {known}")
    return names.get(dtype.lower(), dtype.lower())


def _no_name_twice(models: Sequence[ModelRequest]) -> None:
    """Files, cards and repositories are called by it; some systems do not tell case apart."""
    found = set[str]()
    for name in filter(None, (model.name for model in models)):
        if name.casefold() in found:
            raise InputError(f"two models have the name {name}; give each its own")
        found.add(name.casefold())


def _no_duplicates(requests: Sequence[VariantRequest]) -> None:
    seen: dict[tuple[str, str], str | None] = {}
    for request in requests:
        _, variant = request.resolve()
        key = variant.format, variant.name
        if key in seen:
            apart = "" if seen[key] == request.runtime else APART
            raise InputError(f"{variant.format} {variant.name} is in the plan twice{apart}")
        seen[key] = request.runtime


def _flag(table: Mapping[str, Any], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise InputError(f"{key} must be true or false")
    return value


def _gates(raw: Any) -> dict[str, dict[str, float]]:
    if not isinstance(raw, dict) or not all(isinstance(item, dict) for item in raw.values()):
        raise InputError("[gates.<class>] must be tables of metric = limit")
    for kind, table in raw.items():
        known = [*(item.value for item in Precision), *RUNTIME_CLASSES]
        if kind not in known:
            raise InputError(f"[gates.{kind}]: unknown class; known: {', '.join(known)}")
        for metric, limit in table.items():
            if metric not in METRICS:
                raise InputError(
                    f"[gates.{kind}]: unknown metric {metric!r}; known: {', '.join(METRICS)}"
                )
            number = isinstance(limit, int | float) and not isinstance(limit, bool)
            if not number or not math.isfinite(limit):  # nothing is on the wrong side of NaN
                raise InputError(f"the gate {metric} must be a number, not {limit}")
            if limit < 0:
                raise InputError(f"the gate {metric} must not be negative, as {limit} is")
    return {kind: {metric: float(v) for metric, v in item.items()} for kind, item in raw.items()}


def _list(value: Any, name: str) -> list[Any]:
    items = value if isinstance(value, list) else [value]
    if not items:
        raise InputError(f"{name} is empty")
    return items


def _only(table: dict[str, Any], keys: Iterable[str], name: str) -> None:
    unknown = sorted(set(table) - set(keys))
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r} in {name}; known: {', '.join(sorted(keys))}")
