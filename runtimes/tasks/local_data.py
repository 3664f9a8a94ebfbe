"""A task's data from files of this machine, in place of what it would fetch.

`FOLDER/TASK/SPLIT.jsonl` has the rows of a split in the shape of the task's data set; `.json`,
`.csv` and `.parquet` are read too, and shards as the hub's repositories name them, such as
`SPLIT-00000-of-00002.parquet`.
"""

from __future__ import annotations

import glob
import re
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from edgeproof.errors import InputError

# End of a file's name → the builder of `datasets` that reads it; none of them runs what it reads.
READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
# After a split's name; older repositories have a hash there too.
SHARD = re.compile(r"-\d+-of-(\d+)(?:-[0-9a-f]+)?")


@contextmanager
def from_folder(
    index: MutableMapping[str, Any], names: Sequence[str], folder: Path, shots: int | None
) -> Iterator[frozenset[str]]:
    """Have the tasks of an index that have a folder there take their data from it meanwhile.

    A task is then what its own YAML says, through `include`, but for its data. Gives their names.

    Args:
        index: the harness's, name → entry with `yaml_path` and `cfg`.
        names: what may be loaded, members of groups too.
        folder: with a folder for each task.
        shots: examples before a question, where the task's own number is overridden.

    Raises:
        InputError: no name has a folder there, or a split that is asked has no file in it.
    """
    found = [name for name in names if _is_task(index.get(name)) and (folder / name).is_dir()]
    if not found:
        raise InputError(f"{folder}: none of its folders is called as a task that is asked")
    before = {name: index[name] for name in found}
    with tempfile.TemporaryDirectory() as made:
        try:
            for number, (name, entry) in enumerate(before.items()):
                changes = _changes(name, entry.cfg or {}, folder / name, shots)
                path = Path(made) / f"{number}.yaml"
                path.write_text(yaml.safe_dump({"include": str(entry.yaml_path), **changes}))
                index[name] = replace(entry, yaml_path=path, cfg={**(entry.cfg or {}), **changes})
            yield frozenset(found)
        finally:
            index.update(before)


def _is_task(entry: Any) -> bool:
    cfg = None if entry is None else entry.cfg
    return cfg is not None and "task" in cfg and "group" not in cfg and entry.yaml_path is not None


def _changes(name: str, cfg: Mapping[str, Any], folder: Path, shots: int | None) -> dict[str, Any]:
    """What of a task's settings its files replace."""
    if "class" in cfg:
        raise InputError(f"{name}: a task in Python, which takes its data from nowhere else")
    asked = cfg.get("test_split") or cfg.get("validation_split")
    if asked is None:
        raise InputError(f"{name}: it names no split with questions")
    files = {asked: _files(folder, asked)}
    if not files[asked]:
        raise InputError(f"{name}: its questions are the split {asked!r}: {_wanted(folder, asked)}")
    changes: dict[str, Any] = {}
    examples = _examples(cfg)
    if examples is not None and examples != asked:
        files[examples] = _files(folder, examples)
    if examples is not None and not files[examples]:
        own, config = cfg.get("num_fewshot"), cfg.get("fewshot_config")
        if (own if shots is None or own == 0 else shots) or config:
            raise InputError(
                f"{name}: the examples before its questions are the split {examples!r}:"
                f" {_wanted(folder, examples)}" + ("" if config else ", or give --shots 0")
            )
        del files[examples]
        # Whoever asks for examples after all, as a group may, gets the harness's error.
        changes = {"fewshot_split": None, "fewshot_config": {"samples": []}}
    kinds = {READERS[path.suffix] for paths in files.values() for path in paths}
    if len(kinds) > 1:
        raise InputError(f"{folder}: files of several kinds ({', '.join(sorted(kinds))}); give one")
    texts = {split: [_literal(path) for path in paths] for split, paths in files.items()}
    return {
        **changes,
        "dataset_path": kinds.pop(),
        "dataset_name": None,
        "dataset_kwargs": {"data_files": texts},
        "custom_dataset": None,
    }


def _examples(cfg: Mapping[str, Any]) -> str | None:
    """The split that a task takes its examples from; None where it has them itself."""
    config = cfg.get("fewshot_config") or {}
    if "samples" in config and "split" not in config:
        return None
    keys = ("fewshot_split", "training_split", "validation_split", "test_split")
    return config.get("split") or next((cfg[key] for key in keys if cfg.get(key)), None)


def _files(folder: Path, split: str) -> list[Path]:
    """A split's file, or its shards.

    Raises:
        InputError: files that do not belong together: rows would be asked twice.
    """
    named = {path: path.stem for path in folder.iterdir() if path.suffix in READERS}
    alone = sorted(path for path, stem in named.items() if stem == split)
    shards = {path: SHARD.fullmatch(stem.removeprefix(split)) for path, stem in named.items()}
    counts = {path: found[1] for path, found in sorted(shards.items()) if found is not None}
    if len(alone) > 1 or (alone and counts) or len(set(counts.values())) > 1:
        names = ", ".join(path.name for path in (*alone, *counts))
        raise InputError(f"{folder}: the split {split!r} is there more than once ({names})")
    return alone or list(counts)


def _literal(path: Path) -> str:
    """A file for `datasets`, which takes `[`, `*` and `?` for a pattern."""
    return glob.escape(str(path.resolve()))


def _wanted(folder: Path, split: str) -> str:
    return f"write it into {folder / split}.jsonl"
