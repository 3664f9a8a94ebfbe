"""What a string given as --model means."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgeproof.errors import InputError
from export.sources import Source, resolve
from tests import tiny

ROOT = Path(__file__).parents[1]


def test_a_folder_is_its_own_checkpoint_and_lends_its_name_to_the_label_only(
    tmp_path: Path,
) -> None:
    folder = tiny.make_checkpoint(tmp_path / "my model")
    assert resolve(str(folder)) == Source(folder, label="my model")


def test_the_current_folder_has_its_real_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.make_checkpoint(tmp_path / "here"))
    assert resolve(".").label == "here"


@pytest.mark.parametrize("recorded", ["HuggingFaceTB/SmolLM-360M-Instruct", "/data/run/3", 7])
def test_what_a_model_was_made_from_is_not_its_name(tmp_path: Path, recorded: object) -> None:
    folder = tiny.make_checkpoint(tmp_path / "tuned", _name_or_path=recorded)
    assert resolve(str(folder)) == Source(folder, label="tuned")


@pytest.mark.parametrize(
    ("place", "label"),
    [
        ("run-a/checkpoint-500", "run-a-checkpoint-500"),
        ("run-b/checkpoint-500", "run-b-checkpoint-500"),
        (f"models--some-org--Tiny-1M/snapshots/{'0a' * 20}", "Tiny-1M"),
    ],
)
def test_a_folder_that_every_run_has_is_told_apart_by_the_run(
    tmp_path: Path, place: str, label: str
) -> None:
    (tmp_path / place).mkdir(parents=True)
    assert resolve(str(tmp_path / place)).label == label


@pytest.mark.parametrize("text", ["", "[1]", "{", "\xff"])
def test_a_damaged_config_is_left_to_whoever_opens_the_folder(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, "latin-1")
    assert resolve(str(tmp_path)).name is None


def test_a_local_folder_wins_over_a_hub_id_of_the_same_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.make_checkpoint(tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    assert resolve("org/name").path == Path("org/name")


@pytest.mark.parametrize(
    "model",
    ["", "nothing-here", "a/b/c", "./org/name", "/no/such/folder", "x" * 5000, "a\0b", "~zz/x"],
)
def test_a_string_that_is_nothing_names_what_it_could_be(model: str) -> None:
    with pytest.raises(InputError, match=r"no such folder or \.gguf file.*'bundled'") as caught:
        resolve(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["org/model.gguf", "model.gguf"])
def test_a_missing_gguf_file_is_not_looked_for_on_the_hub(model: str) -> None:
    with pytest.raises(InputError, match=f"{re.escape(model)}.*no such"):
        resolve(model)


def test_a_file_that_is_no_gguf_points_at_its_folder(tmp_path: Path) -> None:
    folder = tiny.make_checkpoint(tmp_path / "model")
    with pytest.raises(InputError, match=r"expected a checkpoint folder or a \.gguf file"):
        resolve(str(folder / "model.safetensors"))


def test_a_revision_is_refused_where_there_are_none(tmp_path: Path) -> None:
    for model in ("bundled", str(tmp_path)):
        with pytest.raises(InputError, match=r"--revision v0\.1 applies to hub ids"):
            resolve(model, "v0.1")


def test_importing_sources_and_resolving_a_folder_loads_no_heavy_library(tmp_path: Path) -> None:
    folder = tiny.make_checkpoint(tmp_path / "model")
    code = f"""
import sys
from export.sources import resolve
resolve({str(folder)!r})
heavy = {{"numpy", "gguf", "tokenizers", "huggingface_hub", "torch", "transformers"}}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=dict(os.environ))


def test_the_cache_moves_with_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeproof.files.cache import cache_folder

    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("EDGEPROOF_CACHE", "")
    assert cache_folder().name == "edgeproof"
