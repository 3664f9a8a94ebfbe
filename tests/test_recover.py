"""Recovery of tiny models: on its grids, within its size, each time the same bytes."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeproof.errors import InputError
from edgeproof.recovery import checkpoint_digest
from runtimes.recover import progress, store
from runtimes.recover import run as runs
from runtimes.recover import stages as kept_stages
from runtimes.recover.grids import GRIDS
from runtimes.recover.targets import TARGETS
from tests.recovering import (
    HELD,
    LEVELS,
    SMALL,
    digests,
    find_at_once,
    invoke,
    lighten,
    make_small,
    on_grid,
    recovered,
    values,
)
from tests.tiny import CHAT_TEMPLATE, change_json


@pytest.fixture(autouse=True)
def _found_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder needs no process that finds it, and little text tells what these tests ask.

    `found_as_users_do` is for tests that start processes themselves.
    """
    lighten(monkeypatch)
    if "found_as_users_do" not in request.fixturenames:
        find_at_once(monkeypatch)


@pytest.fixture
def found_as_users_do() -> None:
    pass


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small(tmp_path_factory.mktemp("model") / "tiny")


@pytest.mark.parametrize(
    ("options", "most"),
    [
        (("--format", "gguf", "--bits", "5.5"), 5.5),
        (("--format", "onnx", "--bits", "6.5"), 6.5),
        (("--format", "mlx", "--bits", "6.5"), 6.5),
        (("--format", "mlc"), 4.7),
        (("--format", "any"), 4.7),
    ],
    ids=lambda item: item[1] if isinstance(item, tuple) else "",
)
def test_the_result_lies_on_its_grids_within_its_size(
    tiny: Path, tmp_path: Path, options: tuple[str, ...], most: float
) -> None:
    record = recovered(tiny, tmp_path / "out", *options)
    found = values(tmp_path / "out")
    target = TARGETS[options[1]]
    assert set(record.grids.values()) <= {*target.grids}
    bits = 0.0
    for name, array in found.items():
        assert array.dtype == np.float32
        if array.ndim == 2:
            grid = record.grids[name]
            assert on_grid(array, LEVELS[grid]), name
            bits += array.size * (GRIDS[grid].bits + target.group_bits / 32)
        else:
            assert np.array_equal(array, array.astype(np.float16).astype(np.float32)), name
            bits += array.size * target.rest_bits
    assert bits / sum(array.size for array in found.values()) <= most
    assert record.original.digest == checkpoint_digest(tiny)
    if target.mixed:
        assert len(set(record.grids.values())) > 1


def test_more_bits_lose_less(tiny: Path, tmp_path: Path) -> None:
    losses = []
    for bits in ("4.8", "6", "8.6"):
        record = recovered(tiny, tmp_path / bits, "--format", "gguf", "--bits", bits)
        losses.append(record.method["held_out"]["figures"]["mean_kl"][0])
    assert losses == sorted(losses, reverse=True)
    assert losses[2] < losses[0] / 10


def test_the_same_command_gives_the_same_bytes(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--format", "gguf", "--bits", "5.5")
    recovered(tiny, tmp_path / "first", *asked)
    recovered(tiny, tmp_path / "reused", *asked)
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "other"))
    recovered(tiny, tmp_path / "again", *asked)
    replayed = tmp_path / "calibration.json"
    shutil.copyfile(tmp_path / "first" / "calibration.json", replayed)
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "third"))
    recovered(tiny, tmp_path / "replayed", *asked, "--calibration", replayed)
    for other in ("reused", "again", "replayed"):
        assert digests(tmp_path / other) == digests(tmp_path / "first"), other


