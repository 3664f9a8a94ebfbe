"""Where an audit keeps what it found: elsewhere for all that may find something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeproof.files.hashing import OutputFile
from runtimes.audit import unfinished as module
from runtimes.audit.unfinished import unfinished
from runtimes.computing import AUTOMATIC, ON_CPU
from runtimes.parity.run import EVERYTHING, Extent
from runtimes.parity.text_options import chosen_suite


def test_a_device_and_other_code_have_places_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, inputs = chosen_suite("fast", None), (OutputFile("config.json", 2, "0" * 64),)
    found = ["cpu"]
    monkeypatch.setattr(module, "chosen_device", lambda name: found[0] if name == "auto" else name)

    def place(extent: Extent = EVERYTHING) -> Path:
        return unfinished(inputs, suite, 1, extent, tmp_path)

    first = place(replace(EVERYTHING, computing=AUTOMATIC))
    assert first == place(replace(EVERYTHING, computing=ON_CPU))
    found[0] = "cuda"  # as where a GPU is hidden no longer
    assert first != place(replace(EVERYTHING, computing=AUTOMATIC))
    found[0] = "cpu"
    before = place()
    monkeypatch.setattr(module, "code_behind", lambda name: {"runtimes": "edited"})
    assert before != place()
