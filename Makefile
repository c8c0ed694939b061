PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup test demo bench docs format clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-8s %s\n' "$$name" "$$text"; done

setup: ## system packages, .venv with the package, and the tools that the tests run
	@scripts/setup
	@scripts/fetch-tools

test: setup ## all tests, the linters among them, with the coverage of the package
	$(PYTHON) -m pytest --cov --numprocesses=auto --maxprocesses=4 --dist=worksteal

demo: setup ## a disposable host with drift, its report and metrics (ends by itself with DEMO_SECONDS=5)
	@PYTHONPATH=tests $(PYTHON) -m host.demo

bench: setup ## refresh and scrape with 1,000 VMs, beside node_exporter's systemd collector
	@PYTHONPATH=tests $(PYTHON) -m host.bench

docs: setup ## docs/metrics.md and the README's flags, from what the code declares
	$(PYTHON) scripts/docs.py

format: setup ## format the code and mend what the linter can
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

clean: ## remove all that setup and tests have made
	rm -rf .venv .tools dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find exporter tests -name __pycache__ -type d -prune -exec rm -rf {} +
