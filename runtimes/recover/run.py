"""One recovery: text, moments, grids, rounding, judgement, checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from edgeproof.display import duration
from edgeproof.families import Parameter
from edgeproof.files.atomic import atomic_folder, write_atomic
from edgeproof.files.cache import cache_folder, usable
from edgeproof.files.lock import exclusive
from edgeproof.files.space import require_space
from edgeproof.recovery import (
    CalibrationText,
    Original,
    Recovery,
    checkpoint_digest,
    weights_digest,
)
from edgeproof.recovery_cost import GRADED, Costs, folding
from edgeproof.recovery_cost import rounding as rounding_cost
from runtimes.calibrate import moments
from runtimes.calibrate.decoder import Decoder, open_decoder, read_structure
from runtimes.located import Model
from runtimes.parity.intervals import Estimate
from runtimes.recover import judge, progress, rounding, sizes, stages, writer
from runtimes.recover.allocate import allocated, predicted_loss
from runtimes.recover.distill.kept import Outcome
from runtimes.recover.distill.run import (
    VALIDATION_SEED,
    VALIDATION_TOKENS,
    Distilled,
    Part,
    Start,
    distill,
    needed_bytes,
)
from runtimes.recover.distill.wish import Distillation
from runtimes.recover.gate import Measured, smallest
from runtimes.recover.own_text import HELD_SEED, SEED, WHOLE, chunk_size, kept_text, own_text
from runtimes.recover.progress import Progress
from runtimes.recover.request import Wish
from runtimes.recover.stages import Stages, stages_folder, versions
from runtimes.recover.targets import Target
from runtimes.recover.text import Text, Windows, evaluation_windows, read_text
from runtimes.recover.vocabulary import Vocabulary, open_vocabulary

CALIBRATION = "calibration.json"
RECORDED = ("mean_kl", "top1", "clear_top1", "acceptance")
LEAST_HELD, MOST_HELD = 1536, 6144  # tokens
FLOAT_BYTES = 4
# Beside a model in float32, the cache holds moments and each grid's codes.
CACHE_SHARE = 2.5


@dataclass(frozen=True)
class Request:
    """What is recovered, and how."""

    model: Model
    target: Target
    wish: Wish
    calibration: Path | None
    tokens: int
    threads: int
    distillation: Distillation | None = None


@dataclass(frozen=True)
class Result:
    """What came out: bits per weight, about the files' size, and figures on held-out text.

    `distilled` is what training came to, `start` the figures before it; None: nothing was trained.
    """

    bits: float
    file_bytes: int
    grids: Mapping[str, str]
    figures: Mapping[str, Estimate]
    start: Mapping[str, Estimate] | None = None
    distilled: Outcome | None = None


def recover(request: Request, out: Path, progress_lines: Progress) -> Result:
    """Write the recovered checkpoint to `out`, taking from the cache what an earlier run left.

    Raises:
        InputError: a model that cannot be recovered, a size below the format's smallest, a text
            that may not be used, or a full disk.
        GateError: no size passes the gates.
    """
    path = request.model.path
    config, parameters = read_structure(path)
    sizes.check_rows(parameters)
    allowed = _allowed(request, parameters)
    whole = FLOAT_BYTES * sum(p.size for p in parameters)
    trained = 0 if request.distillation is None else needed_bytes(parameters)
    require_space(usable(cache_folder()), int(CACHE_SHARE * whole) + trained)
    require_space(out, whole)
    original = stages.Original(path, config, parameters)
    with exclusive(out):
        return _Run(request, original, progress_lines).write(out, allowed)


def _allowed(request: Request, parameters: tuple[Parameter, ...]) -> float | None:
    """Bits of all weights; None where a gate decides."""
    wish, target = request.wish, request.target
    if wish.gate is not None:
        return None
    if wish.bits is None and wish.max_mb is None:
        return sizes.stored_bits(target, parameters, {})
    return sizes.budget_bits(target, request.model.path, parameters, wish.bits, wish.max_mb or 0.0)


class _Run:
    """One recovery, while it goes on."""

    def __init__(self, request: Request, original: stages.Original, lines: Progress) -> None:
        self._request, self._original, self._lines = request, original, lines
        self._opened: Decoder | None = None
        self._plan()

    def write(self, out: Path, allowed: float | None) -> Result:
        """Everything, from text to the folder."""
        path = self._request.model.path
        digest = checkpoint_digest(path)
        text, held = self._texts(digest)
        folder = stages_folder(digest, text, self._request.threads)
        with exclusive(folder):
            made = Stages(folder, self._original, text)
            made.begin()
            if made.measured:
                self._lines.skip(self._costs.measuring(text.tokens))
            else:
                made.measure(self._decoder(), self._lines.advance)
            against = judge.reference(self._decoder(), held.chunks)
            self._opened = None
            errors = self._errors(made)
            if allowed is None:
                allowed = self._smallest(made, errors, against)
            grids = allocated(self._request.target, self._original.parameters, errors, allowed)
            self._round(made, grids)
            figures = self._judged(self._values(made, grids), against)
            values: Iterable[dict[str, torch.Tensor]] = self._values(made, grids)
            start, outcome = None, None
            if (wish := self._request.distillation) is not None:
                found = self._distilled(wish, digest, text, made, grids)
                start, outcome = figures, found.outcome
                if outcome.improved:
                    values, figures = found.values, self._judged(found.values, against)
            bits = sizes.stored_bits(self._request.target, self._original.parameters, grids)
            size = sizes.file_bytes(self._request.target, path, bits)
            result = Result(bits / self._count, size, grids, figures, start, outcome)
            with atomic_folder(out) as target:
                writer.copy_rest(path, target)
                parameters = self._original.parameters
                writer.write_weights(target, writer.as_held(values, parameters))
                write_atomic(target / CALIBRATION, text.content)
                method = {**self._method(held, result), **_distillation(target, result)}
                self._record(digest, text, method, result).save(target)
                writer.sync(target)
        return result

    @cached_property
    def _count(self) -> int:
        return sum(p.size for p in self._original.parameters)

    def _decoder(self) -> Decoder:
        if self._opened is None:
            self._opened = open_decoder(self._request.model.path, self._request.threads)
        return self._opened

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return open_vocabulary(self._request.model.path, self._request.threads)

    @cached_property
    def _known(self) -> Windows:
        return evaluation_windows(self._vocabulary)

    def _texts(self, digest: str) -> tuple[Text, Text]:
        """Calibration text and held-out text."""
        tokens, given = self._request.tokens, self._request.calibration
        if given is not None:
            size = chunk_size(self._vocabulary)
            text = read_text(given, self._vocabulary, self._known, tokens, size)
            self._lines.skip(self._costs.sampled_token * tokens)
        else:
            text = self._own(digest, tokens, SEED)
        return text, self._own(digest, self._held_tokens, HELD_SEED)

    def _own(self, digest: str, tokens: int, seed: int) -> Text:
        place = kept_text(digest, self._vocabulary, tokens, seed)
        with exclusive(place):
            if (place / WHOLE).exists():
                self._lines.skip(self._costs.sampled_token * tokens)

            def sampled(tokens: int, what: str) -> None:
                self._lines.advance(self._costs.sampled_token * tokens, what)

            return own_text(
                place, self._vocabulary, self._known, self._decoder, tokens, seed, sampled
            )

    def _distilled(
        self, wish: Distillation, digest: str, text: Text, made: Stages, grids: Mapping[str, str]
    ) -> Distilled:
        """Train from what is rounded."""
        validation = self._own(digest, VALIDATION_TOKENS, VALIDATION_SEED)
        self._opened = None
        start = Start(
            path=self._request.model.path,
            digest=digest,
            config=self._original.config,
            parameters=self._original.parameters,
            grids=grids,
            text=text,
            validation=validation,
            vocabulary=self._vocabulary,
            known=self._known,
            threads=self._request.threads,
        )
        with self._lines.away():
            return distill(wish, start, self._stored(made, grids), self._lines)

    @property
    def _held_tokens(self) -> int:
        return min(MOST_HELD, max(LEAST_HELD, self._request.tokens // 4))

    def _errors(self, made: Stages) -> dict[str, float]:
        """What plain rounding of each matrix loses after folding, which this does."""
        there = {layer for layer in made.layers if made.has_folded(layer)}
        self._lines.skip(sum(map(self._folding, there)))
        found = {}
        for layer, errors in made.fold_all(self._request.threads):
            found[layer] = errors
            if layer not in there:
                self._lines.advance(self._folding(layer), "scaling channels")
        return {name: found[layer][name] for layer in made.layers for name in found[layer]}

    def _smallest(
        self, made: Stages, errors: Mapping[str, float], against: judge.Reference
    ) -> float:
        """Bits of all weights of the smallest size that passes the gates on held-out text."""
        target, parameters = self._request.target, self._original.parameters
        grids = {end: dict.fromkeys(errors, target.grids[end]) for end in (0, -1)}
        least, most = (
            sizes.stored_bits(target, parameters, grids[end]) / self._count for end in (0, -1)
        )

        def chosen(bits: float) -> dict[str, str]:
            return allocated(target, parameters, errors, bits * self._count)

        def measured(bits: float) -> Measured:
            self._plan_trial()
            self._round(made, chosen(bits))
            figures = self._judged(self._values(made, chosen(bits)), against)
            acceptance, passes = figures["acceptance"], judge.passes(figures)
            verdict = "passes" if passes else "does not pass"
            shown = f"{acceptance.value:.3f} (≥ {acceptance.low:.3f})"
            self._lines.say(f"{bits:.2f} bits: acceptance {shown} {verdict}")
            return Measured(passes, 1 - acceptance.low)

        allowed = next(1 - g.limit for g in judge.LOW_BIT if g.metric == "acceptance")
        bits = smallest(
            least,
            most,
            allowed,
            lambda bits: predicted_loss(parameters, errors, chosen(bits)),
            measured,
        )
        return bits * self._count

    def _judged(
        self, values: Iterable[Mapping[str, torch.Tensor]], against: judge.Reference
    ) -> dict[str, Estimate]:
        """Compare a model of these values with the original on held-out text."""
        decoder = self._decoder()
        for part in values:
            decoder.assign(part)
        seconds = self._costs.judged_token * self._held_tokens / len(against.chunks)
        figures = judge.judged(decoder, against, lambda: self._lines.advance(seconds, "comparing"))
        self._opened = None
        return figures

    def _round(self, made: Stages, grids: Mapping[str, str]) -> None:
        """Before a model is in memory; what is there already costs no time any more."""
        for name in grids:
            if made.has_rounded(name, grids[name]):
                self._lines.skip(rounding_cost([self._shapes[name]]))
        for names in made.round_all(grids, self._request.threads):
            seconds = rounding_cost(self._shapes[name] for name in names)
            self._lines.advance(seconds, f"rounding {names[-1]}")

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {p.name: p.shape for p in self._original.parameters}

    def _values(self, made: Stages, grids: Mapping[str, str]) -> Iterator[dict[str, torch.Tensor]]:
        """The recovered values of all parameters, layer by layer."""
        for part in self._stored(made, grids):
            yield {
                name: item if isinstance(item, torch.Tensor) else item.values
                for name, item in part.items()
            }

    def _stored(self, made: Stages, grids: Mapping[str, str]) -> Iterator[Part]:
        """What is stored of all parameters, layer by layer."""
        for layer in made.layers:
            folded = made.folded(layer)
            part: dict[str, rounding.Rounded | torch.Tensor] = dict(folded.weights)
            part |= {name: made.rounded(name, grids[name], folded) for name in folded.errors}
            yield part

    @cached_property
    def _costs(self) -> Costs:
        return Costs.of(self._shapes.values())

    def _folding(self, layer: int | None) -> float:
        return folding(p.shape for p in self._original.of_layer(layer))

    def _plan(self) -> None:
        tokens, held, costs = self._request.tokens, self._held_tokens, self._costs
        self._lines.plan(costs.sampled_token * (tokens + held) + costs.measuring(tokens))
        self._lines.plan(folding(self._shapes.values()))
        self._plan_trial()
        if (wish := self._request.distillation) is not None:
            self._lines.plan(costs.sampled_token * VALIDATION_TOKENS + costs.judged_token * held)
            self._lines.plan_time(60 * wish.minutes)
        if (seconds := self._lines.planned) >= progress.WORTH_SAYING:
            size = f"{self._count / 1e6:.0f}M parameters, {tokens} tokens"
            again = "; more for each size that is tried" if self._request.wish.gate else ""
            said = f"about {duration(seconds)} of one core, less what the cache has{again}"
            self._lines.say(f"{size}: {said}")

    def _plan_trial(self) -> None:
        """To round for one size and to compare that; how many sizes a gate needs is not known."""
        held = self._costs.judged_token * self._held_tokens
        self._lines.plan(rounding_cost(self._shapes.values()) + held)

    def _method(self, held: Text, result: Result) -> dict[str, Any]:
        wish = self._request.wish
        return {
            "name": "moments, folding, compensated rounding, coordinate descent",
            "recipe": stages.RECIPE_VERSION,
            "format": self._request.target.name,
            "asked": {key: value for key, value in vars(wish).items() if value is not None},
            "bits": round(result.bits, 4),
            "damping": rounding.DAMPING,
            "clip": moments.CLIP,
            "graded": GRADED,
            "threads": self._request.threads,
            "held_out": {
                "sha256": held.sha256,
                "tokens": held.tokens,
                "figures": _recorded(result.figures),
            },
        }

    def _record(
        self, digest: str, text: Text, method: Mapping[str, Any], result: Result
    ) -> Recovery:
        model = self._request.model
        return Recovery(
            Original(model.name, digest, model.repo, model.revision, model.found_by),
            dict(result.grids),
            method,
            CalibrationText(text.sha256, text.tokens),
            versions(),
        )


def _distillation(folder: Path, result: Result) -> dict[str, Any]:
    """What recovery.json has of it; `sha256` is the weights', which nothing else identifies."""
    if result.distilled is None or result.start is None:
        return {}
    said = {
        **asdict(result.distilled),
        "kept_start": not result.distilled.improved,
        "sha256": weights_digest(folder),
        "held_out_before": _recorded(result.start),
    }
    return {"distilled": said}


def _recorded(figures: Mapping[str, Estimate]) -> dict[str, list[float]]:
    found = {name: figures[name] for name in RECORDED}
    return {name: [round(x, 5) for x in (f.value, f.low, f.high)] for name, f in found.items()}
