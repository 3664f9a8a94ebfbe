"""A plan with MLX: exported, compared, reported, advised and released."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeproof.artifact.json_file import read_json
from edgeproof.cli import main
from tests.brought import edgeproof
from tests.caches import new_cache
from tests.required import need
from tests.tiny import long_texts, make_checkpoint

pytestmark = pytest.mark.slow

PLAN = '[[variant]]\nformat = "mlx"\ndtype = ["f16"]\n'


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("mlx_lm", "mlx")
    folder = tmp_path_factory.mktemp("mlx")
    (folder / "plan.toml").write_text(PLAN)
    (folder / "text.jsonl").write_text(
        "\n".join(json.dumps({"text": text}) for text in long_texts())
    )
    model = ("--model", make_checkpoint(folder / "tiny"), "--out", folder / "out")
    text = ("--text", folder / "text.jsonl", "--threads", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPROOF_CACHE", new_cache(folder))
        exported = edgeproof("export", "--plan", folder / "plan.toml", *model)
        assert exported.exit_code == 0, exported.output
        compared = edgeproof("parity", "--root", folder / "out", *text)
        assert compared.exit_code == 0, compared.output
    return folder / "out"


def record(out: Path) -> dict[str, Any]:
    (found,) = json.loads((out / "tiny" / "parity.json").read_text())["artifacts"]
    assert isinstance(found, dict)
    return found


def test_the_parity_run_judges_it_and_says_where_it_ran(out: Path) -> None:
    found = record(out)
    assert (found["format"], found["verdict"]) == ("mlx", "PASS")
    assert found["measurement"]["tokenizer_mismatches"] == 0
    assert found["measurement"]["chat_template"]["fault"] is None
    assert found["measurement"]["weights"]["mean_kl"]["value"] > 0
    assert found["measurement"]["footprint"]["peak_mb"] > 0
    execution = found["measurement"]["execution"]
    assert (execution["device"], execution["activations"]) == ("cpu", "float32")
    assert "mlx f16" in (out / "tiny" / "parity.html").read_text("utf-8")


def test_status_finds_it_up_to_date(out: Path) -> None:
    assert re.search(r"mlx f16 .*PASS +up to date", edgeproof("status", out).output)


def test_the_advice_is_about_apple_silicon(out: Path) -> None:
    (advice,) = json.loads((out / "tiny" / "parity.json").read_text())["advice"]["recommendations"]
    assert (advice["target"], advice["export"]) == ("MLX on Apple silicon", "mlx f16")
    assert advice["executed"] is False


def test_it_answers_in_a_chat(out: Path) -> None:
    folder = out / "tiny" / "mlx" / "f16"
    asked = ["chat", str(folder), "--threads", "1", "--max-tokens", "4", "--seed", "1"]
    done = CliRunner().invoke(main, asked, input="Hi\n")
    assert done.exit_code == 0, done.output
    assert ", first after" in done.output


def test_it_is_released_as_a_repository_of_its_own(out: Path, tmp_path: Path) -> None:
    built = edgeproof("release", "build", out, "--version", "1.0", "--out", tmp_path / "dist")
    assert built.exit_code == 0, built.output
    release = tmp_path / "dist" / "llama-0M-1.0"
    folder = release / "llama-0M-f16-MLX"
    card = (folder / "README.md").read_text("utf-8")
    assert "library_name: mlx" in card
    assert 'load("your-name/llama-0M-f16-MLX")' in card
    assert "not run in MLX on Apple silicon" in card
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert read_json(folder / "config.json")["model_type"] == "llama"
    assert edgeproof("release", "verify", release).exit_code == 0
