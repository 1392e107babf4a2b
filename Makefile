# Everything runs in the Python environment that is active; see CONTRIBUTING.md to make one.

PYTHON ?= python
CPP := $(wildcard src/anaphora/engine/src/*.* src/anaphora/engine/src/*/*.* tests/native/*.*)
CLANG_FORMAT := $(PYTHON) -c 'from clang_format import clang_format as main; main()'

# What `make sanitize` compiles with, and the sanitizers that it takes in turn. It and `make emulate`
# may do fewer rounds, by a factor: on an emulated processor each one takes twenty times as long.
CXX := g++
SANITIZERS := address,undefined thread
FEWER := 1
FEWER_EMULATED := 3
# What `make cross` compiles for, and where to find zig.
TARGETS := x86_64-linux-musl aarch64-linux-musl x86_64-windows-gnu aarch64-macos
ZIG = $(shell command -v $(PYTHON));-m;ziglang;c++
CMAKE_TESTS := $(PYTHON) -m cmake -S . -DANAPHORA_NATIVE_TESTS=ON -DANAPHORA_STRICT=ON

.DEFAULT_GOAL := help
.PHONY: help build cells check lint test parity docs pictures notebooks sanitize emulate cross format clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build:  ## Install for development; again after a change in the C++ sources
	$(PYTHON) -m pip install --editable ".[dev]"

cells:  ## Write the engine's table of built-in cells again; after a change in their equations
	mkdir -p build && $(PYTHON) tests/engine/built_in_cells.py > build/built_in_cells.h
	mv build/built_in_cells.h src/anaphora/engine/src/

check: lint test  ## All that must pass before a commit: lint and test

lint:  ## Style, formatting, types, and the direction of imports
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(CLANG_FORMAT) --dry-run -Werror $(CPP)
	$(PYTHON) -m mypy
	$(PYTHON) -c 'from importlinter.cli import lint_imports_command as main; main()' --no-logo

test:  ## All tests; those in tests/parity are skipped where PyTorch is missing
	$(PYTHON) -m pytest

parity:  ## Only the comparison with PyTorch (pip install ".[peers]")
	$(PYTHON) -m pytest tests/parity

docs:  ## Build the documentation into build/site, and check it; in a browser too, if chromium is there
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --quiet
	$(PYTHON) docs/check.py build/site $(BROWSER)

pictures:  ## Render the pictures of tutorial and guide again, by running their code
	ANAPHORA_KEEP_PICTURES=1 $(PYTHON) -m pytest tests/test_documentation.py -k "tutorial or inside"

notebooks:  ## The tutorial's chapters as notebooks, in build/notebooks
	$(PYTHON) docs/notebooks.py build/notebooks

sanitize:  ## The engine's native tests under Address-, UndefinedBehavior- and ThreadSanitizer
	for sanitizer in $(SANITIZERS); do \
		$(CMAKE_TESTS) -B build/$(CXX)-$$sanitizer -DCMAKE_CXX_COMPILER=$(CXX) \
			-DANAPHORA_SANITIZE=$$sanitizer && \
		$(PYTHON) -m cmake --build build/$(CXX)-$$sanitizer --parallel && \
		timeout 1200 build/$(CXX)-$$sanitizer/engine_test $(FEWER) || exit 1; \
	done

emulate:  ## The engine's native tests on an emulated ARM processor, to the bits of AVX2 and AMX
	$(CMAKE_TESTS) -B build/native
	$(CMAKE_TESTS) -B build/aarch64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
		-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_EXE_LINKER_FLAGS=-static
	for target in native aarch64; do \
		$(PYTHON) -m cmake --build build/$$target --parallel || exit 1; \
	done
	build/native/engine_test $(FEWER_EMULATED) >build/native.txt
	qemu-aarch64-static build/aarch64/engine_test $(FEWER_EMULATED) >build/aarch64.txt
	grep "bits of " build/native.txt build/aarch64.txt
	sed -n "s/^avx2: //p; /^amx-emulated: /p" build/native.txt >build/expected.txt
	sed -n "s/^baseline: //p; /^amx-emulated: /p" build/aarch64.txt | diff build/expected.txt -

cross:  ## The native tests compiled for musl, Windows and macOS, by zig (pip install ziglang)
	for target in $(TARGETS); do \
		case $$target in *linux*) system=Linux ;; *windows*) system=Windows ;; *) system=Darwin ;; esac; \
		$(CMAKE_TESTS) -B build/$$target -DCMAKE_SYSTEM_NAME=$$system \
			-DCMAKE_SYSTEM_PROCESSOR=$${target%%-*} "-DCMAKE_CXX_COMPILER=$(ZIG);-target;$$target" && \
		$(PYTHON) -m cmake --build build/$$target --parallel || exit 1; \
		case $$target in \
			x86_64-linux-*) build/$$target/engine_test ;; \
			aarch64-linux-*) qemu-aarch64-static build/$$target/engine_test ;; \
		esac || exit 1; \
	done

format:  ## Rewrite the code in the project's style
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
	$(CLANG_FORMAT) -i $(CPP)

clean:  ## Remove the files of builds, tests and linters
	rm -rf build dist src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
