"""The tasks that are asked for: loaded once by the harness, asked of one model after another."""

from __future__ import annotations

import difflib
import hashlib
import logging
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.exceptions import DatasetGenerationError, DatasetsError
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from jinja2 import TemplateError
from lm_eval.api.registry import METRIC_REGISTRY
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager
from yaml import YAMLError

from edgeproof.errors import InputError
from runtimes.tasks import hub, local_data, trust
from runtimes.tasks.harness import WRITTEN, RuntimeLM

# What the harness and `datasets` raise over a task that is not sound.
BAD_TASK = (
    TypeError, KeyError, AttributeError, IndexError, AssertionError, ImportError,
    NotImplementedError, YAMLError, DatasetsError,
)  # fmt: skip
# What the harness raises over a single question; all else there is a fault of ours.
BAD_QUESTION = (TemplateError, ValueError, OverflowError)
UNREACHABLE = (OSError, HfHubHTTPError, OfflineModeIsEnabled)
# What NLTK's error over missing data advises.
OF_NLTK = re.compile(r"nltk\.download\('([\w.-]+)'\)")
# `simple_evaluate`'s own: of the examples that are put before a question, and of Python and NumPy.
FEW_SHOT_SEED = 1234


@dataclass(frozen=True)
class Asking:
    """How a task's questions are put.

    `limit` asks the first so many of each task; `shots` overrides a task's number of examples;
    with `chat` questions go through the model's chat template, examples as turns of their own
    unless `one_turn`; `most` bounds the tokens of an answer.
    """

    limit: int | None = None
    shots: int | None = None
    chat: bool = False
    one_turn: bool = False
    system: str | None = None
    most: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Facts:
    """A task's or a group's version, examples before a question, and questions that it has."""

    version: str
    shots: int
    total: int


class Questions:
    """Tasks that are loaded, those of `files` with data of files. Use `load_questions`."""

    def __init__(
        self, loaded: Mapping[str, Any], asking: Asking, files: frozenset[str] = frozenset()
    ) -> None:
        self._loaded, self.asking, self._files = loaded, asking, files
        self.tasks: Mapping[str, Any] = loaded["tasks"]
        self.groups: Mapping[str, Any] = loaded.get("groups", {})

    def members(self, name: str) -> list[str]:
        """The tasks below a group; of a task itself."""
        if name in self.tasks:
            return [name]
        return [task.task_name for task in self.groups[name].get_all_tasks()]

    def written(self, name: str) -> bool:
        """Whether answers are written in a task or in one of a group."""
        return any(self.tasks[member].OUTPUT_TYPE == WRITTEN for member in self.members(name))

    def facts(self, name: str) -> Facts:
        """Of a task or a group."""
        if name not in self.tasks:
            parts = [self.facts(member) for member in self.members(name)]
            shots = max(part.shots for part in parts)
            version = str(self.groups[name].version)
            return Facts(version, shots, sum(part.total for part in parts))
        task = self.tasks[name]
        shots = int(task.get_config("num_fewshot") or 0)
        return Facts(str(task.VERSION), shots, len(task.eval_docs))

    def settings(self, name: str) -> tuple[str, ...]:
        """How a task or a group is asked otherwise than the task says, in words."""
        asking, written = self.asking, self.written(name)
        system = hashlib.sha256((asking.system or "").encode()).hexdigest()[:8]
        said = {
            "data of files": not self._files.isdisjoint(self.members(name)),
            f"at most {asking.most} tokens": asking.most and written,
            f"system message {system}": asking.system is not None,
            "examples in one turn": asking.chat and asking.one_turn and self.facts(name).shots,
            f"seed {asking.seed}": asking.seed and written,
        }
        return tuple(text for text, so in said.items() if so)

    def ask(self, lm: RuntimeLM) -> dict[str, Any]:
        """The harness's results with every sample, of the same questions for every model.

        Raises:
            InputError: a task cannot be asked.
        """
        asking = self.asking
        for task in self.tasks.values():
            task.set_fewshot_seed(seed=FEW_SHOT_SEED)
        random.seed(asking.seed)
        np.random.seed(FEW_SHOT_SEED)
        with trust.sandboxed(), _told("the questions"):
            found: dict[str, Any] = evaluate(
                lm=lm,
                task_dict=self._loaded,
                limit=asking.limit,
                bootstrap_iters=0,
                log_samples=True,
                system_instruction=asking.system,
                apply_chat_template=asking.chat,
                fewshot_as_multiturn=asking.chat and not asking.one_turn,
            )
        return found


