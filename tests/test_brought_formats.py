"""Formats that other packages bring: what cannot be used is one line, and ours are never replaced.

`tests/test_toy_format.py` has one that works.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeproof.artifact import ArtifactWriter, ModelIdentity, Precision, Recipe, Variant
from edgeproof.errors import InputError
from export import formats
from runtimes.formats import known_formats, reader
from tests.brought import declare, edgeproof

FORMAT, READER = "tests.test_toy_format:FORMAT", "tests.test_toy_format:READER"


def calls(folder: Path) -> dict[str, tuple[str | Path, ...]]:
    """Commands that need the toy's format, and one that needs its reader."""
    (folder / "plan.toml").write_text('[[variant]]\nformat = "toy"\ndtype = "i12"\n')
    variant = Variant("toy", "i12", Precision.EIGHT_BIT, Recipe())
    model = ModelIdentity("tiny", None, None, 1, ())
    with ArtifactWriter.create(folder / "i12", model, variant, {}):
        pass
    out = ("--out", folder / "out")
    plan = ("export", "--plan", folder / "plan.toml", "--format", "toy", *out)
    return {"command": ("toy", "-d", "i12", *out), "plan": plan, "chat": ("chat", folder / "i12")}


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ("no_such_module:{}", "fails: No module named 'no_such_module'"),
        ("tests.brought:NO_{}", "fails: module 'tests.brought' has no attribute 'NO_"),
        ("broken_toy:{}", "fails: not on a Monday"),
        ("tests.brought:Path", "is no "),
    ],
)
def test_what_cannot_be_used_is_listed_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, reason: str
) -> None:
    form, reading = point.format("FORMAT"), point.format("READER")
    site = declare(tmp_path / "site", formats=f"toy = {form}", readers=f"toy = {reading}")
    (site / "broken_toy.py").write_text("raise RuntimeError('not on a Monday')\n")
    monkeypatch.syspath_prepend(site)
    assert re.search("^  toy +Export a checkpoint", edgeproof("--help").output, re.MULTILINE)
    for name, arguments in calls(tmp_path).items():
        done = edgeproof(*arguments)
        assert (done.exit_code, done.output.count("\n")) == (2, 1), done.output
        assert reason in done.output
        assert (reading if name == "chat" else form) in done.output


def test_what_is_not_installed_is_one_line_with_what_is_known(tmp_path: Path) -> None:
    of_format = "unknown format 'toy'; choose from onnx, gguf, mlc, mlx\n"
    of_reader = "nothing here reads the format 'toy'; known: onnx, gguf, mlc, mlx\n"
    found = {name: edgeproof(*arguments) for name, arguments in calls(tmp_path).items()}
    assert {done.exit_code for done in found.values()} == {2}
    assert "No such command 'toy'" in found["command"].output
    assert found["plan"].output.endswith(of_format)
    assert found["chat"].output.endswith(of_reader)


def test_ours_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("gguf", "export", "parity", "other")
    points = {
        group: "\n".join(f"{name} = {point}" for name in names)
        for group, point in [("formats", FORMAT), ("readers", READER)]
    }
    monkeypatch.syspath_prepend(declare(tmp_path / "site", **points))
    assert formats.load_format("gguf").title == "GGUF"
    assert formats.known_formats()[:3] == known_formats()[:3] == ["onnx", "gguf", "mlc"]
    assert reader("gguf").marker == "s"
    shown = edgeproof("--help").output
    for name, summary in [("export", "Export every model"), ("parity", "Run artifacts in")]:
        assert re.search(f"^  {name} +{summary}", shown, re.MULTILINE)
    with pytest.raises(InputError, match="is the format 'toy', not 'other'"):
        formats.load_format("other")
