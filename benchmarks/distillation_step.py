"""What the gradient of a distillation takes, as training computes it and in float32.

`python -m benchmarks.distillation_step` reads 1,024 random tokens three times each way, on the
bundled 135M with one thread, and prints CPU seconds; where the processor has no tiles of bfloat16
both are the same.
"""

from __future__ import annotations

import contextlib
import copy
import time

import torch

from export.sources import resolve
from runtimes.calibrate.decoder import Decoder, open_decoder
from runtimes.recover.distill import loss
from runtimes.recover.distill.wish import PACES
from runtimes.recover.text import Chunk

CHUNKS, LENGTH, TIMES = 4, 256, 3
PACE = PACES["cpu"]


def main() -> None:
    """Measure both ways by turns, and print."""
    teacher = open_decoder(resolve("bundled").path, 1)
    model = copy.deepcopy(teacher.model).requires_grad_(True)
    student = Decoder(teacher.config, tuple(teacher.parameters.values()), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(300, (CHUNKS, LENGTH), generator=draw).tolist()
    chunks = [Chunk(tuple(row)) for row in rows]
    _read(student, teacher, chunks)
    for _ in range(TIMES):
        for name, context in (
            ("training", loss.quick("cpu")),
            ("float32", contextlib.nullcontext()),
        ):
            began = time.process_time()
            with context:
                _read(student, teacher, chunks)
            print(f"{name}: {time.process_time() - began:.2f} CPU s for {CHUNKS * LENGTH} tokens")


def _read(student: Decoder, teacher: Decoder, chunks: list[Chunk]) -> None:
    for begin in range(0, len(chunks), PACE.micro_rows):
        part = chunks[begin : begin + PACE.micro_rows]
        loss.pull(student, teacher, part, 1.0, PACE.logit_rows)


if __name__ == "__main__":
    main()
