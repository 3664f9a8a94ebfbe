"""`make verify`: on the real model's MLX folders mlx_lm's own program says what edgeproof says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtimes.chat.reply import Reply, Sampling
from runtimes.chat.voice import open_voice
from tests.required import need

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
QUESTION, TOKENS = "What is the capital of France?", 24


# Both compute in float32: mlx_lm because the bundled model is stored so, edgeproof always.
@pytest.mark.parametrize("dtype", ["q8", "q4"])
def test_mlx_lm_generate_answers_the_same(tmp_path: Path, dtype: str) -> None:
    need("mlx_lm", "mlx")
    export = [sys.executable, "-m", "export.mlx", "--dtype", dtype, "--out", tmp_path]
    subprocess.run(export, cwd=ROOT, check=True)
    (folder,) = tmp_path.glob(f"*/mlx/{dtype}*")
    theirs = generated(folder)
    assert theirs == replied(folder)
    assert "Paris" in theirs


def generated(folder: Path) -> str:
    """What `mlx_lm.generate` prints, greedy as it is by default."""
    command = [sys.executable, "-m", "mlx_lm", "generate", "--model", folder, "--prompt", QUESTION]
    options = ["--max-tokens", str(TOKENS), "--verbose", "False"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def replied(folder: Path) -> str:
    """What `edgeproof chat --temperature 0` says."""
    voice = open_voice(str(folder), folder.parent, None, 1)
    prompt = voice.prompt([{"role": "user", "content": QUESTION}])
    reply = Reply(voice, prompt, Sampling(0, 1, TOKENS, 0), 0)
    for _ in reply:
        pass
    text = reply.text.strip()
    voice.runtime.close()
    return text
