"""What runs along each axis of a parameter: for whoever reorders or pads a network's channels."""

from __future__ import annotations

from enum import Enum, auto

from edgeproof.families import Role


class Axis(Enum):
    """Channels that must be in the same order wherever they meet."""

    VOCAB = auto()
    STREAM = auto()  # the residual stream
    QUERIES = auto()  # all heads' channels, one head after the other
    KEYS = auto()  # those of the key/value heads, in their keys
    VALUES = auto()  # and in their values
    MIXTURES = auto()  # each query head's mixture of its key/value head's values
    INNER = auto()  # inside the MLP
    HEAD = auto()  # inside one head


STREAM_NORMS = (
    Role.INPUT_NORM,
    Role.ATTENTION_OUT_NORM,
    Role.MLP_NORM,
    Role.MLP_OUT_NORM,
    Role.FINAL_NORM,
)
AXES: dict[Role, tuple[Axis, ...]] = {
    **dict.fromkeys((Role.EMBEDDING, Role.HEAD), (Axis.VOCAB, Axis.STREAM)),
    **dict.fromkeys(STREAM_NORMS, (Axis.STREAM,)),
    Role.QUERY: (Axis.QUERIES, Axis.STREAM),
    Role.KEY: (Axis.KEYS, Axis.STREAM),
    Role.VALUE: (Axis.VALUES, Axis.STREAM),
    Role.OUTPUT: (Axis.STREAM, Axis.MIXTURES),
    Role.GATE: (Axis.INNER, Axis.STREAM),
    Role.UP: (Axis.INNER, Axis.STREAM),
    Role.DOWN: (Axis.STREAM, Axis.INNER),
    Role.QUERY_BIAS: (Axis.QUERIES,),
    Role.KEY_BIAS: (Axis.KEYS,),
    Role.VALUE_BIAS: (Axis.VALUES,),
    **dict.fromkeys((Role.GATE_BIAS, Role.UP_BIAS), (Axis.INNER,)),
    **dict.fromkeys((Role.OUTPUT_BIAS, Role.DOWN_BIAS), (Axis.STREAM,)),
    **dict.fromkeys((Role.QUERY_NORM, Role.KEY_NORM), (Axis.HEAD,)),
}
