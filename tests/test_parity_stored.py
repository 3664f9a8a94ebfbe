"""What an artifact says and holds is compared with the checkpoint, whatever the text touches."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproof.errors import InputError
from runtimes.formats import dequantise
from runtimes.parity.localise import Cause, Finding, Subject, weigh
from runtimes.parity.localise.metadata import compare_metadata
from runtimes.parity.stored import stored_faults
from runtimes.registry import open_reference
from tests.exported import export_tiny
from tests.tiny import FAMILIES, make_checkpoint

EVERY_TYPE = {
    "onnx": ("fp32", "fp16", "q8", "q4", "q4f16", "int8", "uint8", "bnb4"),
    "gguf": ("f32", "bf16", "q8_0", "q5_0", "q4_0", "q6_k", "q4_k_m", "iq4_nl", "q2_k"),
    "mlc": ("q0f16", "q0f32", "q4f16_0", "q4f16_1", "q4f32_1", "q3f16_1"),
}


@pytest.mark.parametrize("form", EVERY_TYPE)
def test_no_clean_export_is_blamed_whatever_its_type(tmp_path: Path, form: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    original = open_reference(checkpoint, 1)
    for variant in EVERY_TYPE[form]:
        artifact = export_tiny(checkpoint, form, variant, tmp_path)
        assert compare_metadata(artifact, checkpoint) == ()
        subject = Subject(artifact, checkpoint, original, range(1, 20), 1)
        assert weigh(subject, dequantise(artifact)).findings == (), variant


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_is_blamed_for_what_its_exports_say(tmp_path: Path, family: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **FAMILIES[family])
    said = 0
    for form in EVERY_TYPE:
        try:
            artifact = export_tiny(checkpoint, form, EVERY_TYPE[form][0], tmp_path)
        except InputError:
            continue  # this format refuses the family
        said += 1
        assert compare_metadata(artifact, checkpoint) == ()
    assert said >= 2


def test_several_tokens_may_end_a_reply(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    (checkpoint / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    for form in EVERY_TYPE:
        artifact = export_tiny(checkpoint, form, EVERY_TYPE[form][0], tmp_path)
        assert compare_metadata(artifact, checkpoint) == ()


def test_one_line_says_what_is_wrong_and_how_often() -> None:
    first = Finding(Cause.WEIGHTS, "a.weight: transposed")
    assert stored_faults([]) == []
    assert stored_faults([first]) == ["weights: a.weight: transposed"]
    assert stored_faults([first, first]) == ["weights: a.weight: transposed (and 1 more)"]
