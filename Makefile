PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup test demo bench bench-scale docs format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-11s %s\n' "$$name" "$$text"; done

setup: ## system packages, .venv with the package, and the tools that the tests run
	@scripts/setup
	@scripts/fetch-tools

test: setup ## all tests, the linters among them, with the coverage of the package
	$(PYTHON) -m pytest --cov --numprocesses=auto --maxprocesses=4 --dist=worksteal

demo: setup ## a disposable host with drift, its report and metrics (ends by itself with DEMO_SECONDS=5)
	@PYTHONPATH=tests $(PYTHON) -m host.demo

bench: setup ## what it costs with 1,000 VMs, and node_exporter's systemd collector there
	@PYTHONPATH=tests $(PYTHON) -m host.bench

bench-scale: setup ## how that grows from 1,000 to 5,000 VMs
	@PYTHONPATH=tests $(PYTHON) -m host.bench scale

docs: setup ## docs/metrics.md and the README's flags, from what the code declares
	$(PYTHON) scripts/docs.py

format: setup ## format the code and mend what the linter can
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

clean: ## remove all that setup and tests have made
	rm -rf .venv .tools dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find exporter tests -name __pycache__ -type d -prune -exec rm -rf {} +
