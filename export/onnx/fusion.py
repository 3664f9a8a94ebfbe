"""Which linear layers become one multiplication: queries, keys and values of a layer.

What needs no graph is here, so that it can be asked without one.
"""

from __future__ import annotations

from edgeproof.families import DecoderConfig, Role

QUERY_KEY_VALUE = (Role.QUERY, Role.KEY, Role.VALUE)


def fuses_query_key_value(config: DecoderConfig) -> bool:
    """Whether nothing lies between the projections and attention, which takes all three at once."""
    return Role.QUERY_NORM not in config.structure.norms
