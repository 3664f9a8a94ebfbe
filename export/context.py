"""A checkpoint as a format without sliding windows, or without long rope's switch, can have it."""

from __future__ import annotations

import copy
import logging

from edgeproof.families import DecoderConfig
from export.checkpoint import Checkpoint

CONTEXT = "max_position_embeddings"

log = logging.getLogger(__name__)


def within_context(checkpoint: Checkpoint, config: DecoderConfig) -> Checkpoint:
    """The checkpoint with its decoder as the format has it: see `edgeproof.families.context`.

    Says so in one line where that has a shorter context.
    """
    if config == checkpoint.config:
        return checkpoint
    log.warning(
        "%s: the context is stated as %s positions instead of %s: beyond them the model attends or"
        " rotates otherwise, which this format cannot say",
        checkpoint.path,
        config.max_positions,
        checkpoint.config.max_positions,
    )
    found = copy.copy(checkpoint)
    found.config = config
    found.raw_config = {**checkpoint.raw_config, CONTEXT: config.max_positions}
    return found
