"""What localisation says of an artifact: where it breaks, and how far each layer is off."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


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
    """Part of a decoder. Norms: before attention, before the MLP, of queries or keys, last."""

    EMBEDDING = "embedding"
    INPUT_NORM = "input norm"
    Q_PROJ = "q_proj"
    K_PROJ = "k_proj"
    V_PROJ = "v_proj"
    HEAD_NORM = "query/key norm"
    ROPE = "rope"
    ATTENTION = "attention"  # scores, mask, softmax, mixing of values, the KV cache
    O_PROJ = "o_proj"
    MLP_NORM = "MLP norm"
    GATE_PROJ = "gate_proj"
    UP_PROJ = "up_proj"
    ACTIVATION = "activation"
    DOWN_PROJ = "down_proj"
    FINAL_NORM = "final norm"
    HEAD = "head"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong; `text` says it in one line.

    `layer` and `component` are None where it concerns the whole model; `tensor` is a Hugging Face
    name, `key` one of the artifact's own metadata.
    """

    cause: Cause
    text: str
    layer: int | None = None
    component: Component | None = None
    tensor: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class LayerError:
    """Relative errors after a place, of the residual stream (`layer 3`) or of the `logits`.

    `total` is against PyTorch fp32 on the checkpoint; `own` that of the worst step there, against
    PyTorch on the artifact's weights, given what the runtime gave to the step.
    """

    place: str
    total: float
    own: float


@dataclass(frozen=True)
class TensorError:
    """A stored tensor against the checkpoint's: ‖W′ − W‖ / ‖W‖, and ‖(W′ − W)x‖ / ‖Wx‖.

    `wrong` says what is the matter with it where rounding does not explain the error.
    """

    name: str
    error: float
    output_error: float
    wrong: str | None = None


@dataclass(frozen=True)
class Localisation:
    """`findings`, the one that explains most first; there is always one.

    `layer_errors` is empty where the hidden states were not traced; `tensors` are the worst ten by
    output error, empty where the file's weights cannot be read or are exact.
    """

    findings: tuple[Finding, ...]
    layer_errors: tuple[LayerError, ...] = ()
    tensors: tuple[TensorError, ...] = ()

    @property
    def cause(self) -> Finding:
        """The finding that explains most."""
        return self.findings[0]
