"""Render one chat template, in a process that does nothing else: `python worker.py`.

Reads JSON lines: first `text`, `special` and `clock`, then `messages` and `add_generation_prompt`
of a conversation each; answers each with a line, `text`, `refused` or `error`. It ends at its
first error; a conversation that the template refuses by itself is none.

Source of the settings: transformers `utils/chat_template_utils.py`, which llama.cpp and
transformers.js share. It imports nothing of this project: its caller bounds its time, and here
its memory is bounded.
"""

from __future__ import annotations

import datetime
import json
import sys
from types import TracebackType
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 1 << 28  # bytes of address space
LONGEST = 1 << 22  # characters of a prompt: what no context holds


class Generation(Extension):
    """`{% generation %}`: marks what the model said, for training. Its content is shown."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """The block's statements, in a scope of their own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Refusal(TemplateError):
    """What a template says by `raise_exception`."""


def main() -> None:
    """Answer until the input ends."""
    sys.excepthook = _tell
    _limit_memory()
    _answer({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        if "special" in request:
            special = request["special"]
            template = _environment(request["clock"]).from_string(request["text"])
            continue
        try:
            text = template.render(
                messages=request["messages"],
                add_generation_prompt=request["add_generation_prompt"],
                tools=None,
                documents=None,
                **special,
            )
        except Refusal as refusal:
            _answer({"refused": _line(refusal)})
            continue
        if len(text) > LONGEST:
            raise TemplateError(f"a prompt of {len(text)} characters")
        _answer({"text": text})


def _answer(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _environment(clock: bool) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    if clock:
        environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


def _raise_exception(message: str) -> None:
    raise Refusal(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _limit_memory() -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _tell(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    """Whatever a template raises, in a line."""
    _answer({"error": _line(error)})


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


if __name__ == "__main__":
    main()
