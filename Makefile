# `make run` and `make test` install what is missing first (deploy/setup.sh), quickly when nothing is.
.DEFAULT_GOAL := help
.PHONY: help setup setup-test run test soak lint bench fuzz proto docs clean

# What the caller's shell says about Python must not reach ours.
unexport PYTHONPATH PYTHONHOME PYTEST_ADDOPTS PYTEST_PLUGINS VIRTUAL_ENV

BIN := .venv/bin
JOBS ?= 2

# pytest ends with 5 when a selection holds no test; that is no failure.
pytest = $(BIN)/pytest $(1) $(ARGS) || [ $$? -eq 5 ]

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | \
		while IFS="$$(printf '\t')" read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  ARGS="..." is passed on by run, test, bench and fuzz. PYTHON=/path/to/python chooses another Python (3.11 to 3.13).'

setup: ## install what `make run` needs
	@deploy/setup.sh run

setup-test: ## install what the tests, the linters and the benchmarks need
	@deploy/setup.sh test

run: setup ## trace this machine and show events as they happen, until Ctrl-C
	@exec $(BIN)/infrasight up $(ARGS)

test: setup-test lint ## check and test everything
	@$(call pytest,-m "not serial and not soak" -n $(JOBS))
	@$(call pytest,-m "serial and not soak")

soak: setup-test ## run the tests that take minutes, and tell what they measured
	@$(call pytest,-m soak -o log_cli=true -o log_cli_level=INFO)

lint: setup-test ## ruff, mypy and the rules between rooms
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup-test ## measure, next to the peers
	@exec $(BIN)/python -m tests.bench $(ARGS)

proto: setup-test ## derive events.proto from the declarations and regenerate the wire code
	@$(BIN)/python -m infrasight.wire.generate

fuzz: setup-test ## fuzz what reads bytes of strangers, guided by coverage (ARGS="--minutes 10")
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/pip install -q -e '.[fuzz]'
	@exec $(BIN)/python -m tests.fuzz $(ARGS)

docs: setup-test ## regenerate docs/EVENTS.md and the tables of docs/CLI.md from the declarations
	@$(BIN)/python -m infrasight.schema.reference docs/EVENTS.md
	@$(BIN)/python -m infrasight.cli.reference docs/CLI.md

clean: ## remove what make and the tools have made
	@rm -rf .venv .venv.lock .venv.log build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
