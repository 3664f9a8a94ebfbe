"""Chat templates are programs of strangers: whatever one does is one line within seconds."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeproof.errors import InputError
from edgeproof.templates import Renderer, renderer
from export.checkpoint import open_checkpoint
from export.mlc.conversation import conversation
from runtimes.formats import reader_of
from runtimes.registry import open_reference
from tests.exported import export_tiny
from tests.tiny import CHAT_TEMPLATE, make_checkpoint

HELLO = ({"role": "user", "content": "Hello 東京"},)
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HOSTILE = {
    "loops": (LOOPS, "does not end within"),
    "divides by zero": ("{{ 1 // 0 }}", "by zero"),
    "recurses": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion|ended"),
    "grows": ("{% set n = namespace(s='x') %}{% for i in range(60) %}"
              "{% set n.s = n.s ~ n.s %}{% endfor %}", "MemoryError|ended|does not end"),
    "is long": ("{{ 'x' * 9999999 }}", "a prompt of 9999999 characters"),
    "is no template": ("{% for %}", "Expected|expected"),
    "reaches out": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    "says several lines": ("{{ raise_exception('no\\nway') }}", "no$"),
}  # fmt: skip


def change_settings(folder: Path, **changes: str) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer, "SECONDS", 2.0)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_template_does_wrong_is_one_line_within_seconds(name: str) -> None:
    text, reason = HOSTILE[name]
    template = Renderer(Path("t.jinja"), text, {})
    begin = time.monotonic()
    for _ in range(2):  # it is no better the second time
        with pytest.raises(InputError, match=rf"t\.jinja: its chat.* rendered: .*({reason})") as it:
            template.render(HELLO)
        assert "\n" not in str(it.value)
    assert time.monotonic() - begin < 60


def test_a_loop_is_one_line_wherever_templates_are_rendered(tmp_path: Path) -> None:
    good = make_checkpoint(tmp_path / "good")
    bad = make_checkpoint(tmp_path / "bad")
    change_settings(bad, chat_template=LOOPS)
    with pytest.raises(InputError, match="does not end"):  # export
        conversation(open_checkpoint(bad), [2], {})
    with pytest.raises(InputError, match="does not end"):  # the reference
        open_reference(bad, 1).render_chat(HELLO)
    for form, name in (("onnx", "fp32"), ("gguf", "f32")):  # artifacts
        artifact = export_tiny(bad, form, name, tmp_path / "out")
        render = reader_of(artifact).chat_template(artifact)
        assert render is not None
        with pytest.raises(InputError, match="does not end"):
            render(HELLO)
    assert open_reference(good, 1).render_chat(HELLO)


def test_prompts_are_those_of_transformers() -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    marked = CHAT_TEMPLATE + (
        "{% set a = 1 %}{% generation %}{% set a = 2 %}{{ messages | tojson }}{% endgeneration %}"
        "{{ a }}"
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        "{{ strftime_now('%Y') }}{{ bos_token }}"
    )
    for end in (True, False):
        (expected,), _ = utils.render_jinja_template(
            [list(HELLO)], chat_template=marked, add_generation_prompt=end, bos_token="<s>"
        )
        ours = Renderer(Path("t"), marked, {"bos_token": "<s>"})
        assert ours.render(HELLO, add_generation_prompt=end) == expected


def test_the_time_is_told_only_where_it_may_be() -> None:
    text = "{{ strftime_now('%Y') }}"
    assert Renderer(Path("t"), text, {}).render(HELLO) == str(datetime.datetime.now().year)
    with pytest.raises(InputError, match="undefined"):
        Renderer(Path("t"), text, {}, clock=False).render(HELLO)


def test_one_process_renders_all_prompts_and_ends_with_its_template(tmp_path: Path) -> None:
    script = tmp_path / "many.py"
    script.write_text(
        "import gc, subprocess\n"
        "from pathlib import Path\n"
        "from edgeproof.templates import Renderer\n"
        "started = []\n"
        "class Popen(subprocess.Popen):\n"
        "    def __init__(self, *a, **o):\n"
        "        started.append(self)\n"
        "        super().__init__(*a, **o)\n"
        "subprocess.Popen = Popen\n"
        "template = Renderer(Path('t'), '{{ messages[0].content }}', {})\n"
        "assert not started\n"
        "assert [template.render([{'content': str(i)}]) for i in range(50)] == "
        "[str(i) for i in range(50)]\n"
        "assert len(started) == 1 and started[0].poll() is None\n"
        "del template\n"
        "gc.collect()\n"
        "assert started[0].poll() is not None\n"
    )
    subprocess.run([sys.executable, "-W", "error", script], check=True)
