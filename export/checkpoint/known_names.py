"""Names that tensors have in files beside the family's own: transformers maps or ignores them too.

A base model saved alone (`LlamaModel`) has no `model.`; torch.compile's prefix is on every name,
and transformers does not know it: it would leave all weights at random values without a word.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from edgeproof.errors import InputError
from edgeproof.families import Parameter
from export.checkpoint.safetensors_file import SafetensorsFile

# Buffers that follow from the config: transformers before 4.32 saved them in every layer.
DERIVED_BUFFERS = re.compile(
    r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.(original_)?(inv_freq|cos_cached|sin_cached)"
)
MODEL = "model."
# Wrappers of training libraries that end up in front of every name.
WRAPPERS = ("_orig_mod.", "module.", "_fsdp_wrapped_module.", "base_model.model.")

log = logging.getLogger(__name__)


def rename(folder: Path, files: Sequence[SafetensorsFile], parameters: Sequence[Parameter]) -> None:
    """Give the tensors of a base model saved alone their names in the whole model, with a note.

    Raises:
        InputError: a wrapper's prefix is on the names.
    """
    names = [name for file in files for name in file.entries]
    known = {parameter.within or parameter.name for parameter in parameters}
    if known & set(names):
        return
    for prefix in WRAPPERS:
        if names and all(name.startswith(prefix) for name in names):
            raise InputError(
                f"{folder}: the names of all tensors begin with {prefix!r}, so that transformers"
                " loads none of them; save the model inside that wrapper, or take the prefix away"
            )
    if any(MODEL + name in known for name in names):
        log.warning("%s: saved without the prefix %r, which is added", folder, MODEL)
        for file in files:
            file.entries = {MODEL + name: entry for name, entry in file.entries.items()}
