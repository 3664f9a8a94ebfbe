"""Load a written file in llama.cpp and evaluate a short prompt: a file that cannot run is refused.

Only what no reader of bytes can see: whether llama.cpp takes the metadata, finds every tensor that
its graph needs, and computes something. Whether the logits are right is the parity run's part.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeproof.errors import InputError
from edgeproof.llama_cpp_params import model_params
from export.format import Hint
from export.gguf.llama_cpp import captured_log, installed_version, load_api

PROMPT = b"The capital of France is"
MOST_TOKENS = 64
LOG_LINES = 2
INSTALL = 'pip install "edgeproof[llamacpp]"'


def try_in_llama_cpp(path: Path, vocabulary: int) -> str:
    """Run the model in a file, or in splits of which this is the first; a line on what was done.

    Raises:
        InputError: llama.cpp does not load it, knows another number of tokens than `vocabulary`, or
            gives logits that are not finite or all the same.
    """
    version = installed_version()
    if version is None:
        return Hint(f"not tried in llama.cpp, which is not installed ({INSTALL})")
    api = load_api()
    with _model(api, path) as model:
        vocab = api.llama_model_get_vocab(model)
        count = int(api.llama_vocab_n_tokens(vocab))
        if count != vocabulary:
            raise _refused(path, f"it has {count} tokens there, the checkpoint {vocabulary}")
        tokens = _tokens(api, vocab)
        if not len(tokens):
            raise _refused(path, f"{PROMPT.decode()!r} has no tokens there")
        logits = _last_logits(api, path, model, tokens, vocabulary)
    if not np.isfinite(logits).all():
        raise _refused(path, "its logits are not finite")
    if logits.min() == logits.max():
        raise _refused(path, "its logits are all the same")
    return f"runs in llama-cpp-python {version}: finite logits after {len(tokens)} tokens"


@contextmanager
def _model(api: Any, path: Path) -> Iterator[Any]:
    api.llama_backend_init()
    params = model_params(api)
    with captured_log(api) as log:
        model = api.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise _refused(path, f"it cannot be loaded ({_last(log)})")
    try:
        yield model
    finally:
        with captured_log(api):
            api.llama_model_free(model)


def _tokens(api: Any, vocab: Any) -> np.ndarray:
    """The prompt's ids, int32 [n]."""
    ids = (api.llama_token * MOST_TOKENS)()
    count = api.llama_tokenize(vocab, PROMPT, len(PROMPT), ids, MOST_TOKENS, False, True)
    return np.array(ids[: max(0, count)], np.int32)


def _last_logits(
    api: Any, path: Path, model: Any, tokens: np.ndarray, vocabulary: int
) -> np.ndarray:
    """Logits after the last token, float32 [vocabulary]."""
    params = api.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = MOST_TOKENS
    with captured_log(api) as log:
        context = api.llama_init_from_model(model, params)
        if not context:
            raise _refused(path, f"no context can be made ({_last(log)})")
        try:
            ids = (api.llama_token * len(tokens))(*tokens.tolist())
            if api.llama_decode(context, api.llama_batch_get_one(ids, len(tokens))) != 0:
                raise _refused(path, f"a prompt cannot be evaluated ({_last(log)})")
            rows = api.llama_get_logits_ith(context, -1)
            logits: np.ndarray = np.ctypeslib.as_array(rows, shape=(vocabulary,)).copy()
        finally:
            api.llama_free(context)
    return logits


def _last(log: list[str]) -> str:
    lines = [line for line in "".join(log).splitlines() if line.strip()]
    return " · ".join(lines[-LOG_LINES:]) or "it does not say why"


def _refused(path: Path, what: str) -> InputError:
    return InputError(
        f"{path.name}: verification in llama.cpp: {what}; check the checkpoint's config.json and"
        " tokenizer, or update llama-cpp-python"
    )
