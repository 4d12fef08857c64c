# tritpack. `make help` lists the targets; each works on a fresh machine with Python >= 3.10 and a C compiler.
#
#   make demo        convert, inspect, verify and run the bundled model
#   make test        everything CI runs, in the git-ignored .venv

PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
RUN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

include runtime/runtime.mk

##@ Use
.PHONY: demo
demo: $(VENV)/.ready ## Convert, inspect, verify and run the bundled model (offline after the first time)
	@mkdir -p $(BUILD)
	$(call show,1. Pack the checkpoint: every code and scale is kept,convert recipes/demo/checkpoint -o $(BUILD)/demo.gguf --outtype i2_s --force) >&2
	$(call show,2. Look at what the file really holds,inspect $(BUILD)/demo.gguf) >&2
	$(call show,3. Prove that it is the same model,verify $(BUILD)/demo.gguf --source recipes/demo/checkpoint) >&2
	$(call show,4. Run it,generate $(BUILD)/demo.gguf -p "Once upon a time" -n 64 --temp 0 --repeat-penalty 1.15)
	@printf '\nThe command is %s/tritpack; after ". %s/activate" it is simply tritpack.\n' '$(RUN)' '$(RUN)' >&2
	@if [ -f $(WEB)/tritpack.wasm ]; then printf 'In a browser: %s/tritpack web --serve $(BUILD)/demo.gguf\n' '$(RUN)' >&2; \
	else echo 'In a browser: make web builds the page (it needs clang, lld, wasi-libc, libclang-rt-dev-wasm32, node and npm), then tritpack web --serve $(BUILD)/demo.gguf' >&2; fi

# A heading, a command and its output; the first two on stderr, because stdout is for what was asked for.
show = @printf '\n%s\n$$ tritpack %s\n' '$(1)' '$(2)' >&2; $(RUN)/tritpack $(2)

.PHONY: install
install: $(VENV)/.ready ## Set up .venv with tritpack installed in it

WASM_CC ?= clang --target=wasm32-wasi
WASI_LICENSE ?= /usr/share/doc/wasi-libc/copyright
WEB := runtime/web/npm/dist
wasm = $(MAKE) --no-print-directory -f runtime/runtime.mk $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS)) QUIET=1 CC="$(WASM_CC)" \
	CFLAGS="$(2)" CPPFLAGS= LDFLAGS= BUILD="$(BUILD)/web/$(1)" "$(BUILD)/web/$(1)/tritpack.wasm"
NODE_MODULES := $(BUILD)/web/node/node_modules/.ready
.PHONY: web
web: web-requirements $(NODE_MODULES) ## Build the engine of the page that tritpack web writes (clang, lld, wasi-libc, node, npm)
	@mkdir -p $(WEB)
	@$(call wasm,single,)
	@$(call wasm,threads,-matomics -mbulk-memory -ftls-model=local-exec)
	@node runtime/web/build.mjs $(BUILD)/web/node $(WEB)
	@cp $(BUILD)/web/single/tritpack.wasm $(WEB)/tritpack.wasm && cp $(BUILD)/web/threads/tritpack.wasm $(WEB)/tritpack-threads.wasm
	@cd $(BUILD)/web/node/node_modules && for each in @huggingface/tokenizers @huggingface/jinja @noble/hashes; do \
		printf '%s\n\n' "$$each"; cat "$$each/LICENSE"; printf '\n\n'; done > $(abspath $(WEB))/licenses.txt
	@{ printf 'wasi-libc, with musl\n\n'; cat "$(WASI_LICENSE)"; } >> $(WEB)/licenses.txt
	@sed -n 's/^#define TP_ABI_VERSION //p' runtime/csrc/include/tritpack.h > $(WEB)/abi
	@echo "built the page's engine in $(WEB); tritpack web FILE --serve shows it" >&2

# Without scripts of packages, and without a lock file, which would hold the address of a registry: versions are exact.
$(NODE_MODULES): runtime/web/package.json
	@mkdir -p $(BUILD)/web/node && cp $< $(BUILD)/web/node/
	@cd $(BUILD)/web/node && npm install --silent --ignore-scripts --no-package-lock --no-audit --no-fund >&2
	@touch $@

