"""A model whose weights are all in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from runtimes.computing import CPU
from runtimes.pytorch.fused import apart, fill, heads_of
from runtimes.pytorch.held import HEAD, require_names
from runtimes.pytorch.watch import Watch


class Whole:
    """See `Held`. `load` reads it, at once and after each `rest`; `watch` sees all it runs.

    On a GPU what is given of its weights is a copy.
    """

    by_layer = False

    def __init__(self, load: Callable[[], Any], watch: Watch, device: torch.device) -> None:
        self._load, self._watch, self.device = load, watch, device
        self._loaded: Any = None
        self._heads = heads_of(self.model)

    @property
    def model(self) -> Any:
        """The model."""
        if self._loaded is None:
            self._loaded = self._load().to(self.device)
            self._watch.add(self._loaded)
        return self._loaded

    @property
    def head(self) -> np.ndarray:
        """The output matrix, float32 [V, hidden]; the model's own memory."""
        weight: np.ndarray = self.model.get_output_embeddings().weight.detach().cpu().numpy()
        return weight

    @property
    def lasting_head(self) -> np.ndarray:
        """A copy: other weights may take the place of the model's own."""
        copy: np.ndarray = self.head.copy()
        return copy

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The parameters in use: not copies."""
        return {
            part: rows
            for name, value in self.model.named_parameters()
            for part, rows in apart(name, value.cpu().numpy(), self._heads)
        }

    @contextlib.contextmanager
    def running(self, tensors: Mapping[str, np.ndarray]) -> Iterator[None]:
        """Other values take the place of the model's own, so that no two models are in memory."""
        if HEAD in tensors and HEAD not in dict(self.model.named_parameters()):
            head = self.model.get_output_embeddings()
            head.weight = torch.nn.Parameter(torch.empty_like(head.weight), requires_grad=False)
        parameters = dict(self.model.named_parameters())
        try:
            require_names(parameters, tensors)
            for name, parameter in parameters.items():
                values = parameter.data.cpu()  # itself, where it is there
                fill(name, values.numpy(), tensors, self._heads)
                if self.device.type != CPU:
                    parameter.data.copy_(values)
            yield
        finally:
            self.rest()

    def together(self, texts: Sequence[Sequence[np.ndarray]], watch: Watch) -> None:
        """Nothing is gained."""

    def rest(self) -> None:
        """Free the weights."""
        self._loaded = None
