"""Where an audit keeps what it finds of each file until it is done: Ctrl-C loses nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from edgeproof.files.cache import cache_folder
from edgeproof.files.code import code_behind
from edgeproof.files.hashing import OutputFile
from runtimes.parity.environment import environment
from runtimes.parity.run import Extent
from runtimes.parity.suite import Suite
from runtimes.registry import chosen_device

KIND = "audits"  # of the cache


def unfinished(
    inputs: Sequence[OutputFile], suite: Suite, threads: int, extent: Extent, folder: Path
) -> Path:
    """A folder of the cache for comparisons with these files in a folder, of this text and extent.

    Another machine's, another device's, other libraries' or another edgeproof's are elsewhere.

    Raises:
        InputError: PyTorch does not find the device that is named.
    """
    told = {
        "code": code_behind(__name__),
        "environment": asdict(environment(threads)),
        "original": [str(folder.resolve()), *map(asdict, inputs)],
        "text": [suite.digest, suite.reply_tokens, suite.probe],
        "extent": [
            extent.positions,
            extent.footprints,
            extent.localise_all,
            extent.whole_text,
            extent.computing.weights,
            chosen_device(extent.computing.device),
        ],
    }
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return cache_folder() / KIND / key
