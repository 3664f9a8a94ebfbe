"""Decide what may be released: compared, unchanged since, and good enough; the rest is named.

Invariant: what `select` returns has the bytes that were compared, hashed again just now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edgeproof.artifact import MANIFEST, Artifact, ModelIdentity, open_artifact
from edgeproof.errors import GateError, InputError
from edgeproof.recovery import RECOVERY
from edgeproof.verdicts import Compared, Key, ParityReport
from export.publication import Released


def select(
    folder: Path,
    report: ParityReport,
    exclude: Collection[Key] = (),
    *,
    allow_degraded: bool = False,
) -> tuple[Released, ...]:
    """The artifacts of `<root>/<model>` that its report speaks of, in the report's order.

    Args:
        folder: has the formats' folders.
        report: its parity.json.
        exclude: leave these out, whatever their verdict.
        allow_degraded: as if the plan said so of every variant.

    Raises:
        GateError: one or more must not be released; a line for each.
        InputError: nothing is left, `exclude` names what is not there, or the artifacts are of
            different models.
    """
    unknown = sorted(set(exclude) - {item.key for item in report.compared})
    if unknown:
        raise InputError(f"--exclude {'/'.join(unknown[0])}: {folder} has no such artifact")
    found = _artifacts(folder)
    released, refusals = [], []
    for compared in report.compared:
        if compared.key in exclude:
            continue
        artifact = found.get(compared.key)
        reasons = list(_refusals(artifact, compared, allow_degraded=allow_degraded))
        refusals += [f"{compared.name}: {reason}" for reason in reasons]
        if artifact is not None and not reasons:
            released.append(Released(artifact, compared))
    if refusals:
        raise GateError("\n  ".join(["these must not be released:", *refusals]))
    if not released:
        raise InputError(f"{folder}: nothing to release")
    _same_model([item.artifact for item in released])
    return tuple(released)


def not_compared(folder: Path, report: ParityReport) -> list[str]:
    """The artifacts that the report does not speak of, by name: they are not released."""
    return sorted(" ".join(key) for key in _artifacts(folder).keys() - _keys(report))


def _keys(report: ParityReport) -> set[Key]:
    return {item.key for item in report.compared}


def _artifacts(folder: Path) -> dict[Key, Artifact]:
    artifacts = [open_artifact(path.parent) for path in sorted(folder.glob(f"*/*/{MANIFEST}"))]
    found: dict[Key, Artifact] = {}
    for artifact in artifacts:
        variant = artifact.manifest.variant
        twin = found.setdefault((variant.format, variant.name), artifact)
        if twin is not artifact:
            raise InputError(f"{twin.path} and {artifact.path} are the same export; remove one")
    return found


def _refusals(
    artifact: Artifact | None, compared: Compared, *, allow_degraded: bool
) -> Iterator[str]:
    """Why it must not be released; bytes are only read where the rest is right."""
    allowed = compared.allow_degraded or allow_degraded
    if not compared.verdict.accepted(allow_degraded=allowed):
        missing = "; its plan does not say allow-degraded" if compared.verdict.permissible else ""
        yield f"{_verdict(compared)}{missing}"
        return
    if artifact is None:
        yield "compared, but no longer there; export and compare again"
    elif artifact.sha256 != compared.manifest:
        yield f"stale: {artifact.path / MANIFEST} is not the compared one; compare again"
    elif artifact.manifest.outputs != compared.files:
        yield f"stale: {artifact.path} has other files than were compared; compare again"
    else:
        try:
            artifact.check()
        except InputError as error:
            yield f"stale: {error}"


def _verdict(compared: Compared) -> str:
    return f"{compared.verdict} ({'; '.join(compared.reasons) or 'no reason given'})"


def _same_model(artifacts: Sequence[Artifact]) -> None:
    """A recovered checkpoint has files of its own; the parity run has held it to its original."""
    plain: dict[ModelIdentity, Path] = {}
    named: dict[ModelIdentity, Path] = {}
    for artifact in artifacts:
        model = artifact.manifest.model
        named.setdefault(replace(model, inputs=()), artifact.path)
        if RECOVERY not in {item.path for item in model.inputs}:
            plain.setdefault(model, artifact.path)
    for identities in (plain, named):
        if len(identities) > 1:
            first, second, *_ = identities.values()
            raise InputError(f"{first} and {second} were made from different checkpoints")
