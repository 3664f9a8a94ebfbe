"""Exports asked by lm-evaluation-harness: its own `hf` model agrees, question by question."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from edgeproof.artifact.run_record import ModelRun, PlannedArtifact, RunRecord
from edgeproof.cli import main
from edgeproof.verdicts import EVALUATION, TaskScore, read_scores
from runtimes.tasks.harness import RuntimeLM, Style
from runtimes.tasks.kept import Kept
from runtimes.tasks.questions import Asking, Questions, load_questions
from runtimes.tasks.subject import Subject, open_reference_subject
from tests.caches import new_cache
from tests.exported import export_tiny
from tests.harness_tasks import write_tasks
from tests.tiny import make_checkpoint

pytestmark = pytest.mark.numbers

TASKS = ("capitals_all", "capitals_written", "capitals_rolled")
CONTEXT = 96  # shorter than the longest text
EXPORTS = (("onnx", "fp32"), ("gguf", "f16"), ("mlc", "q0f32"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", new_cache(folder))
        patch.setenv("EDGEPROOF_THREADS", "1")
        write_tasks(folder / "tasks", context=CONTEXT)
        yield folder


def with_begin_token(folder: Path) -> Path:
    """A tokenizer that puts its begin token before a text."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    begin = "<|im_start|>"
    text, pair = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": begin, "type_id": 0}}, text],
        "pair": [text, pair],
        "special_tokens": {begin: {"id": begin, "ids": [1], "tokens": [begin]}},
    }
    path.write_text(json.dumps(tokenizer))
    return folder


@pytest.fixture(scope="module", params=[pytest.param("plain", marks=pytest.mark.slow), "begins"])
def checkpoint(request: pytest.FixtureRequest, place: Path) -> Path:
    folder = make_checkpoint(place / request.param / "tiny", max_position_embeddings=CONTEXT)
    return with_begin_token(folder) if request.param == "begins" else folder


@pytest.fixture(scope="module")
def subject(checkpoint: Path) -> Iterator[Subject]:
    opened = open_reference_subject(checkpoint, 1)
    yield opened
    opened.runtime.close()


def questions(place: Path, **changes: Any) -> Questions:
    return load_questions(TASKS, place / "tasks", Asking(**changes), allow_code=False)


@pytest.mark.parametrize("chat", [False, True], ids=["text", "chat"])
def test_the_harness_own_model_gives_the_same_answers(
    subject: Subject, checkpoint: Path, place: Path, chat: bool
) -> None:
    from lm_eval.models import huggingface  # its import takes seconds

    theirs = huggingface.HFLM(
        pretrained=str(checkpoint), dtype="float32", device="cpu", batch_size=1
    )
    # Random: its answers are never the right ones, so what counts is that they are the same.
    asked = questions(place, chat=chat)
    expected = asked.ask(theirs)
    got = asked.ask(RuntimeLM(subject, Kept({"case": f"{checkpoint} {chat}"}), Style()))
    assert got["results"].keys() == expected["results"].keys() >= {"capitals", "capitals_all"}
    for name, samples in expected["samples"].items():
        for ours, other in zip(got["samples"][name], samples, strict=True):
            assert ours["arguments"] == other["arguments"]
            for mine, yours in zip(ours["resps"], other["resps"], strict=True):
                same(mine[0], yours[0])
    for name, values in expected["results"].items():
        for key, value in values.items():
            if isinstance(value, float):
                assert got["results"][name][key] == pytest.approx(value, rel=1e-5), (name, key)


def same(ours: Any, theirs: Any) -> None:
    """Log-likelihoods to 1e-4, all else exactly."""
    if isinstance(theirs, str):
        assert ours == theirs
    elif isinstance(theirs, float):
        assert abs(ours - theirs) < 1e-4 * max(1.0, abs(theirs) / 100)
    else:
        assert ours[1] == theirs[1]
        assert abs(ours[0] - theirs[0]) < 1e-4


def test_sharing_beginnings_changes_no_answer_and_computes_less(
    subject: Subject, place: Path
) -> None:
    found, computed = [], []
    for reuse in (True, False):
        lm = RuntimeLM(subject, Kept({"case": reuse}, fresh=True), Style(reuse=reuse))
        found.append(questions(place).ask(lm))
        computed.append((lm.beginning.asked, lm.beginning.computed))
    for name, samples in found[0]["samples"].items():
        for one, other in zip(samples, found[1]["samples"][name], strict=True):
            for mine, yours in zip(one["resps"], other["resps"], strict=True):
                same(mine[0], yours[0])
    (asked, with_reuse), (asked_too, without) = computed
    assert asked == asked_too == without
    assert with_reuse < 0.6 * without


