# Everything runs in .venv, which is filled from the hashed locks in requirements/ and again whenever they change.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# In the order written, so that the quick checks come first, whatever -j says.
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.bench-ready

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: $(READY) ## Serve on 127.0.0.1:50051 with an embedded PostgreSQL (data in .data)
	@exec $(BIN)/commerce serve --dev

.PHONY: test
test: lint types layers protos breaking migrations dockerfile peers tests ## Check everything, as CI does: all from lint to tests, and bench-smoke
	@if $(CAN_BUILD_LOAD); then $(MAKE) --no-print-directory bench-smoke ARGS=; \
	else echo "bench-smoke is left out: gcc or the headers of nghttp2 (libnghttp2-dev) are missing"; fi

.PHONY: lint
lint: $(READY) ## Style of the code (ruff)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: types
types: $(READY) ## Types (mypy --strict)
	$(BIN)/mypy

.PHONY: layers
layers: $(READY) ## Which layer imports which (import-linter)
	$(BIN)/lint-imports --no-logo

.PHONY: protos
protos: $(READY) ## Style of the protos (buf)
	$(BIN)/buf lint
	$(BIN)/buf format --path protos/commerce --diff --exit-code

.PHONY: breaking
breaking: $(READY) ## That the protos break no caller (buf), compared with BREAKING_AGAINST=<commit>
	@base=$${BREAKING_AGAINST:-$$($(EARLIER_PROTOS))}; \
	protos=; [ -z "$$base" ] || protos=$$(git ls-tree "$$base" protos/commerce); \
	if [ -z "$$protos" ]; then echo "no earlier protos to compare with"; exit; fi; \
	echo "buf breaking against $$(git log -1 --format='%h %s' "$$base")"; \
	earlier=$$(mktemp -d); trap 'rm -rf "$$earlier"' EXIT; \
	git archive "$$base" buf.yaml protos | tar -x -C "$$earlier"; \
	$(BIN)/buf breaking --against "$$earlier"

# The commit at which this branch left main. On main itself, HEAD for protos that are changed but not committed, else
# the commit before the one that changed them last.
EARLIER_PROTOS = git rev-parse --verify --quiet HEAD >/dev/null 2>&1 || exit 0; \
	for main in origin/main main; do \
	    fork=$$(git merge-base HEAD $$main 2>/dev/null) || continue; \
	    if [ "$$fork" != "$$(git rev-parse HEAD)" ]; then echo "$$fork"; exit; fi; \
	done; \
	git diff --quiet HEAD -- protos/commerce || { echo HEAD; exit; }; \
	git log -2 --format=%H -- protos/commerce | sed -n 2p

.PHONY: migrations
migrations: $(READY) ## That no migration keeps others waiting (squawk)
	$(BIN)/alembic upgrade head --sql | $(BIN)/squawk --stdin-filepath upgrade.sql

.PHONY: dockerfile
dockerfile: $(READY) ## Style of the Dockerfile (hadolint)
	$(BIN)/hadolint Dockerfile

.PHONY: tests
tests: $(READY) ## The tests, with branch coverage; some: make tests ARGS="-n 0 --no-cov tests/rpc -k order"
	$(BIN)/pytest -n 2 --dist loadfile --cov=service $(ARGS)

.PHONY: faults
faults: $(READY) ## Longer than the tests do: twenty kills of a server under a watch that must miss nothing
	COMMERCE_TEST_KILLS=20 $(BIN)/pytest --no-cov tests/process/test_watch_crash.py tests/process/test_crash.py

.PHONY: benchmarks
benchmarks: $(READY) ## Latency of watches; with DATABASE_URL (migrated, to be filled) also memory of imports and exports
	$(BIN)/python benchmarks/watch.py
	$(if $(DATABASE_URL),$(BIN)/python benchmarks/memory.py --rows $(or $(ROWS),1000000))

# The program that makes the calls is in C.
CAN_BUILD_LOAD = echo '\#include <nghttp2/nghttp2.h>' | gcc -E - >/dev/null 2>&1

# Where bench-smoke runs, so do the tests of the servers that it compares: they need what these need.
.PHONY: peers
peers: $(READY)
	@if $(CAN_BUILD_LOAD); then $(MAKE) --no-print-directory $(BENCH_READY) node; fi

.PHONY: bench
bench: $(BENCH_READY) node ## Compare with other servers in docs/performance.md; only some: make bench ARGS="--workload GetUser"
	$(BIN)/python -m benchmarks.bench $(ARGS)

.PHONY: bench-smoke
bench-smoke: $(BENCH_READY) node ## Benchmarks for their answers, not for the time: a few calls of each
	$(BIN)/python -m benchmarks.bench --smoke $(ARGS)

.PHONY: growth
growth: $(READY) ## That calls cost the same with 5 million orders as with 100 000; 10 GB in .bench
	$(BIN)/python -m benchmarks.growth $(ARGS)

