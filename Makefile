# make help lists the targets. Every target sets up what it needs; nothing is installed by hand.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= artifacts
PLAN ?=
# One or more models, for example: make export-all MODEL="bundled ./my-checkpoint"
MODEL ?=
# Only these formats of the plan
FORMAT ?=
# The release: its version, its folder, whose it is on the hub, the private key that signs it (or none)
VERSION ?= $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' edgeproof/__init__.py)
DIST ?= dist
NAMESPACE ?=
KEY ?=
PUBLIC_KEY ?= $(KEY:.pem=.pub)
# How much text the comparison uses: fast, default or full
BUDGET ?= default
# More options of the comparison, as --whole-text
PARITY ?=
# no: leave out the plan's recovered variants, which take some minutes; yes: make them of models too that are larger than the
# plan's recover-up-to
RECOVER ?=
$(if $(filter-out yes no,$(RECOVER)),$(error RECOVER=$(RECOVER): say yes or no, or leave it out))
EXPORT_RECOVER = $(if $(filter no,$(RECOVER)),--no-recover,$(if $(filter yes,$(RECOVER)),--recover))
PARITY_RECOVER = $(if $(filter no,$(RECOVER)),--no-recover,--recover)

export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF

DEMO ?= build/demo
# Not part of verify, which has the first layers only: a software GPU takes seconds for a step of the whole model.
WHOLE_ON_WEBGPU := tests/test_real_webgpu.py tests/test_real_browser_webgpu.py

# A module's tests stay in one process: they share what they export. Serial: make test PARALLEL=
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist loadfile
# Processes of one thread each: threads that wait for others' cores would take a tenth more.
ONE_THREAD := EDGEPROOF_THREADS=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# PyTorch without AVX2, OpenBLAS and NumPy as before 2011, one thread. What a library does not know it ignores.
OLDER_PROCESSOR := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Nehalem \
	NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4" $(ONE_THREAD)

.PHONY: help setup export-all release demo gguf-table size-table mlc-table recovery-table test test-processors verify verify-webgpu faults bench bench-parity bench-families bench-reference bench-audit bench-time lint docs pictures lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Set-up by need: each part once, when a target first asks for it. llama.cpp, which is compiled, comes last.
READY := $(VENV)/.ready
setup: $(READY)-dev ## Create .venv with everything (once; later calls do nothing)

$(READY)-python $(READY)-llamacpp $(READY)-demo $(READY)-release $(READY)-docs $(READY)-dev: $(READY)-%: pyproject.toml constraints.txt tools/setup.sh tools/llama_cpp.cmake
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash tools/setup.sh $*
	@touch $@

$(READY)-llamacpp: $(READY)-python
$(READY)-demo $(READY)-release: $(READY)-llamacpp
$(READY)-docs: $(READY)-python
$(READY)-dev: $(READY)-demo $(READY)-release

# llama.cpp, which K-quants and comparing GGUF need, is compiled while the other formats are compared.
COMPARE = $(BIN)/python -m runtimes.parity --root "$(OUT)" --budget $(BUDGET) $(PARITY_RECOVER) $(PARITY)
MEANWHILE := $(VENV)/llamacpp.exit
NEEDS_LLAMACPP = $(if $(FORMAT),$(filter gguf,$(FORMAT)),gguf)
export-all: $(READY)-python $(if $(PLAN),$(READY)-llamacpp,$(wildcard $(READY)-llamacpp)) ## Export the plan (MODEL="A B" overrides its models), run every file, compare
	$(BIN)/python -m export $(if $(PLAN),--plan "$(PLAN)") $(foreach model,$(MODEL),--model $(model)) $(foreach format,$(FORMAT),--format $(format)) --out "$(OUT)" $(EXPORT_RECOVER)
	@if test -z "$(NEEDS_LLAMACPP)" || test -e $(READY)-llamacpp; then set -x; $(COMPARE); else set -x; \
	MAKE="$(MAKE_COMMAND)" $(BIN)/python -m tools.beside $(MEANWHILE) $(READY)-llamacpp -- $(COMPARE) --await gguf $(MEANWHILE); fi

demo: $(READY)-demo ## A chat page with the exports of the last export-all, built into build/demo and served
	@# A short text leaves some verdicts open, which the page shows.
	@test -f "$(OUT)"/run.json || $(MAKE) export-all BUDGET=fast RECOVER=no || test -f "$(OUT)"/run.json
	$(BIN)/python -m runtimes.demo build "$(DEMO)" --root "$(OUT)"
	$(BIN)/python -m runtimes.demo serve "$(DEMO)"

