"""What a plan's `recover` may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproof.errors import InputError
from edgeproof.goal import Goal, parse_goal
from export.plan import load_plan
from tests.test_recovered_plan import run

VARIANT = '[[variant]]\nformat = "gguf"\ndtype = "auto"\nrecover = '


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VARIANT + "5.0", "must be a table"),
        (VARIANT + "{ bit = 5.0 }", "unknown key 'bit' in recover; known: bits"),
        (VARIANT + "{ bits = 5.0, max-mb = 90 }", "recover has bits and max-mb; give one"),
        (VARIANT + "{ tokens = 4096 }", "how small"),
        (VARIANT + "{ bits = 0 }", "bits must be a number from 4.5 to 16, not 0"),
        (VARIANT + "{ bits = nan }", "not nan"),
        (VARIANT + "{ bits = true }", "not True"),
        (VARIANT + '{ bits = "5" }', "not '5'"),
        (VARIANT + "{ max-mb = -1 }", "max-mb must be a number from 0.1, not -1"),
        (VARIANT + "{ max-mb = inf }", "not inf"),
        (VARIANT + '{ gate = "8-bit" }', "gate must be 4-bit"),
        (VARIANT + '{ gate = "4-bit", format = "any" }', "any has one size"),
        (VARIANT + '{ bits = 5.0, format = "onnx" }', "format must be 'gguf' or 'any'"),
        (VARIANT + "{ bits = 5.0, optional = 1 }", "optional must be true or false, not 1"),
        ('recover-up-to = "400"\n' + VARIANT + "{ bits = 5.0 }", "such as \"400M\", not '400'"),
        ("recover-up-to = true\n" + VARIANT + "{ bits = 5.0 }", "not True"),
        ("recover-up-to = -1\n" + VARIANT + "{ bits = 5.0 }", "not -1"),
        ('recover-up-to = "0B"\n' + VARIANT + "{ bits = 5.0 }", "not '0B'"),
        (VARIANT + "{ bits = 5.0, tokens = 0 }", "tokens must be a whole number from 512"),
        (VARIANT.replace("auto", "q4_0") + "{ bits = 5.0 }", "no recovered 'q4_0'; .*auto"),
        (VARIANT.replace("gguf", "onnx") + "{ bits = 6.0 }", "no recovered 'auto'; .*q4, q4f16"),
        (VARIANT.replace("gguf", "mlc") + '{ gate = "4-bit" }', "mlc has one size"),
        (VARIANT + "{ bits = 5.0 }\npure = true", "recovery.json gives each tensor its type"),
        (VARIANT + "{ bits = 5 }\n" + VARIANT + "{ bits = 6 }", "in the plan twice"),
    ],
)
def test_a_wrong_wish_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_plan(tmp_path / "plan.toml")
    assert "\n" not in str(caught.value)


def test_a_plan_of_recovered_variants_alone_is_nothing_without_them(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(VARIANT + "{ bits = 5.0 }")
    done = run("export", "--plan", tmp_path / "plan.toml", "-o", tmp_path, "--no-recover")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "--no-recover leaves nothing" in done.output


def test_a_goal_says_what_it_asks() -> None:
    assert parse_goal({"bits": 5}, "gguf", mixes=True) == Goal("gguf", bits=5.0)
    assert parse_goal({}, "mlc", mixes=False) == Goal("mlc")
    assert Goal("gguf", max_mb=90.0).text == "gguf, max-mb = 90.0"
