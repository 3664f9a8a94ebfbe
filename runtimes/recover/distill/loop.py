"""Train for so many minutes; keep the best checkpoint, the untrained start among them.

Rates rise over the first `WARM` of the time and fall as a cosine to nothing at its end. What is
best is decided on a validation text, which takes at most a tenth of the time. The clock decides how
many steps there are, and nothing else: texts and their order follow from seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from edgeproof.display import duration
from runtimes.calibrate.decoder import Decoder
from runtimes.recover.distill import loss
from runtimes.recover.distill.kept import DistillationFolder, Outcome, Standing
from runtimes.recover.distill.latents import Latent, Stride
from runtimes.recover.distill.supply import Supply, of_equal_length
from runtimes.recover.distill.wish import PACES, Distillation
from runtimes.recover.progress import Progress
from runtimes.recover.text import Text

WARM = 0.02
CLIP = 2.0  # times the norm that gradients have lately
LATELY = 0.9  # decay of running means
VALIDATE_EVERY, VALIDATED_SHARE = 20.0, 0.1
KEEP_EVERY = 120.0  # seconds between two states on the disk
TELL_EVERY = 15.0
HOPELESS = 20  # steps in a row whose gradients are not finite


class _TimeUp(Exception):
    """The time asked for ends while a text is sampled."""


@dataclass(frozen=True)
class Pupil:
    """The model that is trained, what is trained behind its parameters, and the original.

    `groups` has the latents by the file that they are kept in, and by name.
    """

    decoder: Decoder
    teacher: Decoder
    groups: Mapping[str, Mapping[str, Latent]]

    @property
    def latents(self) -> list[Latent]:
        """All of them."""
        return [latent for group in self.groups.values() for latent in group.values()]


class Training:
    """One distillation, while it goes on."""

    def __init__(
        self,
        wish: Distillation,
        pupil: Pupil,
        validation: Text,
        supply: Supply,
        kept: DistillationFolder,
        lines: Progress,
    ) -> None:
        self._wish, self._pace = wish, PACES[wish.device]
        self._pupil, self._supply, self._kept = pupil, supply, kept
        self._validated_on = validation.sha256
        rows = self._pace.logit_rows
        self._validation = loss.Validation(pupil.teacher, validation.chunks, rows)
        self._say, self._clock = lines.say, lines.clock
        self._step_seconds = 0.0
        self._bad = 0

    def run(self) -> Outcome:
        """Go on from the newest state to the end of the time."""
        self._begun = self._clock()
        self._now = self._kept.load(self._pupil.groups) or self._untrained()
        best = self._kept.best
        self._best = self._now.start if best is None else best
        self._before, self._begun = self._now.seconds, self._clock()
        self._saved = self._told = self._before
        validated = self._now.step
        while self._bad < HOPELESS and not self._over:
            try:
                self._step()
            except _TimeUp:
                break
            if self._due:
                self._validate()
                validated = self._now.step
            self._keep()
        if validated != self._now.step:
            self._validate()
        return self._outcome()

    def _untrained(self) -> Standing:
        start = self._validation.mean_kl(self._pupil.decoder)
        seconds = self._clock() - self._begun
        return Standing(start, seconds, validated=seconds, validation=seconds)

    @property
    def _seconds(self) -> float:
        return self._before + self._clock() - self._begun

    @property
    def _all_seconds(self) -> float:
        return 60 * self._wish.minutes

    @property
    def _over(self) -> bool:
        """Whether another step and the last validation would take longer than is left."""
        return self._seconds + self._step_seconds + self._now.validation >= self._all_seconds

    @property
    def _due(self) -> bool:
        wait = max(VALIDATE_EVERY, self._now.validation * (1 / VALIDATED_SHARE - 1))
        return self._now.seconds - self._now.validated >= wait

    def _step(self) -> None:
        now, began = self._now, self._seconds
        rate = _rate(began / self._all_seconds)
        with loss.quick(self._wish.device):
            chunks, place = self._supply.take(now.place, self._pace.step_rows, self._advance)
        sampled = self._seconds
        count = sum(len(chunk.ids) - chunk.prefix for chunk in chunks)
        for latent in self._pupil.latents:
            latent.gradient.zero_()
        total = torch.zeros((), device=self._pupil.decoder.device)
        with loss.quick(self._wish.device):
            for part in of_equal_length(chunks, self._pace.micro_rows):
                rows = self._pace.logit_rows
                total += loss.pull(self._pupil.decoder, self._pupil.teacher, part, 1 / count, rows)
        self._move(float(total) / count, rate)
        now.place, now.step = place, now.step + 1
        now.tokens += sum(len(chunk.ids) for chunk in chunks)
        now.seconds = self._seconds
        self._step_seconds = now.seconds - sampled
        self._tell()

    @torch.no_grad()
    def _move(self, mean_kl: float, rate: float) -> None:
        now, latents = self._now, self._pupil.latents
        norm = float(torch.stack([latent.gradient.norm() for latent in latents]).norm())
        if not (math.isfinite(norm) and math.isfinite(mean_kl)):
            now.skipped += 1
            self._bad += 1
            return
        self._bad = 0
        usual = norm if now.norm is None else now.norm
        clip = min(1.0, CLIP * usual / norm) if norm > 0 else 1.0
        stride = Stride(now.step - now.skipped + 1, rate, clip)
        for latent in latents:
            latent.update(stride)
        now.norm = LATELY * usual + (1 - LATELY) * norm * clip
        before = mean_kl if now.loss is None else now.loss
        now.loss = LATELY * before + (1 - LATELY) * mean_kl

    def _validate(self) -> None:
        began = self._seconds
        found = self._validation.mean_kl(self._pupil.decoder)
        if found < self._best:
            self._best = found
            self._kept.save_best(found, self._pupil.groups)
        self._now.seconds = self._now.validated = self._seconds
        self._now.validation = self._now.seconds - began

    def _keep(self) -> None:
        if self._now.seconds - self._saved >= KEEP_EVERY:
            self._kept.save(self._now, self._pupil.groups)
            self._saved = self._now.seconds

    def _advance(self, tokens: int) -> None:
        """While a text is sampled."""
        del tokens
        if self._over:
            raise _TimeUp
        self._tell("sampling text")

    def _tell(self, doing: str = "") -> None:
        if self._seconds - self._told >= TELL_EVERY:
            self._told, now = self._seconds, self._now
            lately = "" if now.loss is None else f", KL {now.loss:.4f}"
            self._say(
                f"distilling, {doing or f'step {now.step}'}{lately}; on validation text"
                f" {self._best:.4f}, {now.start:.4f} before; {duration(self._left)} left"
            )

    @property
    def _left(self) -> float:
        return max(0.0, self._all_seconds - self._seconds)

    def _outcome(self) -> Outcome:
        now = self._now
        return Outcome(
            minutes=self._wish.minutes,
            device=self._wish.device,
            steps=now.step,
            skipped=now.skipped,
            tokens=now.tokens,
            texts=now.place.text + 1,
            start=now.start,
            best=self._best,
            validated_on=self._validated_on,
        )


def _rate(share: float) -> float:
    """The factor of all rates at this share of the time."""
    share = min(share, 1.0)
    return min(1.0, share / WARM) * (1 + math.cos(math.pi * share)) / 2
