# Every target sets up all it needs from a bare Python 3.11, 3.12 or 3.13.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SERVICES := $(BIN)/python deploy/services
RUN := .services
COMPILED := build/compiled
TEST_COMPILED = PYTHONPATH=$(CURDIR)/$(COMPILED) $(CURDIR)/$(BIN)/python -m pytest --compiled -m "not kafka and not s3 and not interpreted"
PACKAGES := clearpane proxy consumer reader

.PHONY: help demo up install test test-uvloop test-compiled test-minio faults prices-check soak lint bench bench-peers bench-faults bench-loss wheel services services-stop compose-check compose-env lock clean

help:  ## print this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: install  ## a trial with a built-in fake provider: calls by the official SDKs, recorded and shown
	@$(BIN)/clearpane demo

up: install  ## proxy, shipper and consumer on this machine; records in a local folder
	@$(BIN)/clearpane up

install: $(READY)  ## leave the command at .venv/bin/clearpane

$(READY): pyproject.toml requirements/dev.txt
	@test -n "$(PYTHON)" || { echo "Clearpane needs Python 3.11, 3.12 or 3.13 with venv (Debian: apt-get install python3 python3-venv)"; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lint: install  ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict $(addprefix -p ,$(PACKAGES))
	@$(BIN)/lint-imports

test: lint  ## lint, then every test beside a real Kafka and a real S3 server
	@$(SERVICES) with kafka versitygw -- $(BIN)/python -m pytest $(ARGS)

test-uvloop: install  ## the transparency of a worker on uvloop
	@$(BIN)/python -m pytest --loop uvloop -m "not kafka and not s3" tests/e2e $(ARGS)

test-compiled: install  ## the path of a call compiled, as the images have it: the tests of the proxy, and of the transparency on both loops
	@rm -rf $(COMPILED) && deploy/wheel $(COMPILED)/dist
	@git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t $(COMPILED)
	@cd $(COMPILED) && $(CURDIR)/$(BIN)/python -m zipfile -e dist/*.whl .
	@cd $(COMPILED) && $(TEST_COMPILED) tests/contract tests/proxy/*.py tests/proxy/recorder tests/proxy/upstream tests/e2e $(ARGS)
	@cd $(COMPILED) && $(TEST_COMPILED) --loop uvloop tests/e2e $(ARGS)

test-minio: install  ## the lake's tests on MinIO, the second store
	@$(SERVICES) with minio -- $(BIN)/python -m pytest -m "s3 and not kafka" $(ARGS)

SEED ?= $(shell date +%s)

faults: install  ## every fault in full, on real processes: a table of what each did (WRITE_DOCS=1: into the docs)
	@mkdir -p $(RUN) && rm -f $(RUN)/faults.jsonl
	@CLEARPANE_TEST_FAULTS=$(CURDIR)/$(RUN)/faults.jsonl CLEARPANE_TEST_SEED=$(SEED) $(SERVICES) with kafka versitygw -- \
		$(BIN)/python -m pytest --full --hypothesis-seed=$(SEED) tests/faults tests/consumer/lake/test_model.py tests/proxy/spool/test_model.py $(ARGS)
	@$(BIN)/python -m tests.faults.table $(RUN)/faults.jsonl $(if $(WRITE_DOCS),--write-docs)

PRICE_MAP ?= https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json

prices-check: install  ## our price book against LiteLLM's public map (PRICE_MAP=FILE|URL): fails where a price differs
	@$(BIN)/clearpane prices check $(PRICE_MAP) $(ARGS)

soak: install  ## 200,000 calls with a random fault every few seconds (CALLS=..., SEED=...): nothing lost, nothing doubled
	@mkdir -p $(RUN)
	@$(SERVICES) with kafka versitygw -- $(BIN)/python -m tests.faults.soak \
		--calls $(or $(CALLS),200000) --seed $(SEED) --out $(RUN)/soak.json \
		$(if $(WRITE_DOCS),--write-docs)

bench: install  ## Clearpane against no proxy and nginx: some minutes
	@bench/run $(ARGS)

bench-peers: install  ## with uvloop, and with other gateways, which it installs: about half an hour
	@bench/run --peers $(ARGS)

bench-faults: install  ## latency with the log side stopped, its disk full, Kafka frozen
	@bench/run faults $(ARGS)

bench-loss: install  ## what LiteLLM's S3 logger loses, beside Clearpane: about half an hour
	@$(SERVICES) with versitygw -- bench/run loss $(if $(WRITE_DOCS),--write-docs) $(ARGS)

wheel: install  ## dist/*.whl for production: the path of a call compiled for this machine's Python
	@deploy/wheel

services: install  ## leave a real Kafka and a real S3 server running on loopback
	@$(SERVICES) start kafka versitygw --in $(RUN)

services-stop: install  ## stop them
	@$(SERVICES) stop kafka versitygw --in $(RUN)

compose-env:  ## write .env with random secrets for docker-compose.yml
	@deploy/compose-env

compose-check: install  ## docker-compose.yml for real: engine, build, up, calls, records counted, down
	@deploy/compose-check/run

lock: install  ## compile requirements/*.txt anew
	@deploy/lock

clean:  ## remove what the targets above made in this folder
	@rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
