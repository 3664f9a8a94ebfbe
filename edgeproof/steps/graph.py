"""The graph of a run: what both sides have planned, as steps on each other's results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from edgeproof.files.code import code_behind
from edgeproof.steps.planned import (
    NOTHING_RECOVERED,
    GivenFiles,
    PlannedExport,
    PlannedExports,
    PlannedMeasuring,
    PlannedModel,
    PlannedRecovered,
    PlannedRecovering,
    Recoverable,
)
from edgeproof.steps.results import Result
from edgeproof.steps.step import Kind, Needs, Step, digest

MODEL, TEXT, REFERENCE, ARTIFACT, FOOTPRINT = "model", "text", "reference", "artifact", "footprint"
RECOVERED = "recovered"
MEGABYTE, FLOAT32 = 10**6, 4


@dataclass(frozen=True)
class Given:
    """Files of this machine that steps begin with."""

    key: str
    label: str
    files: GivenFiles

    @property
    def bytes(self) -> int:
        """Of all of them."""
        return sum(item.bytes for item in self.files.files)

    def result(self, where: str) -> Result:
        """What is kept of them."""
        return Result(Kind.GIVEN, self.label, self.files.files, where, 0.0)


@dataclass(frozen=True)
class Variant:
    """The steps of one export. Without a step to export it, it cannot be done here."""

    planned: PlannedExport
    export: Step | None
    footprint: Step | None
    measure: Step | None

    @property
    def steps(self) -> tuple[Step, ...]:
        """Those that there are."""
        return tuple(step for step in (self.export, self.footprint, self.measure) if step)


@dataclass(frozen=True)
class RecoverySteps:
    """The steps of one recovered checkpoint, which is kept in a `folder` of this machine."""

    planned: PlannedRecovered
    folder: str
    recover: Step
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class ModelSteps:
    """The steps of one model."""

    planned: PlannedModel
    reference: Step
    variants: tuple[Variant, ...]
    recoveries: tuple[RecoverySteps, ...]

    @property
    def all_variants(self) -> tuple[Variant, ...]:
        """Those of the model as it is, then those of what is recovered of it."""
        return (*self.variants, *(item for found in self.recoveries for item in found.variants))


@dataclass(frozen=True)
class Graph:
    """All of a run: what it is given, and what is done with it."""

    given: tuple[Given, ...]
    models: tuple[ModelSteps, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """Each once, those first on which others rest."""
        found = {step.key: step for model in self.models for step in _of_model(model)}
        return tuple(sorted(found.values(), key=lambda step: list(Kind).index(step.kind)))


def build(
    exports: PlannedExports,
    measuring: PlannedMeasuring,
    further: Mapping[str, Mapping[str, float]],
    recovering: PlannedRecovering = NOTHING_RECOVERED,
) -> Graph:
    """The graph of a run.

    `further` has resources that the steps of a kind also take, by the kind's name; `recovering`
    what each recovery of each model takes, in their order.
    """
    given: dict[str, Given] = {}

    def key_of(files: GivenFiles, label: str) -> str:
        key = digest({"given": [[item.path, item.sha256] for item in files.files]})
        given[key] = Given(key, label, files)
        return key

    code = cache(code_behind)  # once for each side
    text = {} if measuring.text is None else {TEXT: key_of(measuring.text, TEXT)}
    models = []
    for number, planned in enumerate(exports.models):
        model = key_of(planned.checkpoint, planned.label)
        make = _Maker(planned, measuring, {MODEL: model, **text}, further, code)
        reference = make.step(Kind.REFERENCE, REFERENCE, measuring.reference, {}, {})
        every = (*planned.exports, *(e for found in planned.recovered for e in found.exports))
        files = {
            item.label: {name: key_of(found, name) for name, found in item.files.items()}
            for item in every
        }
        takes = recovering.models[number] if recovering.models else ()
        models.append(
            ModelSteps(
                planned,
                reference,
                tuple(
                    make.variant(item, files[item.label], reference, exports.gates)
                    for item in planned.exports
                ),
                tuple(
                    make.recovery(asked, found, recovering, files, reference, exports.gates)
                    for asked, found in zip(planned.recovered, takes, strict=True)
                    if found.left_out is None
                ),
            )
        )
    return Graph(tuple(given.values()), tuple(models))


@dataclass(frozen=True)
class _Maker:
    """Makes the steps of one model."""

    planned: PlannedModel
    measuring: PlannedMeasuring
    given: Mapping[str, str]
    further: Mapping[str, Mapping[str, float]]
    code: Callable[[str], dict[str, str]]

    def step(
        self,
        kind: Kind,
        label: str,
        module: str,
        inputs: Mapping[str, str],
        params: Mapping[str, object],
    ) -> Step:
        """One that measures."""
        told = self.measuring
        weights = self.planned.parameters * FLOAT32 / MEGABYTE
        asks = kind in (Kind.REFERENCE, Kind.MEASURE)
        return Step(
            kind,
            label,
            self.planned.label,
            module,
            {**told.of_text, "inputs": self.planned.inputs, **params},
            {**self.given, **inputs},
            told.versions,
            self.code(module),
            Needs(
                cores=told.threads,
                memory_mb=told.memory_mb + round(told.memory_times * weights),
                gpus=told.gpus if asks else 0,
                gpu_memory_mb=round(told.gpu_memory_times * weights) if asks else 0,
                alone=kind is Kind.FOOTPRINT,
                further=dict(self.further.get(kind.value, {})),
            ),
        )

    def recovery(
        self,
        asked: PlannedRecovered,
        found: Recoverable,
        recovering: PlannedRecovering,
        files: Mapping[str, Mapping[str, str]],
        reference: Step,
        gates: Mapping[str, Mapping[str, float]],
    ) -> RecoverySteps:
        """Those of one recovered checkpoint."""
        like = self.step(Kind.RECOVER, asked.recovery.goal.text, recovering.module, {}, {})
        turn = f"{RECOVERED} {self.given[MODEL]}"
        step = replace(
            like,
            params=found.params,
            inputs={MODEL: self.given[MODEL]},
            versions=recovering.versions,
            needs=replace(like.needs, gpus=found.gpus, turn=turn),
        )
        variants = tuple(
            self.variant(item, files[item.label], reference, gates, step) for item in asked.exports
        )
        return RecoverySteps(asked, found.folder, step, variants)

    def variant(
        self,
        item: PlannedExport,
        files: Mapping[str, str],
        reference: Step,
        gates: Mapping[str, Mapping[str, float]],
        recovered: Step | None = None,
    ) -> Variant:
        """Those of one export, of the model or of what was `recovered` of it."""
        if item.failed is not None:
            return Variant(item, None, None, None)
        told = self.measuring
        needs = replace(item.needs, further=dict(self.further.get(Kind.EXPORT.value, {})))
        export = Step(
            Kind.EXPORT,
            item.label,
            self.planned.label,
            item.module,
            item.params,
            {MODEL: self.given[MODEL] if recovered is None else recovered.key, **files},
            item.versions,
            self.code(item.module),
            needs,
        )
        made, footprint = {ARTIFACT: export.key}, None
        other = {} if item.runtime is None else {"runtime": item.runtime}
        if told.footprint is not None:
            alone = {"threads": told.threads, **other}
            footprint = replace(
                self.step(Kind.FOOTPRINT, item.label, told.footprint, made, {}),
                inputs=made,
                params=alone,
            )
            made = {**made, FOOTPRINT: footprint.key}
        inputs = {**made, REFERENCE: reference.key}
        if recovered is not None:
            inputs[RECOVERED] = recovered.key
        params = {**told.of_artifacts, "gates": gates, **other}
        measure = self.step(Kind.MEASURE, item.label, told.measure, inputs, params)
        return Variant(item, export, footprint, measure)


def _of_model(model: ModelSteps) -> Iterator[Step]:
    yield model.reference
    for recovery in model.recoveries:
        yield recovery.recover
    for variant in model.all_variants:
        yield from variant.steps
