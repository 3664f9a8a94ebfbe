"""Bind an adapter's tensors to the parameters of its base, or say which one does not fit.

Invariant: every tensor of the adapter is used, and everything that its settings name is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.families import Parameter, Role
from export.sources.adapters.changes import Added, Change, LowRank, Replaced, Rows
from export.sources.adapters.config import AdapterConfig, read_config
from export.sources.adapters.tensors import LOW_RANK, Module, Part, Stored, read_tensors

TABLES = (Role.EMBEDDING, Role.HEAD)
WEIGHT, BIAS = ".weight", ".bias"


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, opened; `weight` is what its change is multiplied with."""

    folder: Path
    config: AdapterConfig
    modules: Mapping[str, Module]
    weight: float


def open_adapter(folder: Path, weight: float) -> Adapter:
    """Read settings and the header of the weights.

    Raises:
        InputError: not a LoRA, or a damaged one.
    """
    return Adapter(folder, read_config(folder), read_tensors(folder), weight)


def bind(
    adapter: Adapter, parameters: Mapping[str, Parameter], *, tied: bool
) -> dict[str, tuple[Change, ...]]:
    """An adapter's changes by the name of the base's parameter.

    `parameters` are the base's by name, the head's too where it is `tied`.

    Raises:
        InputError: a tensor fits no parameter, or is missing.
    """
    found: dict[str, tuple[Change, ...]] = {}
    for module, parts in adapter.modules.items():
        first = next(iter(parts.values()))
        weight = parameters.get(module + WEIGHT)
        if weight is None:
            raise InputError(
                f"{first.where} changes {module}, which the base does not have: is the adapter for"
                " another base?"
            )
        for name, change in _changes(adapter, module, parts, weight, parameters):
            found[name] = (*found.get(name, ()), change)
    _check_complete(adapter, parameters, tied=tied)
    return found


def check_tables(
    adapter: Adapter, found: Mapping[str, tuple[Change, ...]], rows: Mapping[str, int]
) -> dict[str, int]:
    """The number of rows of each table after the changes, by name.

    `rows` are those before.

    Raises:
        InputError: a change is of another number of rows, or of a row that is not there.
    """
    after = dict(rows)
    for name in rows:
        for change in found.get(name, ()):
            if isinstance(change, Replaced):
                after[name] = change.values.shape[0]
            elif isinstance(change, LowRank):
                stored, axis = (change.a, 1) if change.table else (change.b, 0)
                if stored.shape[axis] != after[name]:
                    raise _misfit(stored, name, f"{after[name]} rows")
            elif isinstance(change, Rows) and max(change.indices) >= after[name]:
                raise InputError(
                    f"{adapter.config.path}: trainable_token_indices names row"
                    f" {max(change.indices)}, {name} has {after[name]}"
                )
    return after


def _changes(
    adapter: Adapter,
    module: str,
    parts: Module,
    weight: Parameter,
    parameters: Mapping[str, Parameter],
) -> Iterator[tuple[str, Change]]:
    if Part.WEIGHT in parts:
        yield weight.name, _replaced(adapter, parts[Part.WEIGHT], weight)
    if Part.ROWS in parts:
        yield weight.name, _rows(adapter, module, parts[Part.ROWS], weight)
    if any(part in parts for part in LOW_RANK):
        yield weight.name, _low_rank(adapter, module, parts, weight)
    bias = parameters.get(module + BIAS)
    for part in (Part.BIAS, Part.B_BIAS):
        if part in parts:
            stored = parts[part]
            if bias is None:
                raise InputError(f"{stored.where} is a bias, but the base's {module} has none")
            yield bias.name, _bias(adapter, module, part, stored, bias)


def _replaced(adapter: Adapter, stored: Stored, parameter: Parameter) -> Replaced:
    _require_whole(adapter, stored)
    free = parameter.role in TABLES
    if len(stored.shape) != len(parameter.shape) or (
        stored.shape[free:] != parameter.shape[free:] or 0 in stored.shape
    ):
        raise _misfit(stored, parameter.name, f"shape {list(parameter.shape)}")
    return Replaced(stored)


def _rows(adapter: Adapter, module: str, stored: Stored, table: Parameter) -> Rows:
    known = adapter.config.token_rows
    named = [rows for name, rows in known.items() if module == name or module.endswith(f".{name}")]
    # A tied head has the rows of the embedding, which alone is named.
    named += [*known.values()] if table.role is Role.HEAD else []
    if not named or not named[0]:
        raise InputError(
            f"{stored.where}: trainable_token_indices in {adapter.config.path.name} names no rows"
            f" of {module}"
        )
    indices = named[0]
    if table.role not in TABLES or stored.shape != (len(indices), table.shape[1]):
        raise _misfit(stored, table.name, f"shape {[len(indices), *table.shape[1:]]}")
    _require_whole(adapter, stored)
    return Rows(indices, stored)