release: $(READY)-release ## Build dist/<model>-<VERSION> from OUT (exported and compared first if need be), verify it
	@ls "$(OUT)"/*/parity.json >/dev/null 2>&1 || $(MAKE) export-all
	$(BIN)/python -m runtimes.parity.elsewhere "$(OUT)" --budget $(BUDGET)
	$(BIN)/python -m export.release build "$(OUT)" --out "$(DIST)" --version "$(VERSION)" $(if $(KEY),--key "$(KEY)") $(if $(NAMESPACE),--namespace "$(NAMESPACE)")
	$(BIN)/python -m export.release verify "$(DIST)"/*-"$(VERSION)" $(if $(KEY),--key "$(PUBLIC_KEY)")

# What the three have in common is compared once: steps are kept in the cache.
TABLE = $(BIN)/python -m edgeproof run --budget $(BUDGET) --whole-text --no-footprint --no-html
gguf-table: setup ## All GGUF types with and without importance matrix, run and compared (half an hour)
	$(TABLE) benchmarks/gguf_types.toml --out "$(OUT)/gguf-types"
	$(BIN)/python -m benchmarks.gguf_table "$(OUT)"/gguf-types/*/parity.json

size-table: setup ## The 135M beside its 360M-shaped stand-in in all formats, run and compared (half an hour)
	$(TABLE) benchmarks/sizes.toml --out "$(OUT)"/sizes
	$(BIN)/python -m benchmarks.size_table "$(OUT)"/sizes/*/parity.json

mlc-table: setup ## All MLC schemes, run and compared
	$(TABLE) benchmarks/mlc_schemes.toml --out "$(OUT)"/mlc-schemes
	$(BIN)/python -m benchmarks.size_table "$(OUT)"/mlc-schemes/*/parity.json

recovery-table: setup ## Few bits with and without a recovery, in all formats (two hours); OUT/recovery has what is done
	$(BIN)/python -m benchmarks.recovery_table "$(OUT)"/recovery

test: setup ## Fast tests on tiny generated checkpoints, no network
	$(ONE_THREAD) $(BIN)/python -m pytest -m "not slow" $(PARALLEL)

test-processors: setup ## The tests that compare numbers again, computed as an older processor with one core would
	@# OpenVINO refuses such limits of oneDNN.
	$(OLDER_PROCESSOR) $(BIN)/python -m pytest -m "numbers and not slow" -k "not openvino" $(PARALLEL)

# EDGEPROOF_ALLOW_MISSING=webgpu,browser,mlx,openvino names what this machine may lack; all else must run.
verify: setup ## Slow checks: the whole of export-all on the real bundled model, judged
	$(BIN)/python -m pytest -m slow -v $(addprefix --ignore=,$(WHOLE_ON_WEBGPU))

verify-webgpu: setup ## The real fp16 model on WebGPU, also in Chromium; in software where there is no GPU
	$(BIN)/python -m pytest -m slow -v $(WHOLE_ON_WEBGPU)

faults: setup ## Plant every fault in exports of the real model, see that it is found; writes docs/faults.md
	$(BIN)/python -m tests.faults

bench: setup ## Cost of exporting, file sizes and speed of the graphs beside their peers, in one run
	$(BIN)/python -m benchmarks

bench-parity: setup ## What comparing a GGUF file costs beside llama.cpp's own prefill; captures the long text first
	$(BIN)/python -m benchmarks.parity_cost

bench-families: setup ## CPU seconds and memory of an export of each family (SHAPE=135M, 1.7B or 4B)
	$(BIN)/python -m benchmarks.families --shape $(or $(SHAPE),135M) $(if $(SHAPE),--sparse)

bench-reference: setup ## Memory that the reference of a large model takes, layer by layer (SHAPE=1.7B or 8B)
	$(BIN)/python -m benchmarks.reference_memory $(and $(SHAPE),--shape $(SHAPE))

bench-audit: setup ## Memory of an audit of a 1.7B-shaped file beside its runtime and the reference (6 GB of disk)
	$(BIN)/python -m benchmarks.audit_memory

bench-time: setup ## Where the seconds of export-all go, with empty caches (15 to 30 minutes; an idle machine)
	$(BIN)/python -m benchmarks.time_to_verdict --budget $(BUDGET) $(PARITY_RECOVER)

lint: setup ## ruff, mypy, the import rules of docs/architecture.md, and the workflows' security
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet --persona pedantic .github/workflows

docs: $(READY)-docs ## The documentation as a site, in build/docs; a dead link fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "build/docs/index.html"

pictures: $(READY)-dev ## What README shows, of the last export-all's report
	$(BIN)/python -m tools.pictures "$(OUT)"/*/parity.html

lock: ## Resolve the hashed pins of environments made on demand again (needs uv)
	python3 tools/lock_environments.py

clean: ## Remove artifacts and caches of this folder (not .venv, not ~/.cache)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find artifacts -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
