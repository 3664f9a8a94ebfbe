"""Small tasks in the harness's format, and data for some that it ships, all invented here.

`python -m tests.harness_tasks FOLDER` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from edgeproof.command import EdgeproofCommand

PLACES = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Egypt": "Cairo",
    "Peru": "Lima", "Norway": "Oslo", "Kenya": "Nairobi", "Cuba": "Havana", "Poland": "Warsaw",
    "Greece": "Athens", "Iran": "Tehran", "Chile": "Santiago", "Austria": "Vienna",
    "Portugal": "Lisbon", "Hungary": "Budapest", "Ireland": "Dublin", "Finland": "Helsinki",
    "Sweden": "Stockholm", "Denmark": "Copenhagen", "Russia": "Moscow", "Vietnam": "Hanoi",
    "Thailand": "Bangkok", "Turkey": "Ankara",
}  # fmt: skip
WORDS = ["one", "model", "counted", "numbers", "and", "then", "a", "tiny", "test", "of", "Paris"]


def write_tasks(folder: Path, count: int = 12, context: int = 256) -> Path:
    """The tasks `capitals`, `capitals_written`, `capitals_rolled` and the group `capitals_all`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(PLACES)
    rows = [
        {
            "question": f"The capital of {name} is",
            "choices": [PLACES[names[(index + step) % len(names)]] for step in (0, 5, 9, 14)],
            "capital": PLACES[name],
            "label": 0,
        }
        for index, name in enumerate(names)
    ]
    data = _data(folder, "capitals", rows[:count])
    examples = _data(folder, "examples", rows[-3:])
    _task(
        folder, "capitals", data,
        output_type="multiple_choice", doc_to_text="Question: {{question}}",
        doc_to_choice="{{choices}}", doc_to_target="label",
        metric_list=[_metric("acc"), _metric("acc_norm")],
    )  # fmt: skip
    _task(
        folder, "capitals_written", {**data, "train": examples["test"]},
        output_type="generate_until", fewshot_split="train", num_fewshot=2,
        doc_to_text="{{question}}", doc_to_target="{{capital}}",
        generation_kwargs={"until": ["\n", "."], "max_gen_toks": 9, "do_sample": False},
        filter_list=[{"name": "stripped", "filter": [{"function": "remove_whitespace"},
                                                     {"function": "take_first"}]}],
        metric_list=[_metric("exact_match")],
    )  # fmt: skip
    texts = [" ".join(WORDS[(i * k) % len(WORDS)] for i in range(8 + k * 40)) for k in (1, 2, 5)]
    rolled = _data(folder, "rolled", [{"text": text} for text in [*texts, "a" * 3 * context]])
    _task(
        folder, "capitals_rolled", rolled,
        output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
        metric_list=[{"metric": name} for name in ("word_perplexity", "bits_per_byte")],
    )  # fmt: skip
    group = {
        "group": "capitals_all",
        "task": ["capitals", "capitals_twice"],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    }
    _task(
        folder, "capitals_twice", data,
        output_type="multiple_choice", doc_to_text="{{question}} ", doc_to_choice="{{choices}}",
        doc_to_target="label", target_delimiter="", metric_list=[_metric("acc")],
    )  # fmt: skip
    (folder / "capitals_all.yaml").write_text(yaml.safe_dump(group))
    return folder


# Tasks of the harness itself that `write_published` has data for.
PUBLISHED = ("hellaswag", "arc_easy", "gsm8k", "ifeval")


@dataclass(frozen=True)
class Sum:
    """A question of `gsm8k`, its answer in the data, and a reply that the filters are to read."""

    question: str
    answer: str
    reply: str

    @property
    def asked_last(self) -> str:
        """What a prompt ends with that asks it."""
        return f"Question: {self.question}\nAnswer:"


SUMS = (
    Sum("A hen lays 3 eggs a day. How many are that in 6 days?", "3 * 6 = 18\n#### 18",
        " Three each day.\n#### 18"),
    Sum("Ana has 5 pens and buys 7 more. How many has she?", "5 + 7 = 12\n#### 12",
        " She has 12 pens"),
    Sum("Of 40 seats 20 are taken. How many are free?", "40 - 20 = 20\n#### 20",
        " It is 19.\n#### 19"),
)  # fmt: skip


