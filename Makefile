# `make demo` and `make test` are the two commands of the README; both make the environment they need.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check format bench lab-up lab-down envtest nmlab lock clean

demo: $(STAMP)
	@$(BIN)/ovsplan demo

# What takes minutes to build, once, is built beside the tests that do without; the others wait for it.
test: $(STAMP)
	@scripts/prepare-lab
	@for part in envtest nmlab; do nice -n 10 scripts/build-$$part >/dev/null 2>&1 & done
	@$(BIN)/python -m pytest tests --ignore tests/lab --ignore tests/apiserver --ignore tests/transport -n 2 --dist worksteal
	@scripts/build-envtest >/dev/null || true
	@$(BIN)/python -m pytest tests/apiserver tests/transport
	@scripts/build-nmlab >/dev/null || true
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

# The parts of tests that are built from source, when they are not there; prints which and where.
envtest:
	@folder=$$(scripts/build-envtest) && "$$folder/kube-apiserver" --version && "$$folder/etcd" --version | head -1 && \
	    echo "kubelet (exec only)" && echo "in $$folder"

nmlab:
	@scripts/prepare-lab
	@folder=$$(scripts/build-nmlab) && "$$folder/bin/nmstatectl" --version && \
	    echo "NetworkManager $$("$$folder/nm/sbin/NetworkManager" --version) with Open vSwitch" && \
	    "$$folder/ovn-25.03/bin/ovn-controller" --version | head -1 && \
	    "$$folder/ovn-25.03/bin/ovs-vswitchd" --version | head -1 && echo "in $$folder"

# Locked: names, versions and hashes, for every package that this project runs or is tested with.
lock: $(STAMP)
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --extra dev --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock pyproject.toml

$(STAMP): requirements.lock pyproject.toml scripts/make-venv
	@scripts/make-venv $(VENV)
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build *.egg-info
