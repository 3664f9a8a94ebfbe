"""One distillation: two models on a device, training or what an earlier run kept, its result."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from edgeproof.errors import InputError
from edgeproof.families import DecoderConfig, Parameter
from edgeproof.files.cache import cache_folder, usable
from edgeproof.files.lock import exclusive
from runtimes.calibrate.decoder import Decoder, open_decoder
from runtimes.recover.distill.kept import BYTES_OF_A_WEIGHT, DistillationFolder, Outcome
from runtimes.recover.distill.latents import Latent, Matrix, Vector
from runtimes.recover.distill.loop import Pupil, Training
from runtimes.recover.distill.supply import Supply
from runtimes.recover.distill.wish import PACES, Distillation
from runtimes.recover.grids import GRIDS
from runtimes.recover.progress import Progress
from runtimes.recover.rounding import Rounded
from runtimes.recover.stages import versions
from runtimes.recover.text import Text, Windows
from runtimes.recover.vocabulary import Vocabulary

RECIPE_VERSION = 3
TABLES = "tables"
VALIDATION_TOKENS, VALIDATION_SEED = 3072, 2_000_001

# Names → what the start stores of them: matrices on a grid, all others as values.
Part = Mapping[str, Rounded | torch.Tensor]


@dataclass(frozen=True)
class Start:
    """A recovered checkpoint, and what it was made from.

    Attributes:
        path, digest: the original's folder and `checkpoint_digest`.
        config, parameters: its structure.
        grids: of each matrix, by name.
        text: the calibration text, which is trained on first.
        validation: the text that decides which checkpoint is best.
        vocabulary, known: what the original samples further texts with.
        threads: of PyTorch.
    """

    path: Path
    digest: str
    config: DecoderConfig
    parameters: tuple[Parameter, ...]
    grids: Mapping[str, str]
    text: Text
    validation: Text
    vocabulary: Vocabulary
    known: Windows
    threads: int


@dataclass(frozen=True)
class Distilled:
    """The result: better values than the start's, or none."""

    outcome: Outcome
    kept: DistillationFolder
    names: Mapping[str, Iterable[str]]

    @property
    def values(self) -> Iterable[dict[str, torch.Tensor]]:
        """All parameters' values, group by group; only where `outcome.improved`."""
        return self.kept.best_values(self.names)


def needed_bytes(parameters: Iterable[Parameter]) -> int:
    """What a distillation keeps on the disk at most."""
    return BYTES_OF_A_WEIGHT * sum(p.size for p in parameters)


def distill(wish: Distillation, start: Start, parts: Iterable[Part], lines: Progress) -> Distilled:
    """Train, or take what an earlier run of the same wish came to.

    `parts` are what the start stores, some parameters at a time, read once.

    Raises:
        InputError: the device has too little memory, or the disk is full.
    """
    folder = _folder(wish, start)
    names = _groups(start.parameters)
    with exclusive(folder):
        kept = DistillationFolder(folder)
        kept.begin()
        outcome = kept.outcome
        if outcome is None:
            try:
                outcome = _trained(wish, start, parts, kept, lines)
            except torch.OutOfMemoryError:
                raise InputError(
                    f"--device {wish.device}: too little memory for this model; --device cpu uses"
                    " the machine's"
                ) from None
            kept.finish(outcome)
    return Distilled(outcome, kept, names)


def _folder(wish: Distillation, start: Start) -> Path:
    recipe = {
        "distillation": RECIPE_VERSION,
        **asdict(wish),
        "checkpoint": start.digest,
        "grids": dict(start.grids),
        "text": start.text.sha256,
        "validation": start.validation.sha256,
        "threads": start.threads,
        "versions": versions(),
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return usable(cache_folder() / "recover" / f"distilled-{key}")


def _groups(parameters: Iterable[Parameter]) -> dict[str, list[str]]:
    """Names by layer: what is written into one file."""
    groups: dict[str, list[str]] = {}
    for p in parameters:
        groups.setdefault(TABLES if p.layer is None else str(p.layer), []).append(p.name)
    return groups


def _trained(
    wish: Distillation,
    start: Start,
    parts: Iterable[Part],
    kept: DistillationFolder,
    lines: Progress,
) -> Outcome:
    teacher = open_decoder(start.path, start.threads)
    teacher.model.to(wish.device)
    model = copy.deepcopy(teacher.model).requires_grad_(True)
    student = Decoder(start.config, start.parameters, model)
    pace = PACES[wish.device]
    pupil = Pupil(student, teacher, _latents(student, start, parts, pace.changed_values))
    supply = Supply(kept.folder, start.text, start.vocabulary, start.known, teacher, pace)
    return Training(wish, pupil, start.validation, supply, kept, lines).run()


@torch.no_grad()
def _latents(
    student: Decoder, start: Start, parts: Iterable[Part], together: int
) -> dict[str, dict[str, Latent]]:
    """What is trained, group by group; the student computes with the start from then on."""
    shares, norms = student.shares, start.config.structure.norms
    made: dict[str, Latent] = {}
    for part in parts:
        for name, value in part.items():
            if isinstance(value, Rounded):
                made[name] = Matrix(shares[name], value, GRIDS[start.grids[name]], together)
            else:
                norm = norms.get(student.parameters[name].role)
                made[name] = Vector(shares[name], value, norm.offset if norm else None)
    return {
        group: {name: made[name] for name in names}
        for group, names in _groups(start.parameters).items()
    }
