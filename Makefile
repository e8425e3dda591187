# What a person types. Needs Python 3.11 or later and nothing else; `make PYTHON=python3.13 up` chooses one.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TYPES := build/types
TOOLS := build/tools
LOCKS := requirements
PIP := -m pip --disable-pip-version-check --quiet
MAPPED := agents tables web migrations
FUZZ_S := 900
QUICK := tests/domain tests/analytics $(patsubst %,tests/test_%.py,app config documents repository) \
	$(patsubst %,tests/protocol/test_%.py,any_record audit batches order_of_names receipts reply_addresses) \
	$(patsubst %,tests/projections/test_%.py,registry rows) tests/web/test_openapi.py
PROGRAMS := prometheus promtool prometheus-node-exporter
FETCH := apt-get --quiet --option APT::Sandbox::User=root download prometheus prometheus-node-exporter

.DEFAULT_GOAL := help
.PHONY: help install up test check lint types layers prometheus fuzz queries schema commands bench chaos soak lock audit licences sbom clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

install: $(VENV)/installed ## Prepare .venv with Mercuria in it

# Made again only when the dependencies change. All is in the locks, so pip has nothing to resolve. A new pip comes first:
# those that older Pythons bring take several times as long to choose among a package's files.
$(VENV)/installed: setup.cfg pyproject.toml $(LOCKS)/build.txt $(LOCKS)/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "Mercuria needs Python 3.11 or later, and $(PYTHON) is $$($(PYTHON) --version 2>&1 || true): say which one with 'make PYTHON=…'." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "$(PYTHON) comes without venv: install it (Debian and Ubuntu call it python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install --require-hashes --no-deps --requirement $(LOCKS)/build.txt
	$(BIN)/python $(PIP) install --require-hashes --no-deps --requirement $(LOCKS)/dev.txt
	@# setuptools warns of folders that have the package's name. There is one, and it is the package.
	PYTHONWARNINGS='ignore:Editable installation' \
	  $(BIN)/python $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

up: install ## Start Kafka, PostgreSQL, Redis and Mercuria; Ctrl-C stops them
	@exec $(BIN)/mercuria up

test: install prometheus ## Run all tests
	$(BIN)/python -m pytest

check: lint types layers ## Check style, types, layers and what needs no servers: the rules of the money, and batches
	$(BIN)/python -m pytest --quiet $(QUICK)

lint: install ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install $(TYPES) ## Check types
	cd $(TYPES) && MYPYPATH=. $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/setup.cfg --strict -p mercuria -p tests.harness

layers: install $(TYPES) ## Check that imports go down only
	cd $(TYPES) && PYTHONPATH=. $(CURDIR)/$(BIN)/lint-imports --config $(CURDIR)/setup.cfg --cache-dir $(CURDIR)/.import_linter_cache

# Out of Debian's or Ubuntu's packages. They are unpacked only: an installed one would start with the machine.
prometheus: ## Fetch Prometheus into build/, for the tests of deploy/prometheus; not where it is installed
	@for program in $(PROGRAMS); do command -v $$program; done | wc -l | grep -qx $(words $(PROGRAMS)) || \
	$(MAKE) --no-print-directory build/prometheus || \
	echo "Prometheus and its node exporter are not here and cannot be fetched: tests of deploy/prometheus will fail." >&2

build/prometheus:
	@rm -rf $@.part && mkdir -p $@.part/packages
	@cd $@.part/packages && { $(FETCH) || { apt-get update --quiet && $(FETCH); }; }
	@cd $@.part/packages && for package in *.deb; do dpkg-deb --extract "$$package" ..; done
	@mv $@.part $@

fuzz: install ## Ask a stack of its own what its OpenAPI document allows and what not, for FUZZ_S seconds
	$(BIN)/python -m tests.web.fuzz --max-time $(FUZZ_S)

queries: install prometheus ## Ask a Prometheus that watches a stack of its own what the dashboard and the alerts ask
	$(BIN)/python -m tests.deployment.queries

schema: install ## Write down the schema that the migrations make
	$(BIN)/python -m tests.projections.schema

commands: install ## Write down the command line, for its help and for completion in shells
	$(BIN)/python -m tests.cli.command_line

# ARGS says which and how: `make bench ARGS="http --seconds 10 --json"`, `make chaos ARGS="http --stop redis"`.
bench: install ## Measure: wallets, http, pipeline or scaling, as ARGS says
	$(BIN)/python -m tests.harness bench $(or $(ARGS),--help)

chaos: install ## Break a stack of its own under load, as ARGS says, and audit it
	$(BIN)/python -m tests.harness chaos $(or $(ARGS),--help)

soak: install ## Keep a stack of its own busy for an hour, with faults, or as ARGS says
	$(BIN)/python -m tests.harness soak $(ARGS)

# Which lock is for what: requirements/README.md.
LOCK = $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-emit-index-url --custom-compile-command 'make lock'

lock: $(TOOLS)/installed ## Lock the newest versions that setup.cfg and pyproject.toml allow, with hashes
	$(LOCK) setup.cfg --extra dev --group build --output-file $(LOCKS)/dev.txt
	$(LOCK) setup.cfg --constraint $(LOCKS)/dev.txt --output-file $(LOCKS)/base.txt
	$(LOCK) --group build --constraint $(LOCKS)/dev.txt --output-file $(LOCKS)/build.txt
	$(LOCK) --group tools --constraint $(LOCKS)/dev.txt --output-file $(LOCKS)/tools.txt

audit: licences $(TOOLS)/installed ## Check licences, and ask for known vulnerabilities of what is locked
	for lock in dev tools; do $(TOOLS)/bin/pip-audit --strict --progress-spinner off --disable-pip \
	  --require-hashes --requirement $(LOCKS)/$$lock.txt || exit; done

# The image passes on what is in base.txt. These licences would ask for more than the Apache licence does.
UNWANTED := GNU General Public License;GPL-2.0;GPL-3.0;AGPL;Affero;SSPL;UNKNOWN
LICENCES = $(TOOLS)/bin/pip-licenses --python $(BIN)/python --from=mixed

licences: install $(TOOLS)/installed ## List the licences of what is installed, and refuse unwanted ones in base.txt
	$(LICENCES) --output-file build/licences.txt
	@cat build/licences.txt
	@$(LICENCES) --partial-match --fail-on '$(UNWANTED)' \
	  --packages $$(sed -n 's/^\([a-z0-9.-]*\)==.*/\1/p' $(LOCKS)/base.txt) >/dev/null

sbom: $(TOOLS)/installed ## Write what is locked into build/sbom, in CycloneDX's form
	@mkdir -p build/sbom
	for lock in base dev; do $(TOOLS)/bin/cyclonedx-py requirements --output-reproducible \
	  --output-file build/sbom/$$lock.cdx.json $(LOCKS)/$$lock.txt || exit; done

$(TOOLS)/installed: $(LOCKS)/tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python $(PIP) install --require-hashes --no-deps --requirement $(LOCKS)/tools.txt
	@touch $@

# The package as it is installed: the mapped top-level folders inside mercuria/, which no checker sees otherwise.
.PHONY: $(TYPES)
$(TYPES):
	@rm -rf $(TYPES)
	@mkdir -p $(TYPES)/mercuria
	@ln -s $(CURDIR)/mercuria/* $(TYPES)/mercuria/
	@mkdir -p $(TYPES)/tests && ln -s $(CURDIR)/tests/harness $(TYPES)/tests/harness
	@for folder in $(MAPPED); do ln -s $(CURDIR)/$$folder $(TYPES)/mercuria/$$folder; done

clean: ## Remove what was built; the data directory stays
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