def test_groups_of_layers_give_the_same_bytes(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovered(tiny, tmp_path / "together", "--format", "any")
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(kept_stages, "LEAST_GROUP_BYTES", 1)
    monkeypatch.setattr(kept_stages, "_physical_memory", lambda: 0)
    recovered(tiny, tmp_path / "one by one", "--format", "any")
    assert digests(tmp_path / "one by one") == digests(tmp_path / "together")


def test_a_gate_chooses_a_size_that_passes(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LEAST_HELD", 3 * HELD)  # less does not decide
    asked = ("--format", "gguf", "--gate", "4-bit", "--tokens", "1536")
    record = recovered(tiny, tmp_path / "out", *asked)
    figures = record.method["held_out"]["figures"]
    assert figures["acceptance"][1] >= 0.93
    assert figures["mean_kl"][2] <= 0.05
    least, most = 4.5, 8.6
    assert least < record.method["bits"] < most


def test_files_stay_below_max_mb(tiny: Path, tmp_path: Path) -> None:
    record = recovered(tiny, tmp_path / "out", "--format", "gguf", "--max-mb", "0.2")
    parameters = sum(array.size for array in values(tiny).values())
    assert record.method["bits"] * parameters / 8 < 200_000
    code, output = invoke(
        "-m", tiny, "-o", tmp_path / "small", "--format", "gguf", "--max-mb", "0.11", *SMALL
    )
    assert (code, output.count("\n")) == (2, 1)
    assert "takes at least" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format", "gguf"), "how small?"),
        (("--format", "gguf", "--bits", "5", "--max-mb", "3"), "give one of"),
        (("--format", "gguf", "--bits", "4.2"), "takes at least"),
        (("--format", "any", "--bits", "4"), "takes at least"),
        (("--format", "mlc", "--gate", "4-bit"), "one size"),
        (("--format", "any", "--calibration", "gone.txt"), "cannot be read"),
        (("--format", "any", "--calibration", "binary.txt"), "not UTF-8"),
        (("--format", "any", "--calibration", "short.txt"), "too little text"),
        (("--format", "any", "--calibration", "other.json"), "not a calibration text"),
        (("--format", "any", "--calibration", "alien.json"), "not a calibration text"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tiny: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "short.txt").write_text("No.")
    (tmp_path / "other.json").write_text("{}")
    alien = {"schema": 1, "chunks": [{"ids": [1, 100_000], "prefix": 0}]}
    (tmp_path / "alien.json").write_text(json.dumps(alien))
    given = [str(tmp_path / o) if o.endswith((".txt", ".json")) else o for o in options]
    code, output = invoke("-m", tiny, "-o", tmp_path / "out", *SMALL, *given)
    assert (code, output.count("\n")) == (2, 1), output
    assert message in output
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("found_as_users_do")
def test_models_that_cannot_be_recovered_are_refused(tmp_path: Path) -> None:
    narrow = make_small(tmp_path / "narrow", hidden_size=80, head_dim=16)
    unknown = make_small(tmp_path / "unknown")
    change_json(unknown / "config.json", model_type="mamba")
    asked = ("-o", tmp_path / "out", "--format", "any", *SMALL)
    for model, message in (
        (narrow, "no multiple of 32"),
        (unknown, "unknown architecture 'mamba'"),
        (tmp_path / "gone", "no such folder"),
    ):
        code, output = invoke("-m", model, *asked)
        assert (code, output.count("\n")) == (2, 1), output
        assert message in output


def test_a_folder_of_the_users_is_not_replaced(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("Keep.")
    code, output = invoke("-m", tiny, "--format", "any", "-o", tmp_path / "mine", *SMALL)
    assert (code, output.count("\n")) == (2, 1)
    assert "no recovered checkpoint" in output
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_a_full_disk_is_said_first(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type("usage", (), {"free": 1000})
    monkeypatch.setattr("edgeproof.files.space.shutil.disk_usage", lambda path: full)
    monkeypatch.setattr(runs, "open_decoder", None)
    code, output = invoke("-m", tiny, "--format", "any", "-o", tmp_path / "out", *SMALL)
    assert (code, output.count("\n")) == (2, 1)
    assert "MB are needed" in output


def test_a_base_model_has_documents_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "WORTH_SAYING", 0.0)
    base = make_small(tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    assert settings.pop("chat_template") == CHAT_TEMPLATE
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    code, output = invoke("-m", base, "-o", tmp_path / "out", *SMALL, "--format", "any")
    assert code == 0, output
    assert "0M parameters, 768 tokens: about " in output.splitlines()[0]
    text = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert {chunk["prefix"] for chunk in text["chunks"]} == {0}


def test_a_disk_that_becomes_full_is_said_in_the_systems_words(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"stage: cannot be written \(File too large\)"):
            store.save(tmp_path / "stage", {"values": torch.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [*tmp_path.iterdir()] == []