@dataclass(frozen=True)
class Order:
    """A prompt of `ifeval` with its instructions, and a reply: which of them it follows.

    `strict` and `loose`: the whole prompt by the harness's two readings of a reply.
    """

    prompt: str
    instructions: tuple[tuple[str, Mapping[str, Any]], ...]
    reply: str
    parts: tuple[bool, ...]
    strict: bool
    loose: bool


FOLLOWED = (
    Order("Say hello without commas, in lower case.",
          (("punctuation:no_comma", {}), ("change_case:english_lowercase", {})),
          "hello to all of you and thank you for the very good day that we had together",
          (True, True), True, True),
    Order("Name two cities, at least three sentences.",
          (("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}),),
          "Paris is one. Rome is one.", (False,), False, False),
    Order("Write JSON.", (("detectable_format:json_format", {}),),
          "Here it is:\n{\"a\": 1}", (False,), False, True),
    Order("Use the word river twice, end with The end.",
          (("keywords:frequency", {"keyword": "river", "frequency": 2, "relation": "at least"}),
           ("startend:end_checker", {"end_phrase": "The end."})),
          "A river meets a river. It goes on.", (True, False), False, False),
)  # fmt: skip


def write_published(folder: Path) -> Path:
    """Rows for the harness's own hellaswag, arc_easy, gsm8k and ifeval, as `--data` takes them.

    Also `nltk_data`, in which NLTK finds a sentence model that knows no abbreviation: ifeval counts
    sentences with it.
    """
    endings = ["beats the eggs with sugar.", "flies a kite.", "sings to [title] a fish.",
               "reads the eggs a letter."]  # fmt: skip
    shared = {"activity_label": "Baking", "ctx_a": "A man stands in a kitchen.", "endings": endings,
              "split": "val", "split_type": "indomain", "source_id": "invented"}  # fmt: skip
    _rows(folder / "hellaswag" / "validation.jsonl", [
        {**shared, "ind": 1, "ctx_b": "he", "ctx": "A man stands in a kitchen. he", "label": "0"},
        {**shared, "ind": 2, "ctx_b": "a dog", "ctx": "A man stands in a kitchen. a dog",
         "label": "3"},
    ])  # fmt: skip
    things = {"text": ["wood", "ice", "stone", "glass"], "label": ["A", "B", "C", "D"]}
    digits = {"text": ["wood", "ice", "stone"], "label": ["1", "2", "3"]}
    _rows(folder / "arc_easy" / "test.jsonl", [
        {"id": "a", "question": "Which of these burns?", "choices": things, "answerKey": "A"},
        {"id": "b", "question": "Which of these melts in a hand?", "choices": digits,
         "answerKey": "2"},
        {"id": "c", "question": "Which of these does a mason use?", "choices": things,
         "answerKey": "C"},
    ])  # fmt: skip
    sums = [{"question": item.question, "answer": item.answer} for item in SUMS]
    _rows(folder / "gsm8k" / "test.jsonl", sums)
    _rows(folder / "gsm8k" / "train.jsonl", [
        {"question": f"What is {n} and {n + 1}?",
         "answer": f"{n} + {n + 1} = <<{n}+{n + 1}={2 * n + 1}>>{2 * n + 1}\n#### {2 * n + 1}"}
        for n in range(1, 8)
    ])  # fmt: skip
    _rows(folder / "ifeval" / "train.jsonl", [
        {"key": number, "prompt": order.prompt,
         "instruction_id_list": [name for name, _ in order.instructions],
         "kwargs": [dict(settings) for _, settings in order.instructions]}
        for number, order in enumerate(FOLLOWED)
    ])  # fmt: skip
    model = folder / "nltk_data" / "tokenizers" / "punkt_tab" / "english"
    model.mkdir(parents=True)
    for name in ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"):
        (model / name).write_text("")
    return folder


def _rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _metric(name: str) -> dict[str, Any]:
    return {"metric": name, "aggregation": "mean", "higher_is_better": True}


def _data(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"test": str(path)}


def _task(folder: Path, name: str, data: Mapping[str, str], **settings: Any) -> None:
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": dict(data), "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "metadata": {"version": 1},
        **settings,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))


@click.command(cls=EdgeproofCommand, name="harness_tasks")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Write the tasks into a folder, with all questions; into its `data` that for `--data`."""
    write_tasks(folder.resolve(), count=len(PLACES))
    write_published(folder.resolve() / "data")


if __name__ == "__main__":
    main()
