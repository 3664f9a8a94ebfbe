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
from edgeproof.families import family_name
from edgeproof.files.cache import cache_folder
from edgeproof.files.hashing import input_records
from edgeproof.files.lock import exclusive
from edgeproof.files.space import require_space
from export.checkpoint import CheckpointFolder
from export.flags import ExportFlags
from export.format import Advance, Exporter
from export.sources import Source

DEFAULTS = ExportFlags()
# Per weight, without scales and without what is kept wider.
LEAST_BITS = {
    Precision.FP32: 32,
    Precision.FP16: 16,
    Precision.BF16: 16,
    Precision.EIGHT_BIT: 8,
    Precision.LOW_BIT: 2,
}


@dataclass(frozen=True)
class Job:
    """What is exported, under which identity, and as what."""

    source: Source
    checkpoint: CheckpointFolder
    identity: ModelIdentity
    form: Exporter[Any]
    variant: Variant[Any]

    def folder(self, root: Path) -> Path:
        """`<root>/<model>/<format>/<folder>`: the variant's name, if the format has no other."""
        name = self.form.folder(self.identity.name, self.variant)
        return root / self.source.label / self.form.name / name

    @property
    def tools(self) -> dict[str, str]:
        """Versions that the bytes depend on.

        Raises:
            InputError: such a library is not installed.
        """
        return {"edgeproof": __version__, **self.form.tools_of(self.variant)}

    def write(self, writer: ArtifactWriter | DryRunWriter, advance: Advance) -> None:
        """Have the format write the variant.

        Raises:
            InputError: bad values in the checkpoint.
        """
        self.form.write(self.checkpoint, self.identity, self.variant, writer, advance)


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
        inputs=input_records(checkpoint.input_files, cache_folder() / "digests", checkpoint.path),
    )


def derived_name(checkpoint: CheckpointFolder) -> str:
    """A name from the content, for a folder of unknown origin: family and size."""
    return f"{family_name(checkpoint.raw_config)}-{round(checkpoint.parameter_count / 1e6)}M"


def run(job: Job, root: Path, advance: Advance, flags: ExportFlags = DEFAULTS) -> Outcome:
    """Write the job's artifact below `root`, or reuse the one that is there.

    Raises:
        InputError: bad values in the checkpoint, a target that cannot be written, tensors in
            another type than the variant asks for (`flags.strict`), or files that are not what was
            written (`flags.verify`).
    """
    identity, variant = job.identity, job.variant
    target, tools = job.folder(root), job.tools
    existing = None if flags.force else reusable(target, identity, variant, tools)
    if flags.strict:
        weights = (
            existing.manifest.weights
            if existing is not None
            else rehearse(job, lambda count: None).weights
        )
        refuse_fallback(variant, weights)
    if existing is not None:
        advance(job.checkpoint.parameter_count)
        return Outcome(existing, reused=True)
    job.checkpoint.check_tokenizer()
    check = job.form.check if flags.verify else None
    verified = None
    require_space(target, least_bytes(variant, identity.parameters))
    with exclusive(target):
        made_meanwhile = None if flags.force else reusable(target, identity, variant, tools)
        if made_meanwhile is not None:
            advance(job.checkpoint.parameter_count)
            return Outcome(made_meanwhile, reused=True)
        with ArtifactWriter.create(
            target, identity, variant, tools, hash_sections=check is not None
        ) as writer:
            job.write(writer, advance)
            if check is not None:
                note = check.run(job.checkpoint, writer.sections)
                verified = Verified(sum(map(len, writer.sections.values())), note)
    return Outcome(open_artifact(target), reused=False, verified=verified)


def least_bytes(variant: Variant[Any], parameters: int) -> int:
    """What the variant's weights take at the very least: to refuse early only what cannot fit."""
    return parameters * LEAST_BITS[variant.precision] // 8


def rehearse(job: Job, advance: Advance) -> Rehearsal:
    """What `run` would write, by doing all but the writing.

    Raises:
        InputError: as `run` would.
    """
    writer = DryRunWriter()
    job.write(writer, advance)
    return Rehearsal(writer.bytes, weights_record(writer.stats, job.identity.parameters))


def refuse_fallback(variant: Variant[Any], weights: dict[str, Any]) -> None:
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