.PHONY: workers
workers: $(READY) ## That calls cost the same of two processes on one port as of one
	$(BIN)/python -m benchmarks.workers $(ARGS)

.PHONY: bench-against
bench-against: $(READY) ## That calls cost the same as with an earlier commit: make bench-against BASE=main
	$(BIN)/python -m benchmarks.versions --base $(BASE) $(ARGS)

.PHONY: leaks
leaks: $(READY) ## Memory by connection and by call, and that a million calls leave none behind
	$(BIN)/python -m benchmarks.leaks $(ARGS)

.PHONY: profile
profile: $(BENCH_READY) ## A flame graph of the server under METHOD=GetUser, or another workload
	$(BIN)/python -m benchmarks.flamegraph $(or $(METHOD),GetUser) $(ARGS)

FAILOVER := .bench/patroni

.PHONY: failover
failover: $(READY) $(FAILOVER)/.ready ## Three minutes of failovers of a PostgreSQL under Patroni; needs etcd and haproxy
	$(BIN)/python -m benchmarks.failover.trial --patroni $(FAILOVER)/bin/patroni $(ARGS)

$(FAILOVER)/.ready: requirements/failover.txt
	@echo "Filling $(FAILOVER)"
	@$(PYTHON) -m venv --clear $(FAILOVER)
	@$(FAILOVER)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r $<
	@touch $@

.PHONY: format
format: $(READY) ## Format code and protos, and correct what can be corrected
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format
	$(BIN)/buf format --path protos/commerce --write

.PHONY: generate
generate: $(READY) ## Generate the client's stubs from the protos
	$(BIN)/python client/generate.py

COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
	--no-emit-package commerce-client --python-version 3.11 $(LOCK_FLAGS)

.PHONY: lock
lock: $(READY) ## Lock what pyproject.toml asks for; to newer versions with LOCK_FLAGS=--upgrade
	$(COMPILE) pyproject.toml -o requirements/run.txt
	$(COMPILE) pyproject.toml --extra dev -c requirements/run.txt -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra dev --extra bench -c requirements/dev.txt -o requirements/bench.txt
	echo hatchling | $(COMPILE) --no-annotate - -c requirements/dev.txt -o requirements/build.txt
	echo uv | $(COMPILE) --no-annotate - -c requirements/dev.txt -o requirements/uv.txt
	echo 'patroni[etcd3,psycopg3]' | $(COMPILE) --no-annotate - -o requirements/failover.txt

.PHONY: clean
clean: ## Remove what make made, except the data in .data
	rm -rf $(VENV) .bench benchmarks/peers/node/node_modules
	rm -rf dist htmlcov .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

VERSION := import sys; print("%d.%d" % sys.version_info[:2])
NAME_ONE := name one, as in: make PYTHON=/path/to/python3.13 $(or $(MAKECMDGOALS),run)

# Asked for with another Python than it has, .venv is made anew.
ifneq ($(origin PYTHON), file)
ifneq ($(shell $(PYTHON) -c '$(VERSION)' 2>/dev/null || true), $(shell $(BIN)/python -c '$(VERSION)' 2>/dev/null || true))
.PHONY: $(READY)
endif
endif

# Where only pip's configuration says where packages are, which uv does not read, pip gets them.
$(READY): requirements/uv.txt requirements/dev.txt pyproject.toml client/pyproject.toml
	@version=$$($(PYTHON) -c '$(VERSION)' 2>/dev/null) || \
	    { echo "$(PYTHON) does not run: install Python 3.11, 3.12 or 3.13, or $(NAME_ONE)" >&2; exit 1; }; \
	case $$version in 3.11 | 3.12 | 3.13) ;; *) \
	    echo "$(PYTHON) is Python $$version, and this needs 3.11, 3.12 or 3.13: $(NAME_ONE)" >&2; exit 1; esac; \
	echo "Filling $(VENV) with Python $$version"; \
	[ "$$($(BIN)/python -c '$(VERSION)' 2>/dev/null)" = "$$version" ] || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(UV) sync --require-hashes requirements/dev.txt || \
	    $(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(UV) install --no-cache --no-deps --no-build-isolation -e . -e client
	@touch $@

# What benchmarks need comes into the same .venv: it is locked to fit.
$(BENCH_READY): $(READY) requirements/bench.txt
	@$(UV) install --require-hashes -r requirements/bench.txt || \
	    $(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

# Without it benchmarks leave that server out, and say so.
.PHONY: node
node:
	@command -v node >/dev/null && command -v npm >/dev/null || exit 0; \
	cd benchmarks/peers/node; \
	[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --silent --no-fund --no-audit || \
	    echo "npm cannot install the packages of the server on Node.js"

# For .venv, whatever environment is active, and with the Python that is there.
UV = UV_PYTHON=$(BIN)/python UV_PYTHON_DOWNLOADS=never $(BIN)/uv --quiet pip
