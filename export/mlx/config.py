"""config.json and the tokenizer's files, as mlx_lm loads them.

Source: https://github.com/ml-explore/mlx-lm, mlx_lm/utils.py (`load_config`, `load_model`): a layer
that `quantization` names has the bits that it says there; of any other one they follow from the
shapes. `quantization_config` is the same once more, for the hub.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from edgeproof.artifact import ArtifactWriter
from edgeproof.checkpoints.settings import SETTINGS, shipped_settings
from export.checkpoint import Checkpoint
from export.mlx.definitions import stated_keys
from export.mlx.schemes import AFFINE

# Code of strangers that mlx_lm could be told to run; what says nothing of the model; what mlx_lm's
# Llama would take for windows, which transformers' has not; a packing that weights no longer have.
QUANTIZATION = ("quantization", "quantization_config")
LEFT_OUT = (
    "model_file", "auto_map", "_name_or_path", "layer_types", "sliding_window", *QUANTIZATION,
)  # fmt: skip
END = "eos_token_id"

log = logging.getLogger(__name__)


def config_json(
    checkpoint: Checkpoint, group: int | None, bits: Mapping[str, int | None], mode: str | None
) -> bytes:
    """The content of config.json; `bits` are those of each matrix, by its module's name.

    `mode` is what codes stand for, None for `affine`.

    Raises:
        InputError: mlx_lm's model does not compute the checkpoint's decoder.
    """
    raw = checkpoint.raw_config
    config = {key: value for key, value in raw.items() if key not in LEFT_OUT}
    config |= stated_keys(checkpoint.config, raw)
    if config.get(END) is None:
        config[END] = checkpoint.said.role_id("eos")
    quantised = [count for count in bits.values() if count is not None]
    if group is not None and quantised:
        usual = max(sorted(set(quantised)), key=quantised.count)
        shared = {"group_size": group, "mode": mode or AFFINE}
        quantization: dict[str, Any] = {"bits": usual, **shared}
        for module, count in bits.items():
            if count is None:
                quantization[module] = False
            elif count != usual:
                quantization[module] = {"bits": count, **shared}
        config |= dict.fromkeys(QUANTIZATION, quantization)
    return (json.dumps(dict(sorted(config.items())), indent=4, ensure_ascii=False) + "\n").encode()


def write_tokenizer(checkpoint: Checkpoint, writer: ArtifactWriter) -> None:
    """Copy the tokenizer's, the template's and the generation's files."""
    for name in checkpoint.tokenizer_files:
        writer.write(name, checkpoint.shipped(name))
    if SETTINGS not in checkpoint.tokenizer_files:
        log.warning("%s: no %s, one that says nothing new is added", checkpoint.path, SETTINGS)
        writer.write(SETTINGS, json.dumps(shipped_settings(checkpoint.settings), indent=2).encode())