def _require_whole(adapter: Adapter, stored: Stored) -> None:
    if adapter.weight != 1:
        raise InputError(
            f"{stored.where} takes the place of what the base has, which the weight"
            f" {adapter.weight:g} has no meaning for; leave it out"
        )


def _bias(
    adapter: Adapter, module: str, part: Part, stored: Stored, bias: Parameter
) -> Replaced | Added:
    if part is Part.BIAS:
        return _replaced(adapter, stored, bias)
    if stored.shape != bias.shape:
        raise _misfit(stored, bias.name, f"shape {list(bias.shape)}")
    return Added(stored, adapter.config.scaling(module) * adapter.weight)


def _low_rank(adapter: Adapter, module: str, parts: Module, weight: Parameter) -> LowRank:
    config, table = adapter.config, Part.EMBEDDING_A in parts or Part.EMBEDDING_B in parts
    first = next(parts[part] for part in LOW_RANK if part in parts)
    if len(weight.shape) != 2 or table != (weight.role is Role.EMBEDDING):
        raise InputError(f"{first.where}: the base's {weight.name} cannot be changed so")
    names = (Part.EMBEDDING_A, Part.EMBEDDING_B) if table else (Part.A, Part.B)
    missing = [part for part in names if part not in parts]
    if missing:
        which = missing[0].value.replace("\\", "")
        raise InputError(f"{first.where} is there, but {which} of {module} is missing")
    a, b = (parts[part] for part in names)
    magnitude = parts.get(Part.MAGNITUDE)
    if config.magnitudes != (magnitude is not None):
        said = "use_dora is true" if config.magnitudes else "use_dora is not true"
        has = "has" if magnitude is not None else "has no"
        raise InputError(f"{config.path}: {said}, but {module} {has} lora_magnitude_vector")
    rank, (rows, columns) = config.rank_of(module), weight.shape
    if config.targets is not None and not _targeted(config, weight, module):
        raise InputError(
            f"{a.where}: target_modules and layers in {config.path.name} leave {module} out"
        )
    free = weight.role in TABLES  # `check_tables` looks at their rows
    out, ins = (columns, rows) if table else (rows, columns)
    _check_rank(config, a, a.shape[:1], rank)
    _check_rank(config, b, b.shape[1:], rank)
    if len(a.shape) != 2 or (a.shape[1] != ins and not (free and table)):
        raise _misfit(a, weight.name, f"shape {[rank, ins]}")
    if len(b.shape) != 2 or (b.shape[0] != out and not (free and not table)):
        raise _misfit(b, weight.name, f"shape {[out, rank]}")
    if magnitude is not None and magnitude.shape not in ((b.shape[0],), (1, b.shape[0])):
        raise _misfit(magnitude, weight.name, f"shape {[b.shape[0]]}")
    return LowRank(a, b, config.scaling(module) * adapter.weight, magnitude, table)


def _check_rank(config: AdapterConfig, stored: Stored, found: tuple[int, ...], rank: int) -> None:
    if found != (rank,):
        shown = found[0] if found else "none"
        raise InputError(f"{stored.where} has rank {shown}, {config.path.name} says {rank}")


def _check_complete(adapter: Adapter, parameters: Mapping[str, Parameter], *, tied: bool) -> None:
    """Nothing that the settings name may be missing: it would silently be the base's."""
    for name, parameter in parameters.items():
        module = name.removesuffix(WEIGHT)
        if not name.endswith(WEIGHT):
            continue
        parts = adapter.modules.get(module, {})
        targeted = len(parameter.shape) == 2 and _targeted(adapter.config, parameter, module)
        if targeted and not any(part in parts for part in LOW_RANK):
            raise InputError(
                f"{adapter.folder}: target_modules in {adapter.config.path.name} name {module},"
                " of which the adapter has no tensor"
            )
        if tied and parameter.role is Role.HEAD:
            continue
        rows = any(module == end or module.endswith(f".{end}") for end in adapter.config.token_rows)
        saved = any(module.endswith(end) for end in adapter.config.saved)
        named = {
            "trainable_token_indices": (rows, Part.ROWS),
            "modules_to_save": (saved, Part.WEIGHT),
        }
        for key, (asked, part) in named.items():
            if asked and part not in parts:
                raise InputError(
                    f"{adapter.folder}: {key} in {adapter.config.path.name} names {module}, of"
                    " which the adapter has no values"
                )


def _targeted(config: AdapterConfig, parameter: Parameter, module: str) -> bool:
    return config.targets_module(
        module, head=parameter.role is Role.HEAD, table=parameter.role is Role.EMBEDDING
    )


def _misfit(stored: Stored, name: str, wanted: str) -> InputError:
    return InputError(
        f"{stored.where} has shape {list(stored.shape)}, {name} of the base asks for {wanted}: is"
        " the adapter for another base?"
    )
