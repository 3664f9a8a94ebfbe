"""`edgeproof compare A B`: the better export is named, ties are not, bad input exits 2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from export.__main__ import main as export_main
from runtimes.parity.compare import main as compare_main
from tests.caches import new_cache
from tests.tiny import make_checkpoint

PLAN = """
[[variant]]
format = "gguf"
dtype = ["f16", "q4_0"]
"""


def invoke(command: Any, *arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("compare")
    (folder / "plan.toml").write_text(PLAN)
    model = make_checkpoint(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", new_cache(folder))
        out = folder / "out"
        result = invoke(export_main, "--plan", folder / "plan.toml", "-m", model, "-o", out)
        assert result.exit_code == 0, result.output
        yield out


@pytest.fixture(autouse=True)
def _cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What PyTorch says of the text is asked once, not by each test in a cache of its own."""
    monkeypatch.setenv("EDGEPROOF_CACHE", str(root.parent / "cache"))


def test_the_better_export_is_named_whichever_comes_first(root: Path, tmp_path: Path) -> None:
    good, poor = root / "tiny" / "gguf" / "f16", root / "tiny" / "gguf" / "q4_0"
    for first, second, better in ((good, poor, "A"), (poor, good, "B")):
        path = tmp_path / "figures.json"
        result = invoke(
            compare_main, first, second, "--root", root, "--budget", "fast", "--json", path
        )
        assert result.exit_code == 0, result.output
        assert f"{better} (gguf f16)" in " ".join(result.output.split())
        rows = {row["metric"]: row for row in json.loads(path.read_text())["rows"]}
        low, high = rows["mean_kl"]["difference"]["low"], rows["mean_kl"]["difference"]["high"]
        assert (low > 0) if better == "A" else (high < 0)


def test_an_export_equals_itself(root: Path) -> None:
    path = root / "tiny" / "gguf" / "f16"
    result = invoke(compare_main, path, path, "--root", root, "--budget", "fast")
    assert result.exit_code == 0, result.output
    assert "better" in result.output
    assert "(gguf f16)" not in result.output


def test_an_artifact_that_no_run_names_needs_its_checkpoint(root: Path, tmp_path: Path) -> None:
    path = root / "tiny" / "gguf" / "f16"
    (tmp_path / "own.jsonl").write_text('{"text": "Only one short text."}\n')
    unknown = invoke(compare_main, path, path, "--root", tmp_path)
    assert unknown.exit_code == 2
    given = invoke(
        compare_main,
        path,
        path,
        "--root",
        tmp_path,
        "--checkpoint",
        root.parent / "tiny",
        "--text",
        tmp_path / "own.jsonl",
    )
    assert given.exit_code == 0, given.output


def test_one_document_decides_nothing(root: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"text": "Only one short text."}\n')
    figures = tmp_path / "figures.json"
    result = invoke(
        compare_main,
        root / "tiny" / "gguf" / "f16",
        root / "tiny" / "gguf" / "q4_0",
        *("--root", root, "--text", tmp_path / "own.jsonl", "--json", figures),
    )
    assert result.exit_code == 0, result.output
    assert "(gguf" not in result.output
    (row,) = (r for r in json.loads(figures.read_text())["rows"] if r["metric"] == "mean_kl")
    assert row["difference"]["value"] > 0
    assert row["difference"]["low"] is None
