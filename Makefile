# The road in: `make demo` to see it, `make test` to prove it. Everything else is a part of these two.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := e2e/.venv
STAGE := .ci/stage

# The grammar's build script would regenerate its sources with any protoc it finds.
export PATH := $(shell .ci/path)

# Of each fuzz target: `make fuzz SECONDS=3600` for a longer look.
SECONDS ?= 30
FUZZ := wire_decode wire_session mask_row sql_analyze

# Of the masking differential: `make mask-differential ROWS=1000000`, with the SEED it printed to see one again.
ROWS ?= 20000

# The corpus is no part of the repository; without it, and without another by name, its stages are left out.
CORPUS ?= $(wildcard ../shared/redteam)

.PHONY: help demo test check deps fuzz mask-differential e2e e2e-tools peers peers-quick redteam twins bench full clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: ## a sample database behind the gateway, in the foreground; Ctrl-C ends it and leaves nothing behind
	@.ci/deps build
	cargo build --locked -p exeat
	@cargo run --quiet --locked -p exeat -- demo $(DEMO)

test: ## everything: format, lints, unit tests, and real servers with real clients
	@$(STAGE) deps .ci/deps test
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory fuzz
	@$(STAGE) mask-differential $(MAKE) --no-print-directory mask-differential
	@$(STAGE) peers-quick $(MAKE) --no-print-directory peers-quick
	@$(MAKE) --no-print-directory redteam
	@$(MAKE) --no-print-directory twins
	@$(MAKE) --no-print-directory e2e

check: ## what needs no server of ours: format, lints, cargo tests (tidy among them)
	@$(STAGE) format cargo fmt --all --check
	@$(STAGE) format-fuzz cargo fmt --manifest-path fuzz/Cargo.toml --check
	@$(STAGE) lints-fuzz cargo clippy --quiet --locked --manifest-path fuzz/Cargo.toml -- -D warnings
	@$(STAGE) lints cargo clippy --locked --workspace --all-targets -- -D warnings
	@$(STAGE) unit cargo test --locked --workspace

deps: ## install or name what the tests need
	@.ci/deps test

fuzz: ## hostile bytes against the protocol code, guided by coverage (SECONDS=30 for each target)
	@$(foreach target,$(FUZZ),$(STAGE) fuzz-$(target) .ci/fuzz $(target) run $(SECONDS);)

mask-differential: ## random rows of every type, masked by the gateway and by a reference in Python (ROWS=20000, SEED=)
	@cargo build --quiet --locked -p exeat-enforce --example mask_rows
	@$(PYTHON) e2e/masking_reference.py $${CARGO_TARGET_DIR:-target}/debug/examples/mask_rows --rows $(ROWS) $(if $(SEED),--seed $(SEED))

e2e-tools: $(VENV)/installed e2e/oidc/node_modules/installed

$(VENV)/installed: e2e/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r e2e/requirements.txt
	touch $@

e2e/oidc/node_modules/installed: e2e/oidc/package-lock.json
	cd e2e/oidc && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

# Last of `make test` on purpose: a run ends with pytest's summary, which carries this stage's seconds.
e2e: ## real PostgreSQL, real drivers, a real identity provider (PG=18 for another server, E2E='-k name' to choose)
	@$(STAGE) e2e-tools $(MAKE) --no-print-directory e2e-tools
	@$(STAGE) build cargo build --locked -p exeat
	EXEAT_E2E_PG=$(or $(PG),15) $(VENV)/bin/python -m pytest -c e2e/pytest.ini e2e/tests $(E2E)

# The clients' suites are no part of the repository: EXEAT_PEERS names their folder, shared/peers beside it otherwise.
peers: ## real clients' own suites, direct and through the gateway, test by test (PEERS='--pg 18', '--tls', names)
	cargo build --locked -p exeat
	$(PYTHON) e2e/peers/run $(PEERS)

peers-quick: ## a part of them in at most five minutes; those that are not installed are left out by name
	@cargo build --quiet --locked -p exeat
	@$(PYTHON) e2e/peers/run --quick $(PEERS)

redteam: ## attacks that must get nothing, and work that must go on (CORPUS=folder, REDTEAM='--only setop' to choose)
ifeq ($(CORPUS),)
	@echo "left out: the red-team corpus is no part of the repository; name its folder by CORPUS="
else
	@cargo build --quiet --locked -p exeat
	@failed=0; for role in superuser rt_agent; do \
	    $(STAGE) redteam-$$role $(PYTHON) e2e/redteam --corpus $(CORPUS) --role $$role $(REDTEAM) || failed=1; \
	done; exit $$failed
endif

twins: ## two databases that differ in sealed values only must look the same (N=100000 for a long run, REGRESS=folder)
	@cargo build --quiet --locked -p exeat
	@$(STAGE) twins $(PYTHON) e2e/twins --oracle $(if $(N),--statements $(N)) $(if $(REGRESS),--regress $(REGRESS)) $(TWINS)

bench: ## what it costs: queries, bulk, connections, memory; direct, pgbouncer and Exeat in one run (BENCH="--only points" to choose)
	@.ci/deps bench
	cargo build --locked --release -p exeat
	$(PYTHON) bench/run.py $(BENCH)

full: ## what a release needs: the tests, the tests again on PostgreSQL 18, the clients' suites on both, the benchmark
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory e2e PG=18
	@$(MAKE) --no-print-directory peers
	@$(MAKE) --no-print-directory peers PEERS='--pg 18'
	@$(MAKE) --no-print-directory bench

clean: ## remove what the targets above made in this folder
	cargo clean
	rm -rf $(VENV) e2e/.cache e2e/oidc/node_modules fuzz/target fuzz/found fuzz/artifacts