.PHONY: web-requirements
web-requirements:
	@command -v node >/dev/null && command -v npm >/dev/null || \
		{ echo "error: node and npm are missing; on Debian: apt-get install nodejs npm" >&2; exit 7; }
	@printf 'int main(void) { return 0; }' | $(WASM_CC) -x c - -o /dev/null 2>/dev/null || \
		{ echo "error: '$(WASM_CC)' does not link; on Debian: apt-get install clang lld wasi-libc libclang-rt-dev-wasm32" >&2; exit 7; }
	@[ -r "$(WASI_LICENSE)" ] || { echo "error: the license of wasi-libc is not in '$(WASI_LICENSE)'; set WASI_LICENSE=" >&2; exit 7; }

##@ Develop
.PHONY: test
test: $(VENV)/.test-ready lint c-test ## Lint, type-check, run the C tests under sanitizers and all Python tests
	BUILD=$(abspath $(BUILD)) MAKEFLAGS= $(RUN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.PHONY: lint
lint: $(VENV)/.test-ready ## ruff and mypy
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

FUZZ_SECONDS ?= 600
.PHONY: fuzz
fuzz: $(VENV)/.test-ready lib ## Fuzz the readers and the C library for FUZZ_SECONDS (tests/fuzz/README.md)
	@$(RUN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --binaries $(abspath $(BUILD))/fuzz/asan

.PHONY: bench-peers
bench-peers: $(VENV)/.ready ## Time others beside us: PEERS="ik_llama.cpp=PATH/llama-bench ..." (OPTIONS=--help)
	@PYTHONPATH=. $(RUN)/python -m tests.benchmarks.peers $(PEERS) --folder $(BUILD)/bench-peers $(OPTIONS)

.PHONY: bench-instructions
bench-instructions: $(VENV)/.ready ## Count instructions per weight with valgrind, ours and those of PEERS
	@PYTHONPATH=. $(RUN)/python -m tests.benchmarks.instructions $(PEERS) --folder $(BUILD)/bench-peers $(OPTIONS)

.PHONY: format
format: $(VENV)/.test-ready ## Let ruff and clang-format rewrite what they can
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .
	@if command -v clang-format >/dev/null; then \
		git ls-files 'runtime/csrc/*.[ch]' 'runtime/csrc/*.inc' 'tests/c/*.[ch]' 'tests/fuzz/c/*.[ch]' | xargs clang-format -i; \
	else echo "clang-format is not installed; C files were left as they are" >&2; fi

.PHONY: clean
clean: ## Remove everything that was built
	rm -rf $(BUILD) dist $(VENV) runtime/libtritpack.* $(WEB)

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {print "\n" substr($$0, 5)} /^[a-z][a-z-]*:.*## / {printf "  %-10s %s\n", $$1, $$2}' \
		$(MAKEFILE_LIST)

# What is missing is named before anything starts: system Pythons often come without venv, and images without a compiler.
.PHONY: requirements
lib: | requirements
requirements:
	@command -v $(firstword $(CC)) >/dev/null || \
		{ echo "error: no C compiler '$(CC)'; on Debian: apt-get install gcc libc6-dev make" >&2; exit 7; }
	@printf '#include <stdio.h>\n' | $(CC) -x c -E - >/dev/null 2>&1 || \
		{ echo "error: the C library's headers are missing; on Debian: apt-get install libc6-dev" >&2; exit 7; }
	@command -v $(PYTHON) >/dev/null || \
		{ echo "error: no $(PYTHON); on Debian: apt-get install python3 python3-venv" >&2; exit 7; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: Python 3.10 or newer is needed; set PYTHON=" >&2; exit 7; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "error: Python's venv is missing; on Debian: apt-get install python3-venv" >&2; exit 7; }

# A stamp holds the set-up: made again only if what it depends on changes, so a second run needs no network.
# The library comes first: pip would build it through the hook beside a parallel make.
$(VENV)/.ready: pyproject.toml | requirements quiet-lib
	@echo "setting up $(VENV); the first time, pip downloads what tritpack needs" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check hatchling editables >&2
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable . >&2
	@touch $@

$(VENV)/.test-ready: $(VENV)/.ready
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[test]' >&2
	@touch $@

# On all cores, without a line per file. It is rebuilt when its sources change, not only when the package is installed.
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
.PHONY: quiet-lib
quiet-lib: | requirements
	@[ -f $(TP_LIB) ] || echo "building the C library: $(words $(TP_SOURCES)) files" >&2
	@$(MAKE) --no-print-directory QUIET=1 $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS)) lib
demo: quiet-lib
test: lib
