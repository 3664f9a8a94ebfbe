"""A model of whose layers one is in memory at a time: transformers' own modules, weights on loan.

Invariant: a module computes with the values that it would have in a whole model, in memory of its
own, so that results are equal bit for bit. Whatever calls the model works: a layer's weights are
there when it is called and gone when it has returned. What runs many texts at once reads them once.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeproof.errors import InputError
from runtimes.pytorch.by_layer import hidden_by_layer
from runtimes.pytorch.fused import fill, heads_of
from runtimes.pytorch.held import HEAD, require_names
from runtimes.pytorch.loading import check_head, empty_model
from runtimes.pytorch.stored import DTYPES, rows, stored_entries, tensor
from runtimes.pytorch.watch import Watch
from runtimes.weights.stored import StoredWeights


@dataclass(frozen=True)
class _Place:
    """A parameter of the model; `empty`, which cannot be computed with, stands for it meanwhile."""

    name: str
    module: Any
    attribute: str
    empty: torch.nn.Parameter

    def put(self, values: torch.Tensor) -> None:
        setattr(self.module, self.attribute, torch.nn.Parameter(values, requires_grad=False))

    def clear(self) -> None:
        setattr(self.module, self.attribute, self.empty)


class Layered:
    """See `Held`."""

    by_layer = True

    def __init__(self, checkpoint: Path, watch: Watch, device: torch.device) -> None:
        """Read nothing but what is outside of layers and tables.

        Raises:
            InputError: transformers cannot make the model, or its parameters are not the files'
                tensors one by one.
        """
        self._path, self.device = checkpoint, device
        self.model = empty_model(checkpoint)
        for module in self.model.modules():  # tables of angles and the like, not weights
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))
        self._heads = heads_of(self.model)
        self._entries = stored_entries(checkpoint)
        self._source: Mapping[str, np.ndarray] | None = None  # others than the checkpoint's own
        self._shapes = {name: tuple(p.shape) for name, p in self.model.named_parameters()}
        self._require_tensors()
        base = self.model.base_model
        self._base, self._output = base, self.model.get_output_embeddings()
        self._embedding = self._places(self.model.get_input_embeddings())[0]
        self._head_place = self._places(self._output)[0]
        self._layers = {layer: self._places(layer) for layer in base.layers}
        within = {place.name for places in self._layers.values() for place in places}
        within |= {self._embedding.name, self._head_place.name}
        self._outside = [p for p in self._places(self.model) if p.name not in within]
        self._resident: Any = None  # the layer that stays while many texts go through it
        self._head: np.ndarray | None = None
        self._on_device = torch.empty(0)  # the same, for products
        self._table: torch.Tensor | None = None
        self._known = torch.zeros(0, dtype=torch.bool)
        self._lent: weakref.ref[np.ndarray] = weakref.ref(np.empty(0))
        for layer in self._layers:
            layer.register_forward_pre_hook(lambda layer, _: self._enter(layer))
            layer.register_forward_hook(lambda layer, _, __: self._leave(layer))
        self._embedding.module.register_forward_pre_hook(self._look_up)
        self._output.register_forward_pre_hook(self._project)
        base.register_forward_pre_hook(lambda *_: self._put_outside())
        check_head(self.model, checkpoint, device)
        self.rest()
        watch.add(self.model)

    @property
    def head(self) -> np.ndarray:
        """The output matrix, float32 [V, hidden]."""
        return self._head_values()

    @property
    def lasting_head(self) -> np.ndarray:
        """The same memory: nothing is written to it."""
        return self.head

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        """The parameters in use, read anew at each access."""
        if self._source is not None:
            return self._source
        sources = {name: partial(self._stored, name) for name in self._shapes}
        return StoredWeights(sources, self._heads, self._path)

    @contextlib.contextmanager
    def running(self, tensors: Mapping[str, np.ndarray]) -> Iterator[None]:
        """Values are taken from there, a layer's when it runs: a misshapen one shows then."""
        require_names(self._shapes, tensors)
        self.rest()
        self._source = tensors
        try:
            yield
        finally:
            self._source = None
            self.rest()

    def together(self, texts: Sequence[Sequence[np.ndarray]], watch: Watch) -> list[torch.Tensor]:
        """All texts through a layer, then through the next one."""
        return hidden_by_layer(self._base, texts, self._staying, watch.aside, self.device)

    def rest(self) -> None:
        """Free the tables, and what a layer left that was stopped."""
        for place in (self._embedding, self._head_place, *self._outside):
            place.clear()
        for layer in self._layers:
            self._leave(layer)
        self._forget()

    def _require_tensors(self) -> None:
        """Refuse a checkpoint that transformers would change while it loads it."""
        found = {name: item.shape for name, item in self._entries.items() if item.dtype in DTYPES}
        other = [name for name, shape in self._shapes.items() if found.get(name) != shape]
        if HEAD in found and HEAD not in self._shapes:
            other.append(HEAD)
        if other:
            raise InputError(
                f"{self._path}: {other[0]} is not in the files as the model has it, so that it"
                " cannot be run layer by layer"
            )

    def _places(self, module: Any) -> list[_Place]:
        names = {id(p): name for name, p in self.model.named_parameters()}  # a tied head's: one
        return [
            _Place(names[id(parameter)], owner, attribute, _nothing(parameter))
            for owner in module.modules()
            for attribute, parameter in owner.named_parameters(recurse=False)
        ]

    def _values(self, name: str, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """A parameter in float32, in memory of its own."""
        if self._source is None:
            return tensor(self._entries[name])
        values = np.empty(shape or self._shapes[name], np.float32)
        fill(name, values, self._source, self._heads)
        return torch.from_numpy(values)

    def _stored(self, name: str) -> np.ndarray:
        values: np.ndarray = tensor(self._entries[name]).numpy()
        return values

    def _put_outside(self) -> None:
        for place in self._outside:
            place.put(self._values(place.name).to(self.device))

    def _enter(self, layer: Any) -> None:
        if layer is not self._resident:
            for place in self._layers[layer]:
                place.put(self._values(place.name).to(self.device))

    def _leave(self, layer: Any) -> None:
        if layer is not self._resident:
            for place in self._layers[layer]:
                place.clear()

    @contextlib.contextmanager
    def _staying(self, layer: Any) -> Iterator[None]:
        """The layer's weights are read once, however often it is called."""
        self._enter(layer)
        self._resident = layer
        try:
            yield
        finally:
            self._resident = None
            self._leave(layer)

    @property
    def _tied(self) -> bool:
        apart = self._source is not None and HEAD in self._source
        return self._head_place.name == self._embedding.name and not apart

    def _head_values(self) -> np.ndarray:
        """The head stays until `rest`; where somebody holds it still, it is not read again."""
        known = self._head
        if known is not None:
            return known
        values = self._lent() if self._source is None else None
        if values is None:
            name = self._head_place.name
            apart = HEAD if self._source is not None and HEAD in self._source else name
            values = self._values(apart, self._shapes[name]).numpy()
        self._head = values
        if self._source is None:
            self._lent = weakref.ref(values)
        self._on_device = torch.from_numpy(values).to(self.device)
        self._head_place.put(self._on_device)
        return values

    def _project(self, *_: Any) -> None:
        self._head_values()

    def _look_up(self, _: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        """Have the rows of these ids; of a tied table all, which the head needs."""
        if self._tied:
            self._head_values()
            self._embedding.put(self._on_device)
            return
        table = self._table
        if table is None:
            shape = self._shapes[self._embedding.name]
            table = self._table = torch.empty(shape, device=self.device)  # in RAM only rows written
            self._known = torch.zeros(shape[0], dtype=torch.bool)
            self._embedding.put(table)
        wanted = self._wanted(inputs[0])
        if len(wanted):
            table[wanted.to(self.device)] = self._rows(wanted).to(self.device)

    def _wanted(self, ids: torch.Tensor) -> torch.Tensor:
        """Those of the ids whose rows are not there yet, on the CPU; now they are."""
        every = torch.unique(ids.cpu())
        found: torch.Tensor = every[~self._known[every]]
        self._known[found] = True
        return found

    def _rows(self, wanted: torch.Tensor) -> torch.Tensor:
        name = self._embedding.name
        if self._source is None:
            return rows(self._entries[name], wanted)
        return self._values(name)[wanted]

    def _forget(self) -> None:
        self._head = self._table = None
        self._on_device = torch.empty(0)


def _nothing(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
