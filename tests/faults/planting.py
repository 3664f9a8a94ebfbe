"""Export an artifact with a fault in it, under the manifest of a clean one."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeproof.artifact import Artifact, open_artifact
from edgeproof.artifact.json_file import read_json
from edgeproof.artifact.manifest import MANIFEST
from edgeproof.families import read_config
from edgeproof.files.atomic import write_atomic
from edgeproof.files.hashing import OutputFile, file_sha256
from export import job
from export.checkpoint import Checkpoint, open_checkpoint
from export.checkpoint.folder import read_raw_config
from export.checkpoint.safetensors_file import SafetensorsFile
from export.sources import Source
from tests.faults.fault import SIXTEEN_BIT, Plant


class PlantedFile(SafetensorsFile):
    """A checkpoint's weights file, some of whose tensors are others."""

    def __init__(self, path: Path, changed: Mapping[str, np.ndarray]) -> None:
        super().__init__(path)
        self._changed = {name: changed[name] for name in changed if name in self.entries}

    def tensor(self, name: str) -> np.ndarray:
        """The planted values, or the file's own."""
        return self._changed[name] if name in self._changed else super().tensor(name)


def export(checkpoint: Path, form: str, root: Path, plant: Plant) -> Artifact:
    """Export one artifact below `root`, which must not exist; the caller removes it.

    The manifest says that it was made from the clean checkpoint, so that the parity run compares.
    """
    chosen = importlib.import_module(f"export.{form}").FORMAT
    source, clean = Source(path=checkpoint, label="model"), open_checkpoint(checkpoint)
    read = _planted(checkpoint, clean, plant, root / "read")
    variant = chosen.variant(plant.variant or SIXTEEN_BIT[form], **plant.options)
    identity = job.identify(source, clean)
    planted = job.Job(source, read, identity, chosen, variant)
    artifact = job.run(planted, root, lambda count: None).artifact
    if plant.files is None:
        return artifact
    plant.files(artifact)
    return rehashed(artifact)


def rehashed(artifact: Artifact) -> Artifact:
    """The artifact with the sizes and hashes that its files have now."""
    outputs = tuple(
        OutputFile(item.path, path.stat().st_size, file_sha256(path))
        for item in artifact.manifest.outputs
        for path in (artifact.path / item.path,)
    )
    manifest = replace(artifact.manifest, outputs=outputs)
    write_atomic(artifact.path / MANIFEST, manifest.to_json().encode())
    return open_artifact(artifact.path)


def _planted(checkpoint: Path, clean: Checkpoint, plant: Plant, folder: Path) -> Checkpoint:
    """The checkpoint as an exporter with the fault sees it; `folder` gets its other files."""
    folder.mkdir(parents=True)
    for path in clean.tokenizer_files.values():
        shutil.copy(path, folder)
    shutil.copy(checkpoint / "config.json", folder)
    for name, edit in plant.documents.items():
        document = read_json(folder / name)
        edit(document)
        (folder / name).write_text(json.dumps(document))
    raw = read_raw_config(folder)
    config, parameters = read_config(raw)
    paths = dict.fromkeys(clean.file_of(parameter.name) for parameter in clean.parameters)
    changed: dict[str, np.ndarray] = {}
    if plant.tensors is not None:
        where = {name: file for file in map(SafetensorsFile, paths) for name in file.entries}
        changed = plant.tensors(lambda name: where[name].tensor(name), clean.config)
    planted = [PlantedFile(path, changed) for path in paths]
    return Checkpoint(folder, raw, config, parameters, [*planted])
