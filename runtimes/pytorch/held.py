"""How a model's weights are held: what `TorchRuntime` asks of it, whole or layer by layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch

from edgeproof.errors import InputError
from runtimes.pytorch.fused import named
from runtimes.pytorch.watch import Watch

HEAD = "lm_head.weight"


class Held(Protocol):
    """transformers' model and where its weights are."""

    by_layer: bool
    """Whether a layer's weights are in memory only while it runs."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def model(self) -> Any:
        """The model, ready to be called."""
        ...

    @property
    def head(self) -> np.ndarray:
        """The output matrix, float32 [V, hidden]."""
        ...

    @property
    def lasting_head(self) -> np.ndarray:
        """The same, which no other weights take the place of."""
        ...

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        """The parameters in use by Hugging Face names, fused ones apart; not to be written to."""
        ...

    def running(self, tensors: Mapping[str, np.ndarray]) -> AbstractContextManager[None]:
        """Run with these instead; see `TorchRuntime.running`."""
        ...

    def together(
        self, texts: Sequence[Sequence[np.ndarray]], watch: Watch
    ) -> list[torch.Tensor] | None:
        """Hidden states after the last norm [T, H] of texts, each in pieces [n] of ids.

        None where nothing is gained by running several at once.
        """
        ...

    def rest(self) -> None:
        """Free the weights; they are read again when they are next needed."""
        ...


def require_names(parameters: Collection[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Refuse tensors of other names than a model's parameters; a tied head may be apart.

    Raises:
        InputError: naming some.
    """
    names = {part for name in parameters for part in named(name)}
    missing, unknown = names - tensors.keys(), tensors.keys() - names - {HEAD}
    if missing or unknown:
        raise InputError(
            f"weights do not fit the model: missing {sorted(missing)[:3]},"
            f" unknown {sorted(unknown)[:3]}"
        )
