"""Answers that a model has given already: a run that was interrupted goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from edgeproof.files.atomic import storage_errors
from edgeproof.files.cache import cache_folder, usable

FOLDER = "answers"


class Kept:
    """A file of the cache, a line for each request; `whose` is all that the answers depend on.

    A line that was cut short by the end of a process is not read.
    """

    def __init__(self, whose: Mapping[str, Any], *, fresh: bool = False) -> None:
        name = f"{_digest(whose)}.jsonl"
        found = cache_folder() / FOLDER / name
        self._path = found if found.is_file() else usable(found)
        self._answers: dict[str, Any] = {}
        if fresh:
            self._path.unlink(missing_ok=True)
        self._read()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, request: Any) -> Any:
        """The answer to a request, which is JSON; None where there is none yet."""
        return self._answers.get(_digest(request))

    def put(self, request: Any, answer: Any) -> None:
        """Keep an answer, which is JSON and not null.

        Raises:
            InputError: the disk is full.
        """
        key = _digest(request)
        self._answers[key] = answer
        with storage_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, answer]) + "\n")

    def _read(self) -> None:
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except OSError:
            return
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                key, answer = json.loads(line)
                self._answers[key] = answer
        if lines and not lines[-1].endswith(b"\n"):
            with contextlib.suppress(OSError), self._path.open("a") as file:
                file.write("\n")


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
