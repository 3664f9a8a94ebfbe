"""`ENV/bin/python benchmarks/rounded_outside.py MODEL CALIBRATION OUT ITERATIONS`: by auto-round.

For `benchmarks.outside`, in an environment of its own that has auto-round. Every linear layer but
the head gets 4-bit blocks of 32 with a signed scale and no zero point; OUT is an ordinary
checkpoint of what these are worth. Its own `fake` format is not used: version 0.16.1 puts float32
originals back into it. CALIBRATION is a recovery's text, so that both have the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import auto_round
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 8


def main(folder: str, calibration: Path, out: str, iterations: int) -> None:
    """Round a model and write it."""
    rows = [chunk["ids"] for chunk in json.loads(calibration.read_text())["chunks"]]
    length = max(map(len, rows))
    whole = [row for row in rows if len(row) == length]
    batches = [torch.tensor(whole[i : i + BATCH]) for i in range(0, len(whole) - BATCH + 1, BATCH)]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rounding = auto_round.AutoRound(
        model,
        tokenizer,
        scheme="W4A16",
        group_size=32,
        sym=True,
        iters=iterations,
        seqlen=length,
        nsamples=BATCH * len(batches),
        batch_size=BATCH,
        dataset=batches,
        device_map="cpu",
        enable_torch_compile=False,
    )
    rounded, _ = rounding.quantize()
    rounded.save_pretrained(out)
    tokenizer.save_pretrained(out)
    print(f"auto-round {auto_round.__version__}: {BATCH * len(batches)} texts of {length} tokens")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
