"""One export: checkpoint + variant → artifact folder, reused when nothing changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproof import __version__
from edgeproof.artifact import (
    Artifact,
    ArtifactWriter,
    DryRunWriter,
    ModelIdentity,
    Precision,
    Variant,
    fallback_text,
    open_artifact,
    reusable,
    weights_record,
)
from edgeproof.errors import InputError
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import input_records
from edgeproof.files.lock import exclusive
from edgeproof.files.space import require_space
from export.checkpoint import CheckpointFolder
from export.format import Advance, Format
from export.sources import Source

# Per weight, without scales and without what is kept wider.
LEAST_BITS = {
    Precision.FP32: 32,
    Precision.FP16: 16,
    Precision.BF16: 16,
    Precision.EIGHT_BIT: 8,
    Precision.LOW_BIT: 2,
}


@dataclass(frozen=True)
class Verified:
    """How many tensors were read back and compared, and a line on what was checked besides."""

    tensors: int
    note: str


@dataclass(frozen=True)
class Outcome:
    """What an export did; `verified` is None where nothing was written or no check asked for."""

    artifact: Artifact
    reused: bool
    verified: Verified | None = None


@dataclass(frozen=True)
class Rehearsal:
    """What an export would write: bytes of its files, and the manifest's `weights`."""

    bytes: int
    weights: dict[str, Any]


def identify(source: Source, checkpoint: CheckpointFolder) -> ModelIdentity:
    """The identity that goes into manifests: content and origin, no folder names."""
    return ModelIdentity(
        name=source.name or derived_name(checkpoint),
        repo=source.repo,
        revision=source.revision,
        parameters=checkpoint.parameter_count,
        inputs=input_records(checkpoint.input_files, cache_folder() / "digests"),
    )


def derived_name(checkpoint: CheckpointFolder) -> str:
    """A name from the content, for a folder of unknown origin: family and size."""
    return f"{checkpoint.raw_config.get('model_type')}-{round(checkpoint.parameter_count / 1e6)}M"


def target_folder(
    root: Path, source: Source, identity: ModelIdentity, form: Format[Any], variant: Variant
) -> Path:
    """`<root>/<model>/<format>/<folder>`: the variant's name, if the format has no other."""
    return root / source.label / form.name / form.folder(identity.name, variant)


def run(
    source: Source,
    checkpoint: CheckpointFolder,
    identity: ModelIdentity,
    form: Format[Any],
    variant: Variant,
    root: Path,
    advance: Advance,
    *,
    force: bool = False,
    strict: bool = False,
    verify: bool = False,
) -> Outcome:
    """Write the variant's artifact below `root`, or reuse the one that is there.

    `strict` rehearses first and refuses a variant with tensors in another type than it asks for;
    `verify` reopens what was written, where the format has a check, before it appears.

    Raises:
        InputError: bad values in the checkpoint, a target that cannot be written, or files that
            are not what was written.
    """
    target = target_folder(root, source, identity, form, variant)
    tools = {"edgeproof": __version__, **form.tools_of(variant)}
    existing = None if force else reusable(target, identity, variant, tools)
    if strict:
        weights = (
            existing.manifest.weights
            if existing is not None
            else rehearse(checkpoint, identity, form, variant, lambda count: None).weights
        )
        refuse_fallback(variant, weights)
    if existing is not None:
        advance(checkpoint.parameter_count)
        return Outcome(existing, reused=True)
    check = form.check if verify else None
    verified = None
    require_space(target, least_bytes(variant, identity.parameters))
    with exclusive(target):
        made_meanwhile = None if force else reusable(target, identity, variant, tools)
        if made_meanwhile is not None:
            advance(checkpoint.parameter_count)
            return Outcome(made_meanwhile, reused=True)
        with ArtifactWriter.create(
            target, identity, variant, tools, hash_sections=check is not None
        ) as writer:
            form.write(checkpoint, identity, variant, writer, advance)
            if check is not None:
                note = check(checkpoint, writer.sections)
                verified = Verified(sum(map(len, writer.sections.values())), note)
    return Outcome(open_artifact(target), reused=False, verified=verified)


def least_bytes(variant: Variant, parameters: int) -> int:
    """What the variant's weights take at the very least: to refuse early only what cannot fit."""
    return parameters * LEAST_BITS[variant.precision] // 8


def rehearse(
    checkpoint: CheckpointFolder,
    identity: ModelIdentity,
    form: Format[Any],
    variant: Variant,
    advance: Advance,
) -> Rehearsal:
    """What `run` would write, by doing all but the writing.

    Raises:
        InputError: as `run` would.
    """
    writer = DryRunWriter()
    form.write(checkpoint, identity, variant, writer, advance)
    return Rehearsal(writer.bytes, weights_record(writer.stats, identity.parameters))


def refuse_fallback(variant: Variant, weights: dict[str, Any]) -> None:
    """Refuse a manifest's `weights` that tell of a fallback.

    Raises:
        InputError: with the fallback's size and reason.
    """
    text = fallback_text(weights)
    if text is not None:
        raise InputError(
            f"{variant.format} {variant.name}: {text}; choose another --dtype, or leave out"
            " --strict to accept that"
        )
