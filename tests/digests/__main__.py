"""`python -m tests.digests`: write the record anew; `--real` also that of the real model."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from tests.digests import real, record
from tests.digests.tiny import CALLS, tiny_digests

ROOT = Path(__file__).parents[2]


@click.command()
@click.option("--real", "with_real", is_flag=True, help="Also the real model: two minutes, 4 GB.")
def main(with_real: bool) -> None:
    """Export, and record the digests of all files."""
    with tempfile.TemporaryDirectory(prefix="edgeproof-digests-") as name:
        folder = Path(name)
        if with_real:
            record.write(record.REAL, _real_groups(folder / "real"), real.LIBRARIES)
        os.environ["EDGEPROOF_CACHE"] = str(folder / "cache")
        groups = {name: tiny_digests(name, folder / name) for name in CALLS}
        record.write(record.TINY, groups, record.LIBRARIES)


def _real_groups(out: Path) -> dict[str, record.Artifacts]:
    for command in (["export", "--no-verify"], ["export.gguf", "--dtype", real.K_QUANT]):
        subprocess.run([sys.executable, "-m", *command, "--out", str(out)], cwd=ROOT, check=True)
    found = {real.K_QUANT: real.k_quant_digests(out), real.STREAMED: real.streamed_digests()}
    plan = real.plan_digests(out)
    del plan[f"gguf/{real.K_QUANT}"]
    return {real.PLAN: plan, **found}


if __name__ == "__main__":
    main()
