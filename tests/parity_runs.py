"""What tests of `python -m runtimes.parity` share: a tiny model's exports, runs, what was found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from export.__main__ import main as export_main
from runtimes.parity import statistics, tokenizer
from runtimes.parity.__main__ import main as parity_main
from tests.caches import new_cache
from tests.tiny import make_checkpoint

STRINGS = tokenizer.COUNT
PLAN = """
[[variant]]
format = "onnx"
dtype = "fp32"

[[variant]]
format = "gguf"
dtype = "f16"

[[variant]]
format = "mlc"
dtype = "q4f16_1"
allow-degraded = true
"""


def invoke(command: Any, *arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


def compare(*arguments: str | Path) -> Result:
    return invoke(parity_main, *arguments, "--budget", "fast", "--no-footprint")


def export_plan(folder: Path) -> Path:
    """Export a tiny model by the plan into `out` of a folder; captures and code are kept there."""
    (folder / "plan.toml").write_text(PLAN)
    model = make_checkpoint(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", new_cache(folder))
        result = invoke(
            export_main, "--plan", folder / "plan.toml", "-m", model, "-o", folder / "out"
        )
    assert result.exit_code == 0, result.output
    return folder


def copied(exported: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the exports that a test may damage; captures and compiled code are shared.

    Tokenizers are compared on a few strings, intervals are of few resamples.
    """
    monkeypatch.setattr(tokenizer, "COUNT", 100)
    monkeypatch.setattr(statistics, "RESAMPLES", 200)
    monkeypatch.setenv("EDGEPROOF_CACHE", str(exported / "cache"))
    return Path(shutil.copytree(exported / "out", folder / "out"))


def report(out: Path) -> dict[str, Any]:
    raw = json.loads((out / "tiny" / "parity.json").read_text())
    return {f"{a['format']}/{a['variant']}": a for a in raw["artifacts"]}


def only(out: Path, *paths: str) -> None:
    """Leave only these artifacts in the run record."""
    record = json.loads((out / "run.json").read_text())
    record["models"][0]["artifacts"] = [{"path": p, "allow_degraded": False} for p in paths]
    (out / "run.json").write_text(json.dumps(record))
