"""What a distillation keeps in its folder of the cache: states, the best checkpoint, its end.

A state is whole or not there: it is written under a name of its own, and the older one goes when it
is there. Killed at any moment, the newest state and the best checkpoint are both usable.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from edgeproof.files.atomic import TEMPORARY, atomic_folder, write_atomic
from runtimes.recover import store
from runtimes.recover.distill.latents import Latent, Tensors, values_of
from runtimes.recover.distill.supply import Place
from runtimes.recover.writer import sync

STATE, STANDING = "state-", "standing.json"
BEST, OUTCOME = "best", "outcome.json"
KL = "kl"
# Levels and their first moment in float32, the second ones of blocks; two states while one is
# written, and the best checkpoint in bytes.
BYTES_OF_A_WEIGHT = 19


@dataclass
class Standing:
    """How far training is.

    Attributes:
        start: mean KL of the untrained start on the validation text.
        seconds: of the time asked for that are used.
        step: steps done, and of them those `skipped` because a gradient was not finite.
        tokens: read, each as often as it was.
        loss: mean KL on what was trained on lately; None: nothing yet.
        norm: that of gradients lately.
        validated: seconds at the last validation's end; it took `validation`.
        place: what is read next.
    """

    start: float
    seconds: float = 0.0
    step: int = 0
    skipped: int = 0
    tokens: int = 0
    loss: float | None = None
    norm: float | None = None
    validated: float = 0.0
    validation: float = 0.0
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class Outcome:
    """What a distillation came to, as recovery.json has it.

    `tokens` are read, of so many `texts`; `validated_on` is the SHA-256 of the validation text.
    `start` and `best` are mean KL on the validation text in nats; the same, if no checkpoint was
    better than the start, which is the result then.
    """

    minutes: float
    device: str
    steps: int
    skipped: int
    tokens: int
    texts: int
    start: float
    best: float
    validated_on: str

    @property
    def improved(self) -> bool:
        """Whether the result is another one than the start."""
        return self.best < self.start


@dataclass(frozen=True)
class DistillationFolder:
    """The folder of one distillation."""

    folder: Path

    def begin(self) -> None:
        """Remove what a killed run was writing; the caller has the folder to itself."""
        for left in self.folder.rglob(f"{TEMPORARY}*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        if self.outcome is not None:
            self._clear()

    @property
    def outcome(self) -> Outcome | None:
        """What it came to, once it is done."""
        path = self.folder / OUTCOME
        return Outcome(**json.loads(path.read_bytes())) if path.exists() else None

    def finish(self, outcome: Outcome) -> None:
        """Note the end; states and texts go."""
        write_atomic(self.folder / OUTCOME, json.dumps(asdict(outcome)).encode())
        self._clear()

    def _clear(self) -> None:
        for path in self._states:
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob("text-*.json"):
            path.unlink()

    def save(self, standing: Standing, groups: Mapping[str, Mapping[str, Latent]]) -> None:
        """Write a state: a file for each group of latents, one group in memory at a time."""
        before = self._states
        target = self.folder / f"{STATE}{standing.step}"
        with atomic_folder(target) as folder:
            for group, latents in groups.items():
                content = {
                    f"{name}/{part}": tensor.cpu()
                    for name, latent in latents.items()
                    for part, tensor in latent.state.items()
                }
                store.save(_file(folder, group), content)
            (folder / STANDING).write_text(json.dumps(asdict(standing)))
            sync(folder)
        for path in before:
            if path != target:
                shutil.rmtree(path, ignore_errors=True)

    def load(self, groups: Mapping[str, Mapping[str, Latent]]) -> Standing | None:
        """Give latents what the newest state has; None: there is none."""
        if not self._states:
            return None
        folder = self._states[-1]
        for group, latents in groups.items():
            content = store.load(_file(folder, group))
            assert content is not None, "a state is whole"
            for name, latent in latents.items():
                parts = latent.state
                latent.load({part: content[f"{name}/{part}"] for part in parts})
        raw = json.loads((folder / STANDING).read_bytes())
        return Standing(**{**raw, "place": Place(**raw["place"])})

    @property
    def best(self) -> float | None:
        """The mean KL of the best checkpoint; None: none was better than the start."""
        found = store.load(self.folder / BEST / f"{KL}.safetensors")
        return None if found is None else float(found[KL])

    def save_best(self, kl: float, groups: Mapping[str, Mapping[str, Latent]]) -> None:
        """Replace the best checkpoint."""
        with atomic_folder(self.folder / BEST) as folder:
            for group, latents in groups.items():
                content = {
                    f"{name}/{part}": tensor
                    for name, latent in latents.items()
                    for part, tensor in latent.stored().items()
                }
                store.save(_file(folder, group), content)
            store.save(_file(folder, KL), {KL: torch.tensor(kl, dtype=torch.float64)})
            sync(folder)

    def best_values(self, groups: Mapping[str, Iterable[str]]) -> Iterable[Tensors]:
        """The values of the best checkpoint's tensors, group by group."""
        for group, names in groups.items():
            content = store.load(_file(self.folder / BEST, group))
            assert content is not None, "the best checkpoint is whole"
            yield {name: values_of(_below(content, name)) for name in names}

    @property
    def _states(self) -> list[Path]:
        found = [path for path in self.folder.glob(f"{STATE}*") if path.is_dir()]
        return sorted(found, key=lambda path: int(path.name.removeprefix(STATE)))


def _file(folder: Path, group: str) -> Path:
    return folder / f"{group}.safetensors"


def _below(content: Mapping[str, torch.Tensor], name: str) -> Tensors:
    start = f"{name}/"
    return {k.removeprefix(start): v for k, v in content.items() if k.startswith(start)}
