# `make demo` and `make test` are the two commands of the README; both make the environment they need.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check format bench lab-up lab-down envtest lock clean

demo: $(STAMP)
	@$(BIN)/ovsplan demo

test: $(STAMP)
	@scripts/prepare-lab
	@$(BIN)/python -m pytest tests --ignore tests/lab --ignore tests/apiserver --ignore tests/transport -n 2
	@$(BIN)/python -m pytest tests/apiserver tests/transport
	@$(BIN)/python -m pytest tests/lab

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	@$(BIN)/python -m bench

lab-up: $(STAMP)
	@scripts/prepare-lab
	$(BIN)/python -m tests.lab.main up

lab-down: $(STAMP)
	$(BIN)/python -m tests.lab.main down

# Prints the folder with etcd, kube-apiserver and kubelet, built when they are not there.
envtest:
	@scripts/build-envtest

# Locked: names, versions and hashes, for every package that this project runs or is tested with.
lock: $(STAMP)
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --extra dev --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock pyproject.toml

$(STAMP): requirements.lock pyproject.toml scripts/make-venv
	@scripts/make-venv $(VENV)
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build *.egg-info
