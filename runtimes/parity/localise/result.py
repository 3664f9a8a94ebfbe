"""What localisation says of an artifact: where it breaks, and how far each layer is off."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from runtimes.parity.fields import AnyFloat, Keywords


class Cause(str, Enum):
    """What is wrong, in the order in which one explains away those after it."""

    TOKENIZER = "tokenizer"
    TEMPLATE = "chat template"
    METADATA = "metadata"  # a key of a config, of GGUF's metadata or of the graph's attributes
    WEIGHTS = "weights"  # a stored tensor is not the checkpoint's
    GRAPH = "graph"  # every weight and key is right, the hidden states are not
    KV_CACHE = "KV cache"  # one pass is right, step by step is not
    PADDING = "padding"  # rows of a left-padded batch
    FILE = "file"  # it cannot be read, or its bytes are not the manifest's
    ROUNDING = "rounding"  # what the precision costs: expected damage, nothing is broken
    NONE = "none"


class Component(str, Enum):
    """Part of a decoder. Norms: before and after attention and MLP, of queries or keys, last."""

    EMBEDDING = "embedding"
    INPUT_NORM = "input norm"
    Q_PROJ = "q_proj"
    K_PROJ = "k_proj"
    V_PROJ = "v_proj"
    HEAD_NORM = "query/key norm"
    ROPE = "rope"
    ATTENTION = "attention"  # scores, mask, softmax, mixing of values, the KV cache
    O_PROJ = "o_proj"
    ATTENTION_OUT_NORM = "norm after attention"
    MLP_NORM = "MLP norm"
    GATE_PROJ = "gate_proj"
    UP_PROJ = "up_proj"
    ACTIVATION = "activation"
    DOWN_PROJ = "down_proj"
    MLP_OUT_NORM = "norm after the MLP"
    FINAL_NORM = "final norm"
    HEAD = "head"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or how the error came about where nothing is."""

    cause: Cause
    text: str
    """In one line."""
    layer: int | None = None
    """Null where it concerns the whole model."""
    component: Component | None = None
    """Null where it concerns the whole model."""
    tensor: str | None = None
    """Hugging Face name."""
    key: str | None = None
    """Of the artifact's own metadata."""


@dataclass(frozen=True)
class LayerError:
    """Relative errors of the residual stream after a place, or of the logits."""

    place: str
    """embedding, layer N or logits."""
    total: AnyFloat
    """Against PyTorch fp32 on the checkpoint."""
    own: AnyFloat
    """Of the worst step there, given what the runtime gave to it.

    Against PyTorch on the artifact's weights.
    """


@dataclass(frozen=True)
class TensorError:
    """A stored tensor against the checkpoint's."""

    name: str
    """Hugging Face name."""
    error: AnyFloat
    """‖W′ − W‖ / ‖W‖; infinite where it is missing or has another shape."""
    output_error: AnyFloat
    """‖(W′ − W)x‖ / ‖Wx‖ on a short text."""
    wrong: str | None = None
    """What is the matter with it where rounding does not explain the error."""


@dataclass(frozen=True)
class Localisation:
    """Where the artifact breaks."""

    findings: Annotated[tuple[Finding, ...], Keywords(minItems=1)]
    """What explains most first; there is always one."""
    layer_errors: tuple[LayerError, ...] = ()
    """Empty where hidden states were not traced."""
    tensors: tuple[TensorError, ...] = ()
    """The worst ten by output error; empty where the file's weights cannot be read or are exact."""

    @property
    def cause(self) -> Finding:
        """The finding that explains most."""
        return self.findings[0]
