"""What the parameters of a decoder do."""

from __future__ import annotations

from enum import Enum


class Role(Enum):
    """What a parameter does. Formats map roles, never name patterns.

    INPUT_NORM and MLP_NORM are of what attention and the MLP read, the *_OUT_NORM of what they
    give, before it is added to the residual stream; QUERY_NORM and KEY_NORM come before rotation.
    """

    EMBEDDING = "embedding"
    INPUT_NORM = "input_norm"
    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    OUTPUT = "output"
    ATTENTION_OUT_NORM = "attention_out_norm"
    MLP_NORM = "mlp_norm"
    GATE = "gate"
    UP = "up"
    DOWN = "down"
    MLP_OUT_NORM = "mlp_out_norm"
    FINAL_NORM = "final_norm"
    HEAD = "head"
    QUERY_BIAS = "query_bias"
    KEY_BIAS = "key_bias"
    VALUE_BIAS = "value_bias"
    OUTPUT_BIAS = "output_bias"
    GATE_BIAS = "gate_bias"
    UP_BIAS = "up_bias"
    DOWN_BIAS = "down_bias"
    QUERY_NORM = "query_norm"
    KEY_NORM = "key_norm"


# Linear layer → the role of its bias, where it has one.
BIASES = {
    Role.QUERY: Role.QUERY_BIAS,
    Role.KEY: Role.KEY_BIAS,
    Role.VALUE: Role.VALUE_BIAS,
    Role.OUTPUT: Role.OUTPUT_BIAS,
    Role.GATE: Role.GATE_BIAS,
    Role.UP: Role.UP_BIAS,
    Role.DOWN: Role.DOWN_BIAS,
}
