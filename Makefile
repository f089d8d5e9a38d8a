# Everything sets itself up in .venv: a machine needs Python 3.11+ and make.

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
WORKERS ?= 2
# Links every module of src/ into the environment as the package `chainax`, where type checkers see it too.
INSTALL := -m pip install -q --disable-pip-version-check --config-settings editable_mode=strict -e

.PHONY: demo test quick bench aot docs lint types pytest newest clean

demo: .venv/examples.done  ## The decay-order experiment: a table, and decay_order.png
	$(BIN)/python examples/decay_order.py

test: lint types pytest newest  ## All checks, on the oldest Python and on the newest at hand

quick: .venv/test.done  ## About two minutes of the tests: chains, states, files, and two families of links
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q tests/test_chain.py tests/test_adam.py tests/test_sgd.py \
		tests/test_decay.py tests/test_saving.py tests/test_config.py

bench: .venv/test.done  ## The step beside Optax and torch: a table a workload, and benchmarks/results/<device>.{json,md}
	$(BIN)/python benchmarks/step.py --fresh

aot: .venv/aot  ## What the compilers for TPUs and GPUs make of a step: benchmarks/compiled/*.md. Executes nothing
	$(BIN)/python benchmarks/aot.py
	$(BIN)/python benchmarks/meshes.py
	$(BIN)/python benchmarks/matrices.py

docs: .venv/docs.done  ## The documentation as a site: site/index.html. Fails if a public name or a link leads nowhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --clean --site-dir site

lint: .venv/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test.done
	$(BIN)/pyright --pythonpath $(BIN)/python

pytest: .venv/test.done
	@$(MAKE) -s .venv/aot || echo "The compilers for TPU and GPU cannot be installed: their tests are skipped."
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q

newest:  ## A file or two of each kind, on the newest Python with its newest jax
	@PYTHON_OF_VENV=$(BIN)/python sh tests/newest.sh $(WORKERS)

.venv/%.done: pyproject.toml setup.py $(shell find src -type d -not -name __pycache__)
	@test -n "$(PYTHON)" || { echo "chainax needs Python 3.11 or newer: none found. Set PYTHON=..." >&2; exit 1; }
	@echo "Installing into .venv ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python $(INSTALL) ".[$*]"
	@touch $@

# A folder of their own: in the environment itself the plugins would make every import of jax look for devices.
.venv/aot: | .venv/test.done
	@echo "Installing the compilers for TPU and GPU into .venv/aot ..."
	@rm -rf $@.partial && version=$$($(BIN)/python -c 'import jax; print(jax.__version__)') && \
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --target $@.partial \
		libtpu jax-cuda12-plugin==$$version jax-cuda12-pjrt==$$version nvidia-cuda-nvcc-cu12 && mv $@.partial $@

clean:
	rm -rf .venv .venv-newest build site *.egg-info decay_order.png low_precision.png muon.png
