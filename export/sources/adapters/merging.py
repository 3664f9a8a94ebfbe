"""Merge adapters into a checkpoint: which tensors the result has, and their values, streamed.

A tensor that is changed is stored as float32, whatever the base has: then merged = base + adapter
within float32 rounding. What is not changed keeps its dtype and bytes, what is replaced has the
adapter's. Memory is that of one block of rows and of one tensor's factors.

A tied head follows the embedding only where PEFT's does: it shares the base's weight, so it has
new rows of it, and a table that was saved because it has grown; it has neither a low-rank change
of the embedding nor a copy of it that was trained (`modules_to_save`), unless the adapter was made
with `ensure_weight_tying`. Where the two differ, the merged checkpoint is untied.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from edgeproof.families import Parameter, Role, read_config, whole
from export.checkpoint import Checkpoint
from export.checkpoint.safetensors_writer import PlannedTensor
from export.sources.adapters.binding import TABLES, Adapter, bind, check_tables
from export.sources.adapters.changes import Change, LowRank, Replaced, Rows, Step, changed
from export.targets import Target

FLOAT32 = np.dtype(np.float32)
TIED, ROWS = "tie_word_embeddings", "vocab_size"
Changes = dict[str, tuple[Change, ...]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MergedTensor:
    """A tensor of the result: the base's, which is changed step by step or replaced.

    `held` are the base's parameters that are one tensor of its file, most often one.
    """

    parameter: Parameter
    held: tuple[Parameter, ...]
    replaced: Replaced | None
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Merge:
    """The result: its config.json, and its tensors by name."""

    checkpoint: Checkpoint
    config: dict[str, Any]
    tensors: Mapping[str, MergedTensor]

    @property
    def planned(self) -> list[PlannedTensor]:
        """The tensors as they are to be written."""
        return [
            PlannedTensor(name, self._dtype(tensor), tensor.parameter.shape)
            for name, tensor in self.tensors.items()
        ]

    def blocks(self, name: str) -> Iterator[np.ndarray]:
        """A tensor's values in its planned dtype, in blocks of rows.

        Raises:
            InputError: a value is NaN or infinite, or becomes so.
        """
        tensor = self.tensors[name]
        dtype = self._dtype(tensor)
        source = _Source(self.checkpoint, tensor)
        if not tensor.steps:
            yield from source
            return
        with np.errstate(over="ignore", invalid="ignore"):
            for block in changed(source, tensor.steps):
                if not np.isfinite(block).all():
                    raise InputError(
                        f"{self.checkpoint.path}: {name} has values beyond float32 with the"
                        " adapter: is it for another base, or its weight too large?"
                    )
                yield block.astype(dtype, copy=False)

    def _dtype(self, tensor: MergedTensor) -> np.dtype[Any]:
        stored = (
            tensor.replaced.values.dtype
            if tensor.replaced
            else self.checkpoint.stored_dtype(tensor.held[0].name)
        )
        exact = all(isinstance(step, Rows) and step.values.dtype == stored for step in tensor.steps)
        return stored if exact else FLOAT32


@dataclass(frozen=True)
class _Source:
    """What is there before the first step; each iteration begins anew."""

    checkpoint: Checkpoint
    tensor: MergedTensor

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.tensor.replaced is not None:
            return self.tensor.replaced.values.blocks()
        return (
            block
            for part in self.tensor.held
            for block in self.checkpoint.blocks(Target(part.name, (part,), part.shape))
        )


def untied_parameters(checkpoint: Checkpoint) -> dict[str, Parameter]:
    """The base's parameters by name, in its order, with the head also where it is tied.

    What one tensor holds is one of them: so are the modules that adapters change.
    """
    parameters = read_config({**checkpoint.raw_config, TIED: False})[1]
    return {item.name: item for item in whole(parameters)}


def plan_merge(checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> Merge:
    """Bind all adapters, which are merged in this order. Reads no weights but what ties compare.

    Raises:
        InputError: an adapter does not fit the base, or the one before it.
    """
    tied = checkpoint.config.tied
    parameters = untied_parameters(checkpoint)
    by_role = {item.role: item.name for item in parameters.values() if item.role in TABLES}
    embedding, head = by_role[Role.EMBEDDING], by_role[Role.HEAD]
    rows = dict.fromkeys((embedding, head), checkpoint.config.vocab)
    changes: Changes = {}
    for adapter in adapters:
        found = bind(adapter, parameters, tied=tied)
        if tied:
            found = _with_head(adapter, found, embedding, head, rows[embedding])
        rows = check_tables(adapter, found, rows)
        changes = _after(changes, found, adapter)
    if rows[embedding] != rows[head]:
        raise InputError(
            f"{adapters[-1].folder}: with the adapter {embedding} has {rows[embedding]} rows and"
            f" {head} {rows[head]}; both are needed in it"
        )
    if tied and not _same(changes.get(embedding, ()), changes.get(head, ())):
        tied = False
        log.warning(
            "%s: with the adapter %s is not %s any more: the merged model has both",
            checkpoint.path,
            head,
            embedding,
        )
    config = _config(checkpoint, rows[embedding], tied=tied)
    held: dict[str, tuple[Parameter, ...]] = {}
    for part in checkpoint.parameters:
        held[part.holder] = (*held.get(part.holder, ()), part)
    tensors = {}
    for item in whole(read_config(config)[1]):
        own = held.get(item.name, held[embedding])
        tensors[item.name] = _merged(item, own, changes.get(item.name, ()))
    return Merge(checkpoint, config, tensors)


def _with_head(adapter: Adapter, found: Changes, embedding: str, head: str, rows: int) -> Changes:
    """The changes of a tied base's head with those that reach it through the embedding."""
    saved = any(embedding.removesuffix(".weight").endswith(end) for end in adapter.config.saved)
    ours = found.get(head, ())
    whole = any(isinstance(change, Replaced) for change in ours)
    shared: list[Change] = []
    for change in found.get(embedding, ()):
        follows = adapter.config.ties
        if isinstance(change, Replaced):
            grown = change.values.shape[0] != rows and not whole
            if grown and saved and not follows:
                log.warning(
                    "%s: %s has grown and %s is not in the adapter: it is taken to be the same",
                    adapter.folder,
                    embedding,
                    head,
                )
            follows = (follows or not saved or grown) and not whole
        elif isinstance(change, Rows):
            follows = not any(isinstance(item, Rows) for item in ours)
        if follows and not (isinstance(change, LowRank) and ours):
            shared.append(change)
    return {**found, head: (*shared, *ours)} if shared or ours else found


