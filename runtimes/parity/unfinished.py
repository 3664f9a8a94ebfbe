"""Where a command keeps what it found of each artifact until it is done: Ctrl-C loses nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproof.files.cache import cache_folder, usable
from edgeproof.files.code import code_behind
from edgeproof.files.hashing import OutputFile
from runtimes.parity.environment import environment
from runtimes.registry import chosen_device

if TYPE_CHECKING:
    from runtimes.parity.run import ParityRun

KIND = "comparisons"  # of the cache
LONGEST = 14 * 24 * 3600.0  # seconds: nobody goes on later, or with other code or libraries


class Unfinished:
    """The folders of the cache in which one command keeps its comparisons, until it is `done`."""

    def __init__(self) -> None:
        self._folders: list[Path] = []

    def folder(
        self, asked: ParityRun, inputs: Sequence[OutputFile], original: Sequence[OutputFile]
    ) -> Path | None:
        """One for the comparisons of a run; None where nothing can be kept in the cache.

        Artifacts were made of `inputs`, and are compared with the `original`. Other machines',
        devices', libraries', code's, texts', extents' and limits' are elsewhere. What nobody has
        gone on with for long is removed.

        Raises:
            InputError: PyTorch does not find the device that is named.
        """
        place = cache_folder() / KIND / _key(asked, inputs, original)
        if usable(place) != place:
            return None
        if not self._folders:
            _remove_old(place.parent)
        self._folders.append(place)
        return place

    def done(self) -> None:
        """Remove them: whoever begins the same command now wants everything compared anew."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


def _key(asked: ParityRun, inputs: Sequence[OutputFile], original: Sequence[OutputFile]) -> str:
    how = asked.conditions
    suite, extent = how.suite, how.extent
    told = {
        "code": code_behind(__name__),
        "environment": asdict(environment(how.threads)),
        "checkpoint": [str(asked.checkpoint.resolve()), *map(asdict, inputs)],
        "original": [str((asked.original or asked.checkpoint).resolve()), *map(asdict, original)],
        "text": [suite.digest, suite.reply_tokens, suite.probe],
        "gates": {name: dict(limits) for name, limits in how.gates.items()},
        "extent": [
            extent.positions,
            extent.footprints,
            extent.localise_all,
            extent.whole_text,
            extent.computing.weights,
            chosen_device(extent.computing.device),
        ],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _remove_old(kind: Path) -> None:
    """Remove the folders in which nothing was kept for so long."""
    with contextlib.suppress(OSError):
        for folder in list(kind.iterdir()):
            if time.time() - folder.stat().st_mtime > LONGEST:
                shutil.rmtree(folder, ignore_errors=True)
