"""An artifact's result on its way to another machine: its folders change, and nothing else."""

from __future__ import annotations

from dataclasses import replace

from edgeproof.verdicts import Verdict
from runtimes.parity.steps.kept import KeptEntry, from_text, kept, to_text
from runtimes.parity.steps.places import ARTIFACT, CHECKPOINT
from tests.parity_results import entry, localisation, measurement, result

THERE = {"/models": CHECKPOINT, "/models/out/q4": ARTIFACT}
HERE = {CHECKPOINT: "/home/me/m", ARTIFACT: "/tmp/q4"}


def kept_with(reason: str, said: str) -> KeptEntry:
    """A result with a reason in our words, and with what models and users said."""
    item = entry(
        "q4", Verdict.FAIL, reasons=(reason,), measured=measurement(1.0, said),
        found=localisation(reason),
    )  # fmt: skip
    told = kept(result(item).reference, result(item).environment, item)
    assert told.measurement is not None
    measured = replace(
        told.measurement,
        runtime="llama.cpp",
        execution=replace(told.measurement.execution, unseen=(reason,)),
        mean_kl_by_kind={"chat": float("nan")},
    )
    return replace(told, measurement=measured)


def test_folders_are_those_of_the_machine_that_reads_it() -> None:
    there, here = (
        kept_with(f"{folder}/model.gguf: is not made of {model}/config.json", "said")
        for folder, model in (("/models/out/q4", "/models"), ("/tmp/q4", "/home/me/m"))
    )
    assert "/models" not in to_text(there, THERE)
    assert repr(from_text(to_text(there, THERE).encode(), HERE)) == repr(here)


def test_what_models_and_users_wrote_stays_as_it_is() -> None:
    said = f"<{ARTIFACT}> {CHECKPOINT} <<p>/models/out/q4</p>: rm -r /models \0"
    there = kept_with("too bad", said)
    assert repr(from_text(to_text(there, THERE).encode(), HERE)) == repr(there)


def test_a_name_in_words_of_ours_is_no_folder() -> None:
    """They quote what stands in files."""
    there = kept_with(f"its key says {ARTIFACT}, <{CHECKPOINT}, << and <b>", "said")
    assert repr(from_text(to_text(there, THERE).encode(), HERE)) == repr(there)


def test_a_folder_whose_name_is_part_of_anothers_is_another() -> None:
    others = "/models-2/a /models.bak /modelsé /data/models/b ../models x/models"
    own = "/models: (/models/c), '/models', /models. --out=/models/out/q4; /models/out/q4/d"
    there = kept_with(f"{others} {own}", "said")
    here = own.replace("/models/out/q4", "/tmp/q4").replace("/models", "/home/me/m")
    text = to_text(there, THERE)
    assert repr(from_text(text.encode(), HERE)) == repr(kept_with(f"{others} {here}", "said"))
    assert "/models:" not in text
