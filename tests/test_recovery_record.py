"""`recovery.json`: written, read back, refused in a line; the digest is that of content."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeproof.errors import InputError
from edgeproof.recovery import (
    RECOVERY,
    CalibrationText,
    Original,
    Recovery,
    checkpoint_digest,
    read_recovery,
)
from runtimes.recover.planned import figures
from tests.tiny import change_json

RECORD = Recovery(
    Original("Tiny", "0" * 64),
    {"model.embed_tokens.weight": "q5", "model.layers.0.mlp.up_proj.weight": "iq4_nl"},
    {"bits": 5.0},
    CalibrationText("1" * 64, 2048),
    {"edgeproof": "0.2.0"},
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    assert read_recovery(tmp_path) is None
    RECORD.save(tmp_path)
    assert read_recovery(tmp_path) == RECORD


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2, "edgeproof": "9.0"}, "written by edgeproof 9.0 (schema 2)"),
        ({"grids": {"a": "q3"}}, "unknown grid 'q3'"),
        ({"grids": None}, "(grids: an object expected, null found)"),
        ({"text": {"sha256": "1" * 64, "tokens": "many"}}, "(text.tokens: a whole number expected"),
        ({"original": {"name": "Tiny", "digest": "latest"}}, "(original.digest: a SHA-256"),
        (
            {"original": {"name": "Tiny", "digest": "0" * 64, "more": 1}},
            "(original.more is unknown)",
        ),
    ],
)
def test_a_record_that_cannot_be_used_is_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    RECORD.save(tmp_path)
    change_json(tmp_path / RECOVERY, **changes)
    with pytest.raises(InputError) as raised:
        read_recovery(tmp_path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_digest_is_that_of_content(checkpoint_folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(checkpoint_folder, elsewhere)
    (elsewhere / "README.md").write_text("A card.")
    assert checkpoint_digest(elsewhere) == checkpoint_digest(checkpoint_folder)
    settings = json.loads((elsewhere / "config.json").read_text())
    change_json(elsewhere / "config.json", rms_norm_eps=2 * settings["rms_norm_eps"])
    assert checkpoint_digest(elsewhere) != checkpoint_digest(checkpoint_folder)


@pytest.mark.parametrize(
    "method",
    [
        {},
        {"bits": "many"},
        {"bits": 5.0, "held_out": {"figures": {"mean_kl": [1], "acceptance": 1}}},
    ],
)
def test_a_kept_recovery_without_its_figures_is_damaged(
    tmp_path: Path, method: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"recovery.json: damaged; edgeproof clean --cache"):
        figures(replace(RECORD, method=method), tmp_path)
