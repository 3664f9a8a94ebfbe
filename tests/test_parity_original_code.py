"""What PyTorch said of a text is kept for one code of what asks it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runtimes.parity import long_range, reference, samples
from runtimes.parity.long_range import probe_file
from runtimes.parity.original_code import PARTS
from runtimes.parity.reference import capture_files
from runtimes.parity.samples import sample_files
from runtimes.parity.text_options import chosen_suite

ROOT = Path(__file__).parent.parent


def test_all_that_is_named_is_there() -> None:
    named = [ROOT / package / name for package, names in PARTS.items() for name in names]
    assert [path for path in named if not path.exists()] == []


def test_what_is_kept_depends_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime: Any = SimpleNamespace(version="1", stop_tokens=frozenset({2}))
    suite = chosen_suite("fast", None)

    def kept() -> set[Path]:
        (drawn,) = sample_files(runtime, (), [(1, 2)], 3)
        first, *_ = capture_files(runtime, suite, ())
        return {first, drawn, probe_file(runtime, (1, 2, 3), 1, ())}

    before = kept()
    for module in (reference, samples, long_range):
        monkeypatch.setattr(module, "original_code", lambda: "edited")
    assert len(before | kept()) == 6
