"""What is computed, kept and shown of tasks, without the harness that asks them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproof.errors import InputError
from edgeproof.verdicts import (
    EVALUATION,
    REPORT,
    Beside,
    Score,
    TaskScore,
    Verdict,
    read_report,
    read_scores,
    write_scores,
)
from edgeproof.verdicts.task_table import TITLES, cells
from runtimes.parity import environment
from runtimes.parity.decoding import NotFinite
from runtimes.parity.report.html import page
from runtimes.parity.report.outputs import write_reports
from runtimes.parity.report.tasks import mean_kls, tasks_section, update_page
from runtimes.tasks.answers import Outcomes
from runtimes.tasks.beginning import Beginning
from runtimes.tasks.generation import Wish, greedy, write
from runtimes.tasks.kept import Kept
from runtimes.tasks.scoring import Continuation, score
from runtimes.tasks.statistics import beside, mcnemar, paired_difference, score_of
from runtimes.tasks.trust import check_readable, check_tasks, named
from tests.parity_results import entry, measurement, result

HOSTILE = "<script>&|`*"


def outcomes(values: Any, answers: Any = None, questions: str = "q") -> Outcomes:
    numbers = np.array(values, np.float64)
    given = None if answers is None else tuple(answers)
    value = float(numbers.mean())
    return Outcomes("acc", "none", value, numbers, given, questions, len(numbers), True)


def test_flips_are_counted_where_accuracy_stays() -> None:
    found = outcomes([1, 0, 1, 0, 1, 1], [0, 1, 2, 0, 0, 0])
    theirs = outcomes([1, 1, 0, 0, 1, 1], [0, 2, 1, 3, 0, 0])
    got = beside(found, theirs, "PyTorch")
    assert (got.lost, got.gained, got.changed) == (1, 1, 3)
    assert (got.difference.value, got.p) == (0.0, 1.0)


def test_other_questions_are_not_paired() -> None:
    with pytest.raises(ValueError, match="same questions"):
        beside(outcomes([1, 0]), outcomes([1, 0], questions="others"), "PyTorch")


def test_mcnemar_is_the_binomial_of_what_tells_them_apart() -> None:
    # Two-sided, of 10 discordant questions that are shared 1 : 9: 2 · (1 + 10) / 2^10
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(22 / 1024)
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1.0


def test_the_paired_interval_holds_the_difference_as_often_as_it_says() -> None:
    rng, count, runs = np.random.default_rng(0), 60, 2000
    chances = [0.05, 0.12, 0.5, 0.33]  # lost, gained, both right, both wrong
    drawn = rng.multinomial(count, chances, runs)
    intervals = [paired_difference(int(lost), int(gained), count) for lost, gained, *_ in drawn]
    held = [found.low <= 0.07 <= found.high for found in intervals if found.low is not None]
    assert 0.94 <= np.mean(held) <= 0.98


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_a_paired_difference_lies_in_its_interval(lost: int, gained: int, more: int) -> None:
    count = max(1, lost + gained + more)
    found = paired_difference(lost, gained, count)
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= found.value <= found.high <= 1


def test_intervals_are_exact_of_shares_and_none_of_perplexities() -> None:
    none_wrong = score_of(outcomes([1] * 60))
    assert (none_wrong.low, none_wrong.high) == (pytest.approx(0.05 ** (1 / 60)), 1.0)
    lengths = score_of(outcomes([2.0, 4.0, 6.0]))
    assert lengths.low == pytest.approx(4 - 4.302653 * 2 / 3**0.5, rel=1e-6)
    perplexity = Outcomes("word_perplexity", "none", 9.0, None, None, "q", 3, False)
    assert score_of(perplexity) == Score(9.0, None, None)


class Recorded:
    """A runtime of seven tokens whose logits follow from the token and its position."""

    name, version, device, context = "recorded", "1", "cpu", 12

    def __init__(self) -> None:
        self.length = 0
        self.computed = 0

    def rows(self, ids: tuple[int, ...]) -> np.ndarray:
        return np.array(
            [np.sin(np.arange(7) * (token + 1) + place) for place, token in enumerate(ids)],
            np.float32,
        )

    def logit_blocks(self, ids: tuple[int, ...], first: int = 0, kept: int = 0) -> Any:
        assert kept in (0, self.length)
        self.length = len(ids)
        self.computed += len(ids) - kept
        rows = self.rows(ids)[first:]
        yield from (rows[begin : begin + 2] for begin in range(0, len(rows), 2))

    def start(self, ids: tuple[int, ...], kept: int = 0) -> Any:
        raise NotImplementedError

    def rewind(self, length: int) -> int:
        self.length = min(length, self.length)
        return self.length

    def tokenize(self, text: str) -> Any:
        raise NotImplementedError

    logits = step = close = tokenize


CHOICES = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2), min_size=1, max_size=14),
        st.lists(st.integers(0, 6), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=6,
)


@given(CHOICES, st.booleans())
def test_scores_are_the_sums_over_the_targets_whatever_is_shared(
    pairs: list[tuple[list[int], list[int]]], reuse: bool
) -> None:
    runtime: Any = Recorded()
    items = [Continuation(tuple(context), tuple(target)) for context, target in pairs]
    beginning = Beginning(runtime, reuse=reuse)
    found = dict(score(runtime, beginning, items))
    assert found.keys() == set(range(len(items)))
    for index, item in enumerate(items):
        read = (item.context + item.target)[-13:-1]
        rows = runtime.rows(read)[-len(item.target) :].astype(np.float64)
        likely = rows - np.log(np.exp(rows).sum(-1, keepdims=True))
        expected = likely[np.arange(len(rows)), list(item.target)].sum()
        assert found[index].loglikelihood == pytest.approx(expected, rel=1e-5)
        assert found[index].greedy == (rows.argmax(-1) == item.target).all()
    assert beginning.computed == runtime.computed <= beginning.asked


def test_a_target_beyond_the_context_is_refused() -> None:
    runtime: Any = Recorded()
    with pytest.raises(InputError, match="made for 12"):
        list(score(runtime, Beginning(runtime), [Continuation((1,), (1,) * 13)]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_without_a_likeliest_token_is_not_scored(
    value: float,
) -> None:
    """NumPy calls the first NaN the largest, so that broken exports would have right answers."""
    runtime: Any = Recorded()
    rows = Recorded().rows
    runtime.rows = lambda ids: np.where(rows(ids) > 0.9, np.float32(value), rows(ids))
    with pytest.raises(NotFinite):
        list(score(runtime, Beginning(runtime), [Continuation((1, 2), (1, 2, 3))]))
    runtime.tokenize, runtime.stop_tokens = (lambda text: []), ()
    runtime.start = lambda ids, kept=0: np.array([0, value], np.float32)
    with pytest.raises(NotFinite):
        write(runtime, Beginning(runtime), Wish((1,), (), 3, greedy))


def test_kept_answers_outlive_an_end_in_the_middle_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROOF_CACHE", str(tmp_path))
    kept = Kept({"model": 1})
    kept.put(["a", "ä\n"], [-1.5, True])
    kept.put(["b"], "text")
    (path,) = tmp_path.rglob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    again = Kept({"model": 1})
    assert again.get(["a", "ä\n"]) == [-1.5, True]
    assert again.get(["b"]) is None
    again.put(["b"], "other")
    assert Kept({"model": 1}).get(["b"]) == "other"
    assert Kept({"model": 2}).get(["b"]) is None
    assert len(Kept({"model": 1}, fresh=True)) == len(Kept({"model": 1})) == 0


@pytest.mark.parametrize("changed", ["code", "tokenizers", "threads", "seed", "runtime"])
def test_answers_are_kept_under_all_that_makes_them(
    changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="it comes with edgeproof[eval]")
    from runtimes.tasks import run
    from runtimes.tasks.harness import Style

    def key() -> dict[str, Any]:
        subject: Any = SimpleNamespace(ran=ran, whose={"artifact": "ab"})
        return run.whose(subject, run.How(threads, Style(seed=seed)))

    ran, threads, seed = "llama.cpp 1 (CPU)", 1, 0
    before = key()
    assert key() == before
    ran = "llama.cpp 2 (CPU)" if changed == "runtime" else ran
    threads += changed == "threads"
    seed += changed == "seed"
    if changed == "code":
        monkeypatch.setattr(run, "code_behind", lambda name: {"runtimes": "edited"})
    if changed == "tokenizers":
        monkeypatch.setattr(environment, "version", lambda name: f"{name} 9")
    assert key() != before


TRUSTED = ("acc", "exact_match")
CODE = {
    "process_docs: !function utils.process": "!function runs Python",
    "fewshot_config: {samples: !function 'utils.list'}": "!function runs Python",
    "include: other.yaml": "!function runs Python",
    "<<: {include: other.yaml}": "!function runs Python",
    "<<: [{x: 1}, {<<: {include: other.yaml}}]": "!function runs Python",
    "? !!str {=: include}\n: other.yaml": "the tag !!value is refused",
    "metric_list: [{metric: ./mine.py}]": "none of the harness's own",
    "metric_list: [{metric: acc, hf_evaluate: true}]": "none of the harness's own",
    "metric_list: [{<<: {metric: acc}, hf_evaluate: true}]": "none of the harness's own",
    "metric_list: [{metric: ./mine.py, <<: {metric: acc}}]": "none of the harness's own",
    "dataset_path: pandas": "unpickle",
    "dataset_path: ./loader.py": "unpickle",
    "dataset_path: nobody/loader.py": "unpickle",
    "dataset_path: unheard_of": "no org/name of the hub",
    "dataset_path: ../../data": "no org/name of the hub",
    "dataset_kwargs: {trust_remote_code: true}": "runs a program of the data set",
}


@pytest.mark.parametrize("line", CODE)
def test_a_task_that_would_run_code_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mine.yaml"
    (tmp_path / "other.yaml").write_text("x:\n- !function a.b\n")
    path.write_text(f"task: mine\n{line}\n")
    task = SimpleNamespace(yaml_path=path, cfg={"task": "mine"}, tags=set())
    group = SimpleNamespace(
        yaml_path=None, cfg={"group": "all", "task": ["else", {"group": "in", "task": ["mine"]}]},
        tags=set(),
    )  # fmt: skip
    tag = SimpleNamespace(yaml_path=None, cfg=None, tags={"mine"})
    index = {"mine": task, "all": group, "tag": tag}
    for name in index:
        with pytest.raises(InputError, match=r"\.yaml:[12]: ") as caught:
            check_tasks([name], index, TRUSTED, tmp_path / "harness")
        assert CODE[line] in str(caught.value)
        assert "--allow-task-code" in str(caught.value)
    check_tasks(["mine"], index, TRUSTED, tmp_path)  # the harness's own


def test_a_tag_names_its_tasks_but_a_task_not_the_others_of_its_tag() -> None:
    index = {
        "mine": SimpleNamespace(cfg={"task": "mine"}, tags={"all"}),
        "other": SimpleNamespace(cfg={"task": "other"}, tags={"all"}),
        "all": SimpleNamespace(cfg=None, tags={"mine", "other"}),
        "both": SimpleNamespace(cfg={"group": "both", "task": ["all"]}, tags=set()),
    }
    assert named(["mine"], index) == ["mine"]
    assert sorted(named(["all"], index)) == ["all", "mine", "other"]
    assert sorted(named(["both"], index)) == ["all", "both", "mine", "other"]


def test_tasks_of_data_alone_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("task: mine\ndataset_path: json\nmetric_list: [{metric: acc}]\ninclude: b.yaml")
    (tmp_path / "b.yaml").write_text("include: mine.yaml\noutput_type: multiple_choice\n")
    index = {"mine": SimpleNamespace(yaml_path=path, cfg={}, tags=None)}
    check_tasks(["mine"], index, TRUSTED, tmp_path / "harness")
    check_readable(tmp_path)
    for data in ("org/name-1.0", "csv"):
        (tmp_path / "b.yaml").write_text(f"dataset_path: {data}\ntrust_remote_code: false\n")
        check_tasks(["mine"], index, TRUSTED, tmp_path / "harness")
    (tmp_path / "b.yaml").unlink()
    with pytest.raises(InputError, match="includes it"):
        check_tasks(["mine"], index, TRUSTED, tmp_path / "harness")


@pytest.mark.parametrize("content", [b"a: [", b"\xff", b"[" * 5000])
def test_a_folder_with_an_unreadable_task_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="no task there"):
        check_readable(tmp_path)
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.yaml: not YAML"):
        check_readable(tmp_path)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/name:os.x", "!mine"])
def test_a_tag_that_makes_an_object_is_refused_with_its_line(tmp_path: Path, tag: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"task: x\nversion: 1.0\ndescription: {tag} [echo]\n")
    with pytest.raises(InputError, match=rf"x\.yaml:3: the tag {tag} is refused"):
        check_readable(tmp_path)
    path.write_text("task: x\nprocess_docs: !function utils.process\n")
    check_readable(tmp_path)  # whether it may run is asked of those that are wanted


def task_score(manifest: str, **changes: Any) -> TaskScore:
    facts = Beside("pytorch 2 (cpu)", Score(0.5, 0.3, 0.7), Score(-0.05, -0.2, 0.1), 2, 1, 1.0, 4)
    made: dict[str, Any] = {
        "format": "gguf", "variant": "q8_0", "manifest": manifest, "runtime": "llama.cpp 1 (CPU)",
        "harness": "0.4.13", "task": HOSTILE, "version": "1.0", "metric": "acc", "filter": "none",
        "higher_is_better": True, "shots": 0, "chat": False, "questions": "ab", "samples": 20,
        "total": 40, "score": Score(0.45, 0.25, 0.65), "beside": facts,
    }  # fmt: skip
    return TaskScore(**{**made, **changes})


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / EVALUATION
    assert read_scores(path) == ()
    found = task_score("a"), task_score("b", beside=None, score=Score(3.0, None, None))
    write_scores(path, [task_score("a", samples=3), found[1], found[0]])
    assert read_scores(path) == found
    path.write_text(path.read_text().replace('"samples": 20', '"samples": "x"'))
    with pytest.raises(InputError, match="damaged"):
        read_scores(path)


def test_a_few_questions_replace_no_score_of_all(tmp_path: Path) -> None:
    path = tmp_path / EVALUATION
    whole, few = task_score("a", questions="ab"), task_score("a", questions="cd", samples=5)
    write_scores(path, [whole])
    write_scores(path, [*read_scores(path), few])
    assert read_scores(path) == (whole, few)


def test_a_row_has_a_cell_for_each_title() -> None:
    row = dict(zip(TITLES, cells(task_score("a"), 0.02), strict=True))
    assert row["score"] == "0.45 [0.25, 0.65]"
    assert row["difference"] == "-0.05 [-0.2, +0.1]"
    assert row["task"] == f"{HOSTILE}: 20 of 40 questions, 0-shot"
    assert (row["answers changed"], row["mean KL"]) == ("4", "0.020")
    alone = cells(task_score("a", beside=None), None)
    assert len(alone) == len(TITLES)


def test_the_page_shows_scores_of_its_exports_only_and_is_brought_up_to_date(
    tmp_path: Path,
) -> None:
    compared = result(entry("q8_0", Verdict.PASS, measured=measurement()))
    mine = compared.entries[0].artifact.sha256
    assert 'id="tasks"' not in page(compared, scores=[task_score("another")])
    target = tmp_path / REPORT
    first, written = write_reports(compared, target, with_page=True)
    write_scores(tmp_path / EVALUATION, [task_score(mine)])
    before = written.read_text()
    section = tasks_section(read_scores(tmp_path / EVALUATION), mean_kls(read_report(first)))
    assert update_page(written, section)
    after = written.read_text()
    assert after.count('id="tasks"') == 1
    assert "acc: 20 of 40 questions, 0-shot" in after  # over its exports' rows
    assert '0.45 <span class="soft">[0.25, 0.65]</span>' in after
    assert "<script" not in after
    write_reports(compared, target, with_page=True)
    assert written.read_text() == after
    assert update_page(written, tasks_section((), {}))
    assert written.read_text() == before
    (tmp_path / EVALUATION).write_text("{")  # a run's page is not lost over it
    write_reports(compared, target, with_page=True)
    assert written.read_text() == before
    assert not update_page(tmp_path / "gone.html", section)
