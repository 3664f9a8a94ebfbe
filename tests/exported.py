"""Artifacts of a tiny checkpoint, written by the real exporters, for tests of runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeproof.artifact import Artifact
from export import job
from export.checkpoint import open_checkpoint
from export.formats import load_format
from export.sources import Source


def export_tiny(checkpoint: Path, form: str, variant: str, root: Path, **options: Any) -> Artifact:
    """Export one variant below `root`; the exporter is imported only now."""
    chosen = load_format(form)
    source = Source(path=checkpoint, label="tiny")
    opened = open_checkpoint(checkpoint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", str(root / "cache"))
        identity = job.identify(source, opened)
    recipe = chosen.variant(variant, **options)
    export = job.Job(source, opened, identity, chosen, recipe)
    return job.run(export, root, lambda count: None).artifact
