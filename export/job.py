"""One export: checkpoint + variant → artifact folder, reused when nothing changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export import __version__
from export.artifact import (
    Artifact,
    ArtifactWriter,
    DryRunWriter,
    ModelIdentity,
    Variant,
    open_artifact,
    reusable,
)
from export.artifact.cache import cache_folder
from export.artifact.hashing import input_records
from export.checkpoint import Checkpoint
from export.format import Advance, Format
from export.sources import Source


@dataclass(frozen=True)
class Outcome:
    """What an export did."""

    artifact: Artifact
    reused: bool


def identify(source: Source, checkpoint: Checkpoint) -> ModelIdentity:
    """The identity that goes into manifests: content and origin, no folder names."""
    return ModelIdentity(
        name=source.name or derived_name(checkpoint),
        repo=source.repo,
        revision=source.revision,
        parameters=checkpoint.parameter_count,
        inputs=input_records(checkpoint.input_files, cache_folder() / "digests"),
    )


def derived_name(checkpoint: Checkpoint) -> str:
    """A name from the content, for a folder of unknown origin: family and size."""
    return f"{checkpoint.config.family}-{round(checkpoint.parameter_count / 1e6)}M"


def target_folder(root: Path, source: Source, variant: Variant) -> Path:
    """`<root>/<model>/<format>/<variant>`."""
    return root / source.label / variant.format / variant.name


def run(
    source: Source,
    checkpoint: Checkpoint,
    identity: ModelIdentity,
    form: Format,
    variant: Variant,
    root: Path,
    advance: Advance,
    *,
    force: bool = False,
) -> Outcome:
    """Write the variant's artifact below `root`, or reuse the one that is there.

    Raises:
        InputError: bad values in the checkpoint, or a target that cannot be written.
    """
    target = target_folder(root, source, variant)
    tools = {"edgeproof": __version__, **form.tools}
    existing = None if force else reusable(target, identity, variant, tools)
    if existing is not None:
        advance(checkpoint.parameter_count)
        return Outcome(existing, reused=True)
    with ArtifactWriter.create(target, identity, variant, tools) as writer:
        form.write(checkpoint, identity, variant, writer, advance)
    return Outcome(open_artifact(target), reused=False)


def rehearse(
    checkpoint: Checkpoint,
    identity: ModelIdentity,
    form: Format,
    variant: Variant,
    advance: Advance,
) -> tuple[int, float]:
    """Bytes and effective bits per weight that `run` would write, by doing all but the writing.

    Raises:
        InputError: as `run` would.
    """
    writer = DryRunWriter()
    form.write(checkpoint, identity, variant, writer, advance)
    return writer.bytes, writer.stats.effective_bpw(identity.parameters)
