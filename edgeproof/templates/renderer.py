"""Render a chat template in a child process: sandboxed, within seconds and with bounded memory.

Invariant: whatever a template does (loops, recursion, giant strings, a division by zero) ends in
an answer or an `InputError` of one line, and leaves no process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any

from edgeproof.errors import InputError

Message = Mapping[str, str]

WORKER = Path(__file__).with_name("worker.py")
SECONDS = 5.0  # for one prompt, which takes milliseconds
START_SECONDS = 120.0  # for Python and Jinja on a busy machine


class RefusalError(InputError):
    """A conversation that a template refuses by itself, by `raise_exception`."""

    def __init__(self, source: Path, reason: str) -> None:
        super().__init__(f"{source}: its chat template cannot be rendered: {reason}")
        self.reason = reason


class Renderer:
    """One template as a function. The process starts with the first prompt and then stays.

    Args:
        source: what errors name, such as the file.
        text: the template, in Jinja.
        special: the tokenizer's tokens by name, such as bos_token.
        clock: whether the template may ask for the time (`strftime_now`).
    """

    def __init__(
        self, source: Path, text: str, special: Mapping[str, str], *, clock: bool = True
    ) -> None:
        self.source = source
        self._program = {"text": text, "special": dict(special), "clock": clock}
        self._worker: _Worker | None = None

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The prompt for a reply to these messages.

        Raises:
            RefusalError: the template refuses these messages by itself.
            InputError: the template fails, does not end, or needs too much memory.
        """
        conversation = [dict(message) for message in messages]
        try:
            if self._worker is None:
                self._worker = _Worker(self._program)
            answer = self._worker.ask(
                {"messages": conversation, "add_generation_prompt": add_generation_prompt}
            )
        except _Failure as failure:
            self._worker = None
            raise InputError(
                f"{self.source}: its chat template cannot be rendered: {failure}"
            ) from None
        if "refused" in answer:
            raise RefusalError(self.source, answer["refused"])
        return str(answer["text"])


class _Failure(Exception):
    """Why there is no prompt."""


class _Worker:
    """A running worker.py."""

    def __init__(self, program: Mapping[str, Any]) -> None:
        process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, encoding="utf-8",
        )  # fmt: skip
        self.end = weakref.finalize(self, _end, process)
        assert process.stdin is not None
        assert process.stdout is not None
        self._input = process.stdin
        self._answers: SimpleQueue[str] = SimpleQueue()
        Thread(target=_read, args=(process.stdout, self._answers), daemon=True).start()
        self._answer(START_SECONDS)
        self._send(program)

    def ask(self, conversation: Mapping[str, Any]) -> dict[str, Any]:
        """The answer, `text` or `refused`; after a failure the process is gone."""
        self._send(conversation)
        return self._answer(SECONDS)

    def _send(self, request: Mapping[str, Any]) -> None:
        try:
            self._input.write(json.dumps(request) + "\n")
            self._input.flush()
        except OSError:  # it ended; why is among its answers
            pass

    def _answer(self, seconds: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=seconds)
        except Empty:
            self.end()
            raise _Failure(f"it does not end within {seconds:.0f} seconds") from None
        answer = _parsed(line)
        if "error" in answer:
            self.end()
            raise _Failure(answer["error"])
        return answer


def _parsed(line: str) -> dict[str, Any]:
    """What the process says; a line that it could not finish is none."""
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError:
        return {"error": "its process was ended"}
    return answer


def _read(stdout: IO[str], answers: SimpleQueue[str]) -> None:
    """Every line; an empty one at the end."""
    for line in stdout:
        answers.put(line)
    answers.put("")


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