def load_questions(
    names: Sequence[str],
    folder: Path | None,
    asking: Asking,
    *,
    allow_code: bool,
    data: Path | None = None,
) -> Questions:
    """Load tasks of the harness, and of a folder in its format, whose come first.

    `data` has files in place of what tasks would fetch (`local_data`).

    Raises:
        InputError: an unknown task, one that would run code, one that is not sound, or data that is
            neither here nor to be had.
    """
    quiet()
    if folder is not None:
        trust.check_readable(folder)
    manager = _manager(names, folder)
    for name in names:
        if name not in manager.task_index:
            near = difflib.get_close_matches(name, manager.all_tasks, 3)
            hint = f"; near are {', '.join(near)}" if near else ""
            raise InputError(f"no task {name!r}{hint}; --tasks-from names a folder of your own")
    if not allow_code:
        trust.check_tasks(names, manager.task_index, METRIC_REGISTRY, _own_folder().resolve())
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    index, files = manager.task_index, frozenset[str]()
    reached = trust.named(names, index)
    with ExitStack() as stack:
        if data is not None:
            given = local_data.from_folder(index, reached, data, asking.shots)
            files = stack.enter_context(given)
        fetched = [_of_the_hub(index.get(name)) for name in reached]
        stack.enter_context(hub.offline_where_unreachable(any(fetched)))
        for name in names:
            with trust.sandboxed(), _told(name, fetched=True, given=data if files else None):
                for part, found in manager.load([name]).items():
                    loaded[part].update(found)
    for task in loaded["tasks"].values():
        _settle(task, asking)
    return Questions(loaded, asking, files)


def _manager(names: Sequence[str], folder: Path | None) -> Any:
    """The harness's index; without its thousands of other tasks where a few folders have all.

    Those are of the harness's what a task's name begins with, as `arc` of `arc_easy`; no two of its
    tasks have one name. What a tag names may lie anywhere.
    """
    near = [path for path in sorted(_own_folder().iterdir()) if path.is_dir()]
    near = [path for path in near if any(f"{name}_".startswith(f"{path.name}_") for name in names)]
    given = [] if folder is None else [folder]
    for paths in (given, [*near, *given]):
        few = TaskManager(include_path=[*map(str, paths)], include_defaults=False)
        entries = [few.task_index.get(name) for name in trust.named(names, few.task_index)]
        if all(item is not None and (item.cfg is not None or paths is given) for item in entries):
            return few
    return TaskManager(include_path=[*map(str, given)])


def _of_the_hub(entry: Any) -> bool:
    """Whether a task's data may have to be fetched; a group has none of its own."""
    data = None if entry is None else (entry.cfg or {}).get("dataset_path")
    return data is not None and data not in trust.DATA_FORMATS


def _own_folder() -> Path:
    """Of the harness's own tasks."""
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


def quiet() -> None:
    """Leave out what the harness and `datasets` tell of their own work; errors stay."""
    for name in ("lm_eval", "datasets", "evaluate", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()


def _settle(task: Any, asking: Asking) -> None:
    """As `simple_evaluate` does: a task that says 0 examples keeps that."""
    default = task.get_config("num_fewshot")
    if asking.shots is not None and default != 0:
        task.set_config(key="num_fewshot", value=asking.shots)
    elif default is None:
        task.set_config(key="num_fewshot", value=0)
    if asking.most is not None and task.get_config("output_type") == "generate_until":
        settings = dict(task.get_config("generation_kwargs") or {})
        for other in ("max_new_tokens", "max_tokens", "max_completion_tokens"):
            settings.pop(other, None)
        task.set_config(key="generation_kwargs", value={**settings, "max_gen_toks": asking.most})


@contextmanager
def _told(name: str, *, fetched: bool = False, given: Path | None = None) -> Iterator[None]:
    """What goes wrong inside is one line about a task, some of whose data is `given`."""
    try:
        yield
    except InputError:
        raise
    except StopIteration:  # what `datasets` raises over a file without a line
        raise InputError(f"{name}: its data has no questions; a file of it is empty") from None
    except BAD_QUESTION as error:
        raise _bad(name, error) from None
    except (*UNREACHABLE, *BAD_TASK) as error:
        if not fetched:
            raise
        if given is not None and isinstance(error, DatasetGenerationError):
            why = " ".join(str(error.__cause__ or error).split())
            raise InputError(f"{name}: its rows in {given} cannot be read ({why[:200]})") from None
        if isinstance(error, (*UNREACHABLE, DatasetsError)):
            raise _not_here(name, error) from None
        raise _bad(name, error) from None
    except LookupError as error:
        wanted = OF_NLTK.search(str(error))
        if wanted is None:
            raise
        raise InputError(
            f"{name}: how answers are read needs {wanted[1]!r} of NLTK, which is not here. Where"
            f" there is a network: python -m nltk.downloader {wanted[1]}; elsewhere bring that"
            " nltk_data, and set NLTK_DATA to it"
        ) from None


def _bad(name: str, error: Exception) -> InputError:
    why = " ".join(f"{type(error).__name__}: {error}".split())
    return InputError(f"{name}: the harness cannot ask it ({why[:300]})")


def _not_here(name: str, error: Exception) -> InputError:
    why = " ".join(f"{type(error).__name__}: {error}".split())
    return InputError(
        f"{name}: its data is not on this machine and cannot be fetched ({why[:200]}). Where there"
        " is a network, run the same command once with HF_HOME=DIR; then copy DIR here and set"
        " HF_HOME=DIR HF_HUB_OFFLINE=1"
    )
