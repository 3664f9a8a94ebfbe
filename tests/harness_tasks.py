"""Small tasks in the harness's format; `python -m tests.harness_tasks FOLDER` writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    """Write the tasks into a folder, with all questions."""
    write_tasks(folder.resolve(), count=len(PLACES))


if __name__ == "__main__":
    main()
