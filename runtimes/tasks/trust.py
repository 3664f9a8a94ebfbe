"""Tasks of a folder that anybody may have written: data only, unless its code is allowed.

Three things in a task's YAML would run Python: `!function`, which imports the module beside it; a
metric that the harness does not have, which `evaluate.load` takes from a file or from the hub; and
a data set of pickled objects, or with a program of its own. So metrics, data and YAML tags are
taken that are known to be none of these. Jinja templates run in a sandbox, whoever wrote the task.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jinja2 import TemplateError, TemplateRuntimeError
from jinja2.sandbox import SandboxedEnvironment

from edgeproof.errors import InputError

SHOWN = 80  # characters
ALLOW = "--allow-task-code"
FUNCTION = "!function"
INCLUDE, METRIC, EVALUATE, DATA = "include", "metric", "hf_evaluate", "dataset_path"
REMOTE_CODE = "trust_remote_code"
# Builders of `datasets` that read a format of data alone; others unpickle, or ask a database.
DATA_FORMATS = ("arrow", "csv", "json", "parquet", "text")
# Of which `datasets` takes the builder by its files' suffixes, and those never unpickle.
HUB_DATA = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(?<!\.py)")
STANDARD = "tag:yaml.org,2002:"
# Without `value` (`=`), by which a mapping is a text: what keys and names are is seen at once.
PLAIN_TAGS = frozenset(
    STANDARD + name
    for name in (
        "binary", "bool", "float", "int", "map", "merge", "null", "omap", "pairs", "seq", "set",
        "str", "timestamp",
    )
)  # fmt: skip
MERGE = STANDARD + "merge"
NO = ("", "false", "no", "null", "off", "~")
MEMBERS = ("task", "group")  # keys that name further tasks


def check_tasks(
    names: Iterable[str], index: Mapping[str, Any], metrics: Iterable[str], own: Path
) -> None:
    """Refuse tasks whose files, or files that these include, would run code.

    Args:
        names: what is asked for, all in the index.
        index: the harness's own, name → entry with `yaml_path`, `cfg` and `tags`.
        metrics: names of the harness's metrics.
        own: the folder of the harness's tasks, which are as trusted as the harness itself.

    Raises:
        InputError: one would; the message names file, line and option.
    """
    known = frozenset(metrics)
    for name in named(names, index):
        path = index[name].yaml_path if name in index else None
        if path is not None:
            _check_file(Path(path), known, own, set())


def check_readable(folder: Path) -> None:
    """Refuse a folder with a YAML file that cannot be read, which the harness would pass over.

    Raises:
        InputError: there is one, or no task at all.
    """
    paths = sorted(folder.rglob("*.yaml"))
    if not paths:
        raise InputError(f"{folder}: no task there: none of its files is called *.yaml")
    for path in paths:
        _parsed(path)


def named(names: Iterable[str], index: Mapping[str, Any]) -> list[str]:
    """These, and all that groups and tags among them name, also what is not in the index.

    Of a task or a group `tags` are those that it has; of a tag, its tasks.
    """
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = None
        if name in index:
            entry = index[name]
            waiting += entry.tags or () if entry.cfg is None else _members(entry.cfg)
    return list(found)


class _Sandbox(SandboxedEnvironment):
    """One in which whatever a template raises is an error of that template."""

    def handle_exception(self, source: str | None = None) -> NoReturn:
        """Raise what is being handled, with the template's lines in its traceback."""
        try:
            super().handle_exception(source)
        except TemplateError:
            raise
        except Exception as error:
            raise TemplateRuntimeError(f"{type(error).__name__}: {error}") from error


@contextlib.contextmanager
def sandboxed() -> Iterator[None]:
    """Have the harness render the templates of tasks in Jinja's sandbox meanwhile."""
    from lm_eval import utils

    plain = utils.env
    safe = _Sandbox(undefined=plain.undefined, keep_trailing_newline=True)
    safe.filters.update(plain.filters)
    utils.env = safe
    try:
        yield
    finally:
        utils.env = plain


def _members(value: Any) -> Iterator[str]:
    """Every text below the keys that may name a task."""
    if isinstance(value, Mapping):
        for key in MEMBERS:
            yield from _members(value.get(key))
    elif isinstance(value, list):
        for item in value:
            yield from _members(item)
    elif isinstance(value, str):
        yield value


def _check_file(path: Path, metrics: frozenset[str], own: Path, seen: set[Path]) -> None:
    path = path.expanduser().resolve()
    if path in seen or path.is_relative_to(own):
        return
    seen.add(path)
    root = _parsed(path)
    for node in _nodes(root):
        line = f"{path}:{node.start_mark.line + 1}"
        if node.tag == FUNCTION:
            raise InputError(
                f"{line}: {FUNCTION} runs Python of the task's folder; read it, then give {ALLOW}"
            )
        if isinstance(node, yaml.MappingNode):
            _check_pairs(line, [*_pairs(node)], metrics)
    if isinstance(root, yaml.MappingNode):
        for key, value in _pairs(root):
            if key == INCLUDE:
                for item in _texts(value):
                    _check_file(path.parent / item, metrics, own, seen)


def _check_pairs(
    line: str, pairs: Sequence[tuple[str, yaml.Node]], metrics: frozenset[str]
) -> None:
    def said_of(key: str) -> list[str]:
        return [text for name, value in pairs if name == key for text in _texts(value)]

    by_evaluate = any(name == EVALUATE for name, _ in pairs)
    for metric in said_of(METRIC):
        if metric not in metrics or by_evaluate:
            raise InputError(
                f"{line}: the metric {metric!r} is none of the harness's own: loading it would run"
                f" code of a file or of the hub; give {ALLOW} if you trust it"
            )
    for data in said_of(DATA):
        if data not in DATA_FORMATS and not HUB_DATA.fullmatch(data):
            raise InputError(
                f"{line}: {DATA} {data!r} may unpickle or run what is in its files: it is none of"
                f" {', '.join(DATA_FORMATS)}, and no org/name of the hub; give one of these, or"
                f" {ALLOW} if you trust it"
            )
    for said in said_of(REMOTE_CODE):
        if said.lower() not in NO:
            raise InputError(
                f"{line}: {REMOTE_CODE} runs a program of the data set; leave it out, or give"
                f" {ALLOW} if you trust it"
            )


def _parsed(path: Path) -> yaml.Node | None:
    """The file's YAML.

    Raises:
        InputError: it cannot be read, or has tags that would make objects of Python.
    """
    try:
        root = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; a task includes it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{path}: not YAML ({why[:200]})") from None
    for node in _nodes(root):
        if node.tag not in PLAIN_TAGS and node.tag != FUNCTION:
            tag = node.tag.replace(STANDARD, "!!")[:SHOWN]
            raise InputError(
                f"{path}:{node.start_mark.line + 1}: the tag {tag} is refused: a task is plain"
                f" YAML, and {FUNCTION} where {ALLOW} is given"
            )
    return root


def _nodes(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Every node once: anchors may repeat one."""
    waiting, seen = [root] if root is not None else [], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _pairs(root: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node]]:
    """All that a mapping has by text keys, also what `<<` merges into it; no one is overridden."""
    waiting: list[yaml.Node] = [root]
    seen = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, yaml.MappingNode):
            continue
        seen.add(id(node))
        for key, value in node.value:
            if key.tag == MERGE:
                waiting += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif isinstance(key, yaml.ScalarNode):
                yield key.value, value


def _texts(node: yaml.Node | None) -> Iterator[str]:
    if isinstance(node, yaml.ScalarNode):
        yield node.value
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _texts(item)
