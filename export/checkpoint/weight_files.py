"""Open the safetensors files that hold a checkpoint's weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeproof.checkpoints.weight_files import INDEX, weight_files
from edgeproof.errors import InputError
from export.checkpoint.safetensors_file import DTYPES, SafetensorsFile

log = logging.getLogger(__name__)


def open_weights(
    folder: Path, dtypes: Mapping[str, np.dtype[Any]] = DTYPES
) -> list[SafetensorsFile]:
    """Open the files that count, in their order; a note tells of others.

    `dtypes` are those that are read.

    Raises:
        InputError: as `weight_files`; a damaged file, or a tensor that the index and its shard
            disagree about.
    """
    found = weight_files(folder)
    opened = {path: SafetensorsFile(path, dtypes) for path in found.paths}
    for tensor, path in found.placed.items():
        if tensor not in opened[path].entries:
            raise InputError(f"{path}: tensor {tensor} is missing, {INDEX} expects it here")
    if found.note:
        log.warning(found.note)
    return list(opened.values())