def test_answers_written_together_are_those_written_alone(subject: Subject, place: Path) -> None:
    asked = load_questions(
        ["capitals_written"], place / "tasks", Asking(limit=6, shots=0), allow_code=False
    )
    texts = []
    for together in (1, 4):
        lm = RuntimeLM(subject, Kept({"together": together}, fresh=True), Style(together))
        rows = asked.ask(lm)["samples"]["capitals_written"]
        texts.append([row["resps"] for row in rows])
    assert texts[0] == texts[1]


def test_what_was_answered_before_an_end_is_not_asked_again(subject: Subject, place: Path) -> None:
    class End(Exception):
        pass

    class Ending(Kept):
        left = 20

        def put(self, request: Any, answer: Any) -> None:
            if not self.left:
                raise End
            self.left -= 1
            super().put(request, answer)

    asked, whose = questions(place), {"case": "ended"}
    with pytest.raises(End):
        asked.ask(RuntimeLM(subject, Ending(whose, fresh=True), Style()))
    kept = Kept(whose)
    assert len(kept) == 20
    whole = asked.ask(RuntimeLM(subject, Kept({"case": "whole"}, fresh=True), Style()))
    lm = RuntimeLM(subject, kept, Style())
    rest = asked.ask(lm)
    assert rest["results"] == whole["results"]
    again = RuntimeLM(subject, Kept(whose), Style())
    assert asked.ask(again)["results"] == whole["results"]
    assert again.beginning.asked == 0


@pytest.fixture(scope="module")
def root(place: Path) -> Path:
    folder, root = make_checkpoint(place / "tiny", max_position_embeddings=CONTEXT), place / "out"
    made = [export_tiny(folder, form, variant, root) for form, variant in EXPORTS]
    paths = (artifact.path.relative_to(root).as_posix() for artifact in made)
    planned = tuple(PlannedArtifact(path, False) for path in paths)
    RunRecord((ModelRun("tiny", str(folder), planned),), {}).save(root)
    return root


def evaluate(root: Path, *arguments: str) -> Result:
    tasks = ["--tasks-from", str(root.parent / "tasks"), "--root", str(root)]
    return CliRunner().invoke(main, ["eval", *arguments, *tasks])


def folders(root: Path) -> list[str]:
    return [str(next((root / "tiny" / form).iterdir())) for form, _ in EXPORTS]


def test_exports_of_every_format_are_scored_beside_pytorch(root: Path) -> None:
    done = evaluate(root, *folders(root), "--tasks", ",".join(TASKS), "--against")
    assert done.exit_code == 0, done.output
    scores = read_scores(root / "tiny" / EVALUATION)
    assert {score.format for score in scores} == {form for form, _ in EXPORTS}
    by_metric: dict[str, list[TaskScore]] = {}
    for score in scores:
        assert score.beside is not None
        by_metric.setdefault(f"{score.task} {score.metric}", []).append(score)
    assert {len(found) for found in by_metric.values()} == {len(EXPORTS)}
    for score in by_metric["capitals acc"]:
        assert score.beside is not None
        assert score.score.low is not None
        assert (score.samples, score.total, score.shots) == (12, 12, 0)
        assert (score.beside.lost, score.beside.gained, score.beside.p) == (0, 0, 1.0)
    for score in by_metric["capitals_rolled bits_per_byte"]:
        assert score.beside is not None
        assert score.score.value == pytest.approx(score.beside.score.value, rel=1e-2)
        assert score.beside.p is None
    for score in by_metric["capitals_all acc"]:
        assert (score.samples, score.total) == (24, 24)
        assert score.score.low is not None
    assert "capitals_written" in done.output


