"""`python -m export.recovered ROOT`: export a plan's variants of recovered checkpoints.

They go beside the plain ones. `runtimes.recover.planned`, which makes the checkpoints, runs this as
a process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import click

from edgeproof.artifact.run_record import (
    ModelRun,
    PlannedRecovery,
    PlannedVariant,
    load_run_record,
)
from edgeproof.command import EdgeproofCommand
from export.command import KEPT, export_source
from export.flags import ExportFlags
from export.plan import VariantRequest
from export.sources import Source

VERIFIED = ExportFlags(verify=True)


@click.command(cls=EdgeproofCommand, name="recovered", kept=KEPT)
@click.argument("root", type=click.Path(file_okay=False, path_type=Path))
def main(root: Path) -> None:
    """Export what ROOT/run.json plans from recovered checkpoints, where these are made."""
    record = load_run_record(root)
    models = tuple(replace(run, recovered=tuple(_exported(run, root))) for run in record.models)
    replace(record, models=models).save(root)


def _exported(run: ModelRun, root: Path) -> Iterable[PlannedRecovery]:
    for recovery in run.recovered:
        if recovery.checkpoint is None:
            yield recovery
            continue
        origin = recovery.origin
        # Named after the original: it is the same model, and its files go into one release.
        source = Source(
            Path(recovery.checkpoint), run.label, origin.name, origin.repo, origin.revision
        )
        wanted = [_request(item).resolve() for item in recovery.variants]
        strict = {
            variant
            for (_, variant), item in zip(wanted, recovery.variants, strict=True)
            if item.strict
        }
        folders = export_source(source, wanted, root, VERIFIED, strict)
        yield replace(
            recovery,
            exported=True,
            variants=tuple(
                replace(item, path=folder.relative_to(root).as_posix())
                for item, folder in zip(recovery.variants, folders, strict=True)
            ),
        )


def _request(item: PlannedVariant) -> VariantRequest:
    return VariantRequest(item.format, item.dtype, strict=item.strict, options=item.options)


if __name__ == "__main__":
    main()
