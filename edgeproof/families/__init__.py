"""What a model of a family is: its config, its parameters, and what it computes with them."""

from edgeproof.families.decoder import DecoderConfig, Parameter, rows_held, whole
from edgeproof.families.family import Family
from edgeproof.families.registry import (
    assumed_ids,
    family,
    family_name,
    mlc_family,
    mlc_names,
    read_config,
)
from edgeproof.families.roles import BIASES, Role

__all__ = [
    "BIASES",
    "DecoderConfig",
    "Family",
    "Parameter",
    "Role",
    "assumed_ids",
    "family",
    "family_name",
    "mlc_family",
    "mlc_names",
    "read_config",
    "rows_held",
    "whole",
]
