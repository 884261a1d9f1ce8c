# Everything a developer or CI runs. It needs make and Python 3.11 or newer; the rest is installed into
# virtual environments inside the checkout, once, and again when pyproject.toml or constraints.txt change.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-client test-all test-clients test-tritonclient test-kserve fuzz check lint types imports \
	stubs-fresh proto bench fuzz-artifacts storm image image-test develop constraints clean

# The newest Python may have no wheels yet, so the one that constraints.txt was made for comes first.
PYTHON ?= $(shell for python in python3.11 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
CLIENT_VENV := $(VENV)-client
TRITONCLIENT_VENV := $(VENV)-tritonclient
KSERVE_VENV := $(VENV)-kserve
PROTO_VENV := $(VENV)-proto
# Not a plain -q: pip warns, harmlessly, of every package that a configured index lacks.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
ROOTS := proto models server client
SOURCES := $(shell find $(ROOTS) -mindepth 1 -name __pycache__ -prune -o -print) pyproject.toml README.md LICENSE
PYTEST_ARGS ?=
# Two files of tests at once: they wait for their servers half of the time. No more: those have threads of their own.
# In their order: those of few tests take longest, since they start servers, and would come last, one after the other.
TEST_PROCESSES ?= 2
FUZZ_ARGS ?=

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.wheel ## Train two models, serve them, ask for predictions with error bars
	@$(BIN)/python examples/demo.py

test: test-client test-all test-tritonclient ## Test the built wheel: without extras, with all, with tritonclient

test-client: $(CLIENT_VENV)/.wheel
	$(CLIENT_VENV)/bin/pytest tests/client tests/packaging/without_extras.py $(PYTEST_ARGS)

# Unless told what to test: what the client's environment has tested is not tested again.
test-all: $(VENV)/.wheel
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder \
		$(or $(PYTEST_ARGS),--ignore tests/client)

test-clients: test-tritonclient test-kserve ## Test the server with other projects' clients (kserve's is large)

# Each client in an environment of its own: they forbid the protobuf that the server's has.
test-tritonclient test-kserve: test-%: $(VENV)-%/.wheel $(VENV)/.wheel
	PYTHONPATH=tests $(BIN)/python tests/support/with_server.py \
		$(VENV)-$*/bin/pytest tests/clients/with_$*.py $(PYTEST_ARGS)

# Each method's requests are bounded, in number and by deadlines; the server is on loopback, and stopped at the end.
fuzz: $(VENV)/.wheel ## Send 100,000 mutated requests to each method of a server
	PYTHONPATH=tests $(BIN)/python -m support.fuzzing $(FUZZ_ARGS)

check: lint types imports stubs-fresh ## Lint, formatting, types, import rules, fresh stubs

lint: $(VENV)/.packages
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.packages
	$(BIN)/mypy

empty :=
imports: $(VENV)/.packages
	PYTHONPATH=$(subst $(empty) $(empty),:,$(ROOTS)) $(BIN)/lint-imports

stubs-fresh: $(PROTO_VENV)/.packages
	@rm -rf build/stubs && mkdir -p build/stubs
	@$(PROTO_VENV)/bin/python scripts/generate_stubs.py build/stubs
	@diff -r -x '*.proto' -x __init__.py -x py.typed -x __pycache__ proto build/stubs \
		|| { echo "The stubs in proto/ are not what the .proto files give: run 'make proto'." >&2; exit 1; }

proto: $(PROTO_VENV)/.packages ## Regenerate the stubs beside the .proto files
	$(PROTO_VENV)/bin/python scripts/generate_stubs.py proto

bench: $(VENV)/.wheel ## Run the benchmarks that need no data, quickly (for one at full length: python -m benchmarks.NAME)
	@for name in engine serving training; do $(BIN)/python -m benchmarks.$$name --quick || exit; done

fuzz-artifacts: $(VENV)/.wheel ## Load 10,000 mutated artifacts: each is served right or refused (2 minutes)
	@cd tests && ../$(BIN)/python -m support.artifact_fuzz > /dev/null

storm: $(VENV)/.wheel ## Cancel 10,000 calls to a server at random moments
	STORM_CALLS=10000 $(BIN)/pytest tests/e2e/test_cancellation.py

image: ## Build the container image (deploy/image.sh says what can be chosen)
	@deploy/image.sh build

image-test: $(VENV)/.wheel ## Start the image's server on a trained model and ask it for predictions
	@$(BIN)/python deploy/image_test.py

develop: $(VENV)/.packages ## Put the checkout itself in place of the wheel, for quick rounds of pytest
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.wheel

constraints: ## Renew constraints.txt: the newest versions of everything but torch
	@PYTHON=$(PYTHON) scripts/constraints.sh

clean: ## Remove everything that make made
	rm -rf $(VENV) $(CLIENT_VENV) $(TRITONCLIENT_VENV) $(KSERVE_VENV) $(PROTO_VENV) build dist repository tour
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# pip comes from the constraints file first: reading [dependency-groups] needs 25.1 or newer. The checkout itself
# comes with the packages, as after 'make develop': a copy of it would hide later changes from who tests the
# sources. What tests the wheel installs it anew, since dist/.built depends on this.
$(VENV)/.packages: pyproject.toml constraints.txt
	$(if $(PYTHON),,$(error dropserve needs Python 3.11 or newer: install it, or name it with PYTHON=/path/to/python3))
	@echo "Installing packages into $(VENV): a minute or two, and not again until they change."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt --upgrade pip hatchling
	@$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[all]' --group dev
	@touch $@

dist/.built: $(VENV)/.packages $(SOURCES)
	@rm -rf dist
	@$(BIN)/hatchling build -t wheel -d dist
	@touch $@

$(VENV)/.wheel: dist/.built
	@$(PIP) install --no-deps --force-reinstall dist/*.whl
	@touch $@

# No extras, and only the test tools that the client's tests need: what an application has that asks a server.
$(CLIENT_VENV)/.wheel: dist/.built
	@$(PYTHON) -m venv --clear --without-pip $(CLIENT_VENV)
	@$(PIP) --python $(CLIENT_VENV)/bin/python install --constraint constraints.txt dist/*.whl --group test
	@touch $@

$(TRITONCLIENT_VENV)/.wheel $(KSERVE_VENV)/.wheel: $(VENV)-%/.wheel: dist/.built
	@$(PYTHON) -m venv --clear --without-pip $(VENV)-$*
	@$(PIP) --python $(VENV)-$*/bin/python install --no-compile dist/*.whl --group $*
	@touch $@

$(PROTO_VENV)/.packages: $(VENV)/.packages
	@$(PYTHON) -m venv --clear --without-pip $(PROTO_VENV)
	@$(PIP) --python $(PROTO_VENV)/bin/python install --group proto
	@touch $@
