"""What a decoder is made of: its config, its parameters, and how formats bind to them."""

from export.architecture.decoder import BIASES, DecoderConfig, Parameter, Role
from export.architecture.families import read_config
from export.architecture.mapping import Target, check_bound, stack_rows

__all__ = [
    "BIASES",
    "DecoderConfig",
    "Parameter",
    "Role",
    "Target",
    "check_bound",
    "read_config",
    "stack_rows",
]
