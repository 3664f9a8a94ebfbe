"""Open an artifact with ONNX Runtime GenAI, answer greedily, print JSON.

Runs in an environment of its own (requirements-genai.txt):
`python tests/consumers/genai_generate.py ARTIFACT [TOKENS]`. The prompt is rendered and tokenized
by GenAI itself, from the artifact's files.
"""

from __future__ import annotations

import json
import sys

import onnxruntime_genai

QUESTION = "What is the capital of France?"


def main() -> None:
    model = onnxruntime_genai.Model(sys.argv[1])
    tokenizer = onnxruntime_genai.Tokenizer(model)
    messages = json.dumps([{"role": "user", "content": QUESTION}])
    prompt = tokenizer.encode(tokenizer.apply_chat_template(messages, add_generation_prompt=True))
    parameters = onnxruntime_genai.GeneratorParams(model)
    length = len(prompt) + int(sys.argv[2] if len(sys.argv) > 2 else 20)
    parameters.set_search_options(do_sample=False, max_length=length)
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(prompt)
    ids = []
    while not generator.is_done():
        generator.generate_next_token()
        ids.append(int(generator.get_next_tokens()[0]))
    result = {"prompt_ids": list(map(int, prompt)), "ids": ids}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
