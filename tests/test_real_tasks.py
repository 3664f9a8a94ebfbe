"""`make verify`: the real model's exports in tasks; the harness's own `hf` model agrees."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeproof.artifact import open_artifact
from edgeproof.artifact.run_record import load_run_record
from edgeproof.cli import main
from edgeproof.verdicts import EVALUATION, read_scores
from runtimes.tasks.questions import Asking, load_questions
from tests.harness_tasks import write_tasks

pytestmark = pytest.mark.slow

EXPORTS = {("onnx", "q8"), ("gguf", "q8_0"), ("mlc", "q0f16")}
TASKS = ("capitals", "capitals_written")
LIMIT = 4


def test_exports_are_scored_and_pytorch_is_the_harness_own_model(
    real_artifacts: Path, tmp_path: Path
) -> None:
    from lm_eval.models import huggingface  # its import takes seconds

    tasks = write_tasks(tmp_path / "tasks")
    (model,) = load_run_record(real_artifacts).models
    opened = [open_artifact(real_artifacts / item.path) for item in model.everything]
    variants = ((item.manifest.variant, item) for item in opened)
    chosen = [item for variant, item in variants if (variant.format, variant.name) in EXPORTS]
    done = CliRunner().invoke(
        main,
        [
            "eval", *(str(item.path) for item in chosen), "--tasks", ",".join(TASKS), "--fresh",
            "--tasks-from", str(tasks), "--limit", str(LIMIT), "--against", "--chat",
            "--root", str(real_artifacts),
        ],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    scores = read_scores(real_artifacts / model.label / EVALUATION)
    assert {(item.format, item.variant) for item in scores} == EXPORTS
    theirs = huggingface.HFLM(
        pretrained=model.checkpoint, dtype="float32", device="cpu", batch_size=1
    )
    asked = load_questions(TASKS, tasks, Asking(limit=LIMIT, chat=True), allow_code=False)
    expected = asked.ask(theirs)["results"]
    for item in scores:
        assert item.beside is not None
        value = expected[item.task][f"{item.metric},{item.filter}"]
        assert item.beside.score.value == pytest.approx(value, abs=1e-12), item.task
        assert item.beside.changed is not None
        if item.task == "capitals":  # these pass their gates
            assert item.beside.changed <= 1
