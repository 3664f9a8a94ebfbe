"""Load an ONNX artifact with Optimum, generate greedily, print JSON.

Runs in an environment of its own (export/onnx/traced):
`python tests/consumers/optimum_generate.py ARTIFACT [FILE_NAME]`. A second, shorter prompt is
answered alone and as a left-padded row of a batch: `padded_ids` must begin with `alone_ids`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoTokenizer

QUESTIONS = ["What is the capital of France?", "Hi"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("file_name", nargs="?", help="for example model_fp16.onnx")
    parser.add_argument("--subfolder", default="")
    parser.add_argument("--io-binding", action="store_true")
    parser.add_argument("--max-new-tokens", type=int, default=20)
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.artifact, padding_side="left")
    model = ORTModelForCausalLM.from_pretrained(
        arguments.artifact,
        subfolder=arguments.subfolder,
        file_name=arguments.file_name,
        use_io_binding=arguments.io_binding,
    )
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        for question in QUESTIONS
    ]

    def generate(texts: list[str]) -> list[list[int]]:
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        out = model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=arguments.max_new_tokens,
            do_sample=False,
        )
        return [row.tolist() for row in out[:, batch.input_ids.shape[1] :]]

    ids = generate(prompts[:1])[0]
    alone = generate(prompts[1:])[0]
    batch = generate(prompts)
    result = {
        "graph": str(Path(model.path).relative_to(arguments.artifact)),
        "io_binding": model.use_io_binding,
        "dtype": str(model.dtype),
        "prompt_ids": tokenizer(prompts[0], add_special_tokens=False).input_ids,
        "ids": ids,
        "text": tokenizer.decode(ids, skip_special_tokens=True),
        "alone_ids": alone,
        "padded_ids": batch[1],
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
