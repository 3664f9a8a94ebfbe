"""What a model of a family is: its config, its parameters, and what it computes with them."""

from edgeproof.families.decoder import BIASES, DecoderConfig, Parameter, Role
from edgeproof.families.registry import read_config

__all__ = ["BIASES", "DecoderConfig", "Parameter", "Role", "read_config"]