def test_scores_of_an_export_replace_older_ones_of_the_same_questions_alone(root: Path) -> None:
    first, *_ = folders(root)
    found = []
    for limit in ("5", "7", "7"):
        done = evaluate(root, first, "--tasks", "capitals", "--limit", limit)
        assert done.exit_code == 0
        found.append(read_scores(root / "tiny" / EVALUATION))
    assert found[1] == found[2]
    assert {*found[0]} < {*found[1]}
    assert {item.samples for item in found[1] if item.task == "capitals"} >= {5, 7}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        # It is looked for among all of the harness's tasks, which takes seconds.
        pytest.param(("--tasks", "capitols"), "near are capitals", marks=pytest.mark.slow),
        (("--tasks", "capitals", "--checkpoint", "x"), "--checkpoint is for --against"),
        (("--tasks", " ,"), "name at least one task"),
        (("--tasks", "capitals_written", "--max-tokens", "500"), "give --max-tokens"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    root: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = evaluate(root, folders(root)[0], *arguments)
    assert done.exit_code == 2, done.output
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert said in line


def test_templates_of_tasks_run_in_the_sandbox(root: Path, tmp_path: Path) -> None:
    tasks = shutil.copytree(root.parent / "tasks", tmp_path / "tasks")
    path = tasks / "capitals.yaml"
    escape = "{{ question.__class__.__mro__ }}"
    path.write_text(path.read_text().replace("Question: ", escape))
    done = CliRunner().invoke(
        main, ["eval", folders(root)[0], "--tasks", "capitals", "--tasks-from", str(tasks)]
    )
    assert done.exit_code == 2
    assert "SecurityError" in done.stderr


@pytest.mark.parametrize(
    ("changes", "data", "said"),
    [
        ({"doc_to_text": "{{ question + (1 if loud else '') }}"}, "loud", "TypeError"),
        ({"doc_to_text": "{% for i in range(10**9) %}x{% endfor %}"}, "loud", "Range too big"),
        ({}, "", "a file of it is empty"),
        (
            {"generation_kwargs": {"do_sample": True, "temperature": -1, "max_gen_toks": 2}},
            "loud",
            "temperature -1",
        ),
        ({"generation_kwargs": {"max_gen_toks": -1}}, "loud", "at most -1 tokens"),
    ],
)
def test_a_task_that_is_not_sound_is_one_line(
    root: Path, tmp_path: Path, changes: dict[str, Any], data: str, said: str
) -> None:
    lines = [{"question": "a", "answer": "b", "loud": loud} for loud in (False, True)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)) if data else "")
    task = {
        "task": "unsound",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "data.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{ question }}",
        "doc_to_target": "{{ answer }}",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean"}],
        **changes,
    }
    (tmp_path / "unsound.yaml").write_text(yaml.safe_dump(task))
    done = CliRunner().invoke(
        main, ["eval", folders(root)[0], "--tasks", "unsound", "--tasks-from", str(tmp_path)]
    )
    assert done.exit_code == 2, done.output
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert said in line


def test_a_task_without_its_data_says_how_to_get_it(root: Path, tmp_path: Path) -> None:
    tasks = shutil.copytree(root.parent / "tasks", tmp_path / "tasks")
    (tasks / "capitals.jsonl").unlink()
    path = tasks / "capitals.yaml"
    path.write_text(path.read_text().replace(str(root.parent / "tasks"), str(tasks)))
    done = CliRunner().invoke(
        main, ["eval", folders(root)[0], "--tasks", "capitals", "--tasks-from", str(tasks)]
    )
    assert done.exit_code == 2
    assert "HF_HUB_OFFLINE=1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_network_a_task_of_the_hub_is_one_line(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    tasks = shutil.copytree(root.parent / "tasks", tmp_path / "tasks")
    path = tasks / "capitals.yaml"
    settings = yaml.safe_load(path.read_text())
    del settings["dataset_kwargs"]
    path.write_text(yaml.safe_dump({**settings, "dataset_path": "nobody/capitals"}))
    arguments = ["--tasks", "capitals", "--tasks-from", str(tasks)]
    done = CliRunner().invoke(main, ["eval", folders(root)[0], *arguments])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert "nobody/capitals" in line
    assert "HF_HUB_OFFLINE=1" in line


def test_code_of_a_task_runs_only_where_it_is_allowed(root: Path, tmp_path: Path) -> None:
    tasks = shutil.copytree(root.parent / "tasks", tmp_path / "tasks")
    with (tasks / "capitals.yaml").open("a") as file:
        file.write("process_docs: !function code.first\n")
    ran = tmp_path / "ran"
    (tasks / "code.py").write_text(
        f"open({str(ran)!r}, 'w').close()\ndef first(docs):\n    return docs.select(range(3))\n"
    )
    arguments = ["eval", folders(root)[0], "--tasks", "capitals_all", "--tasks-from", str(tasks)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "--allow-task-code" in done.stderr
    assert not ran.exists()
    scores = tmp_path / "scores.json"
    done = CliRunner().invoke(main, [*arguments, "--allow-task-code", "--json", str(scores)])
    assert done.exit_code == 0, done.output
    assert ran.exists()
    assert {item.samples for item in read_scores(scores) if item.task == "capitals"} == {3}


def test_sampled_answers_are_the_same_for_the_same_seed(subject: Subject, place: Path) -> None:
    asked = load_questions(["capitals_written"], place / "tasks", Asking(limit=3), allow_code=False)
    (task,) = asked.tasks.values()
    sampling = {"do_sample": True, "temperature": 2.0, "until": ["\n"], "max_gen_toks": 9}
    task.set_config(key="generation_kwargs", value=sampling)
    found = []
    for seed in (0, 0, 1):
        lm = RuntimeLM(subject, Kept({"seed": seed}, fresh=True), Style(seed=seed))
        rows = asked.ask(lm)["samples"]["capitals_written"]
        found.append([row["resps"][0][0] for row in rows])
    assert found[0] == found[1] != found[2]
    assert np.all([isinstance(text, str) for text in found[0]])