def _after(before: Changes, found: Changes, adapter: Adapter) -> Changes:
    """The changes of adapters one after the other."""
    merged = dict(before)
    for name, changes in found.items():
        if name in before and any(isinstance(change, Replaced) for change in changes):
            raise InputError(
                f"{adapter.folder}: replaces {name}, which an adapter before it changes; merge it"
                " first, or one of the two alone"
            )
        merged[name] = (*before.get(name, ()), *changes)
    return merged


def _same(first: Sequence[Change], second: Sequence[Change]) -> bool:
    return len(first) == len(second) and all(
        one == other or (isinstance(one, Replaced) and one.same_as(other))
        for one, other in zip(first, second, strict=True)
    )


def _config(checkpoint: Checkpoint, rows: int, *, tied: bool) -> dict[str, Any]:
    raw = dict(checkpoint.raw_config)
    if rows != checkpoint.config.vocab:
        raw[ROWS] = rows
    if tied != checkpoint.config.tied:
        raw[TIED] = tied
    return raw


def _merged(
    parameter: Parameter, held: tuple[Parameter, ...], changes: tuple[Change, ...]
) -> MergedTensor:
    replaced = next((item for item in changes if isinstance(item, Replaced)), None)
    steps = tuple(item for item in changes if not isinstance(item, Replaced))
    return MergedTensor(parameter, held, replaced, steps)
