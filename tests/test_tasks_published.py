"""The harness's own tasks, as it ships them, on rows of our own in the shape of their data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lm_eval.tasks
import numpy as np
import pytest
from click.testing import CliRunner
from datasets.data_files import resolve_pattern
from lm_eval.tasks import TaskManager

from edgeproof.cli import main
from edgeproof.errors import InputError
from edgeproof.verdicts import TaskScore, read_scores
from runtimes.tasks.answers import Outcomes, outcomes
from runtimes.tasks.harness import RuntimeLM, Style
from runtimes.tasks.kept import Kept
from runtimes.tasks.local_data import _files, from_folder
from runtimes.tasks.questions import Asking, Questions, _told, load_questions
from runtimes.tasks.subject import Subject, open_reference_subject
from tests.caches import new_cache
from tests.exported import export_tiny
from tests.harness_tasks import FOLLOWED, PUBLISHED, SUMS, write_published
from tests.tiny import make_checkpoint

CONTEXT, MOST = 512, 12
METRICS = {
    ("hellaswag", "acc", "none"), ("hellaswag", "acc_norm", "none"),
    ("arc_easy", "acc", "none"), ("arc_easy", "acc_norm", "none"),
    ("gsm8k", "exact_match", "strict-match"), ("gsm8k", "exact_match", "flexible-extract"),
    ("ifeval", "prompt_level_strict_acc", "none"), ("ifeval", "inst_level_strict_acc", "none"),
    ("ifeval", "prompt_level_loose_acc", "none"), ("ifeval", "inst_level_loose_acc", "none"),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", new_cache(folder))
        patch.setenv("EDGEPROOF_THREADS", "1")
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets")
        import nltk

        patch.setattr(nltk.data, "path", [str(folder / "data" / "nltk_data")])
        write_published(folder / "data")
        yield folder


@pytest.fixture(scope="module")
def checkpoint(place: Path) -> Path:
    return make_checkpoint(place / "tiny", max_position_embeddings=CONTEXT)


@pytest.fixture(scope="module")
def asked(place: Path) -> Questions:
    asking = Asking(most=MOST)
    return load_questions(PUBLISHED, None, asking, allow_code=False, data=place / "data")


def test_they_are_the_harness_own_but_for_their_data(asked: Questions) -> None:
    shots = {name: asked.facts(name).shots for name in PUBLISHED}
    assert shots == {"hellaswag": 0, "arc_easy": 0, "gsm8k": 5, "ifeval": 0}
    assert [asked.facts(name).version for name in PUBLISHED] == ["1.0", "1.0", "3.0", "4.0"]
    found = asked.tasks["hellaswag"].eval_docs[0]
    assert found["query"].startswith("Baking: A man")  # its own process_docs has run


@pytest.mark.slow
def test_the_harness_own_model_answers_them_alike(
    asked: Questions, checkpoint: Path, place: Path
) -> None:
    from lm_eval.models import huggingface  # its import takes seconds

    theirs = huggingface.HFLM(
        pretrained=str(checkpoint), dtype="float32", device="cpu", batch_size=1
    )
    expected = asked.ask(theirs)
    subject = open_reference_subject(checkpoint, 1)
    try:
        got = asked.ask(RuntimeLM(subject, Kept({"case": "published"}), Style()))
    finally:
        subject.runtime.close()
    for name in PUBLISHED:
        for ours, other in zip(got["samples"][name], expected["samples"][name], strict=True):
            assert ours["arguments"] == other["arguments"]
            for mine, yours in zip(ours["resps"], other["resps"], strict=True):
                if isinstance(yours[0], str):
                    assert mine == yours
                else:
                    assert mine[0][0] == pytest.approx(yours[0][0], abs=1e-4)
                    assert mine[0][1] == yours[0][1]
        assert got["results"][name] == expected["results"][name]


class Knowing(RuntimeLM):
    """A model that writes what it was told to, and finds likely what it was told to choose."""

    def __init__(self, subject: Subject, written: Mapping[str, str], chosen: set[str]) -> None:
        super().__init__(subject, Kept({}), Style())
        self._written, self._chosen = written, chosen

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return [(-1.0 if request.args[1] in self._chosen else -9.0, False) for request in requests]

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return [
            next(text for end, text in self._written.items() if end in request.args[0])
            for request in requests
        ]


def test_right_answers_are_right_by_the_harness_own_filters_and_checks(
    asked: Questions, checkpoint: Path
) -> None:
    subject = open_reference_subject(checkpoint, 1)
    written = {sum_.asked_last: sum_.reply for sum_ in SUMS}
    written |= {order.prompt: order.reply for order in FOLLOWED}
    chosen = {" beats the eggs with sugar.", " ice"}
    try:
        results = asked.ask(Knowing(subject, written, chosen))
    finally:
        subject.runtime.close()
    found: dict[tuple[str, str, str], Outcomes] = {
        (name, item.metric, item.filter): item
        for name in PUBLISHED
        for item in outcomes(name, asked.tasks[name], results)
    }
    assert found.keys() == METRICS
    values = {key: item.values for key, item in found.items()}
    assert_right(values["hellaswag", "acc", "none"], [1, 0])
    assert_right(values["arc_easy", "acc", "none"], [0, 1, 0])
    # "#### 18", "18 eggs" without the mark, "#### 19"
    assert_right(values["gsm8k", "exact_match", "strict-match"], [1, 0, 0])
    assert_right(values["gsm8k", "exact_match", "flexible-extract"], [1, 1, 0])
    assert found["gsm8k", "exact_match", "flexible-extract"].answers == ("18", "12", "19")
    assert_right(values["ifeval", "prompt_level_strict_acc", "none"], [o.strict for o in FOLLOWED])
    assert_right(values["ifeval", "prompt_level_loose_acc", "none"], [o.loose for o in FOLLOWED])
    by_instruction = found["ifeval", "inst_level_strict_acc", "none"]
    parts = [part for order in FOLLOWED for part in order.parts]
    assert by_instruction.value == pytest.approx(np.mean(parts))
    assert by_instruction.values is None  # of instructions, not of questions


def assert_right(values: np.ndarray | None, expected: list[Any]) -> None:
    assert values is not None
    assert values.tolist() == [float(item) for item in expected]


def test_the_command_of_the_issue_runs_with_files_of_this_machine(
    place: Path, checkpoint: Path
) -> None:
    made = export_tiny(checkpoint, "gguf", "f16", place / "out")
    scores = place / "scores.json"
    done = CliRunner().invoke(
        main,
        [
            "eval", str(made.path), "--tasks", ",".join(PUBLISHED), "--data", str(place / "data"),
            "--against", "--checkpoint", str(checkpoint), "--max-tokens", str(MOST),
            "--limit", "2", "--json", str(scores), "--root", str(place / "out"),
        ],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found: tuple[TaskScore, ...] = read_scores(scores)
    assert {(item.task, item.metric, item.filter) for item in found} == METRICS
    for item in found:
        assert item.beside is not None
        assert item.samples == 2
        written = (f"at most {MOST} tokens",) if item.task in ("gsm8k", "ifeval") else ()
        assert item.settings == ("data of files", *written)
        assert (item.beside.p is None) == item.metric.startswith("inst_level")
        assert (item.score.low is None) == item.metric.startswith("inst_level")


@pytest.mark.parametrize(
    ("task", "gone", "said"),
    [
        ("gsm8k", "gsm8k/train.jsonl", "or give --shots 0"),
        ("arc_easy", "arc_easy/test.jsonl", "test.jsonl"),
        ("arc_challenge", None, "none of its folders is called as a task that is asked"),
    ],
)
def test_rows_that_are_missing_are_one_line(
    place: Path, tmp_path: Path, task: str, gone: str | None, said: str
) -> None:
    data = write_published(tmp_path / "data")
    if gone:
        (data / gone).unlink()
    with pytest.raises(InputError) as caught, from_folder(index(), [task], data, None):
        pass
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("place")  # whose folder has the cache of `datasets`
def test_rows_that_cannot_be_read_are_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "arc_easy").mkdir()
    (tmp_path / "arc_easy" / "test.jsonl").write_text('{"a":\n')
    with pytest.raises(InputError, match=r"arc_easy: its rows in .* cannot be read") as caught:
        load_questions(["arc_easy"], None, Asking(), allow_code=False, data=tmp_path)
    assert "\n" not in str(caught.value)


def test_rows_are_those_of_the_split_alone_wherever_they_lie(tmp_path: Path) -> None:
    """Other files beside it are another split's, and a name is no pattern."""
    data = write_published(tmp_path / "data[1]*")
    kept = data / "arc_easy" / "test.jsonl"
    for name in ("test-old.jsonl", "test-clean-00000-of-00001.jsonl", "testing.jsonl"):
        (kept.parent / name).write_bytes(kept.read_bytes())
    with from_folder(entries := index(), ["arc_easy"], data, None):
        files = entries["arc_easy"].cfg["dataset_kwargs"]["data_files"]["test"]
    assert [resolve_pattern(pattern, "") for pattern in files] == [[str(kept.resolve())]]


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["test-00000-of-00002-0a1b.jsonl", "test-00001-of-00002-2c3d.jsonl"], 2),
        (["test.jsonl", "test.json"], None),
        (["test.jsonl", "test-00000-of-00001.jsonl"], None),
        (["test-00000-of-00001.jsonl", "test-00000-of-00002.jsonl"], None),
    ],
)
def test_rows_are_not_asked_twice(tmp_path: Path, names: list[str], taken: int | None) -> None:
    folder = tmp_path / "arc_easy"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}\n")
    if taken:
        assert [path.name for path in _files(folder, "test")] == names
        return
    with pytest.raises(InputError, match="the split 'test' is there more than once") as caught:
        _files(folder, "test")
    assert all(name in str(caught.value) for name in names)


def index() -> dict[str, Any]:
    """Of the harness's folders that these tasks lie in, without its thousands of others."""
    found: dict[str, Any] = {}
    for name in ("arc", "gsm8k"):
        folder = Path(lm_eval.tasks.__file__).parent / name
        found |= TaskManager(include_path=str(folder), include_defaults=False).task_index
    return found


def test_without_examples_of_its_own_a_task_shows_none(place: Path, tmp_path: Path) -> None:
    data = write_published(tmp_path / "data")
    (data / "gsm8k" / "train.jsonl").unlink()
    entries = index()
    before = dict(entries)
    with from_folder(entries, ["gsm8k", "ai2_arc", "arc_easy"], data, 0) as found:
        assert found == {"gsm8k", "arc_easy"}
        assert entries["gsm8k"] != before["gsm8k"]
        assert entries["arc_easy"].cfg["dataset_path"] == "json"
    assert entries == before


def test_checks_that_lack_the_data_of_nltk_are_one_line() -> None:
    import nltk

    with pytest.raises(InputError) as caught, _told("the questions"):
        nltk.data.find("tokenizers/nobodys_model")
    assert "python -m nltk.downloader nobodys_model" in str(caught.value)
    assert "\n" not in str(caught.value)
