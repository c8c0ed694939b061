PYTHON := .venv/bin/python
# Much of a test is waiting: two cores are busy with three of them, and 4:10 instead of 5:27.
PYTEST_ARGUMENTS := --numprocesses=3 --dist=worksteal

.DEFAULT_GOAL := help
.PHONY: help setup test coverage demo alerts dashboards screenshots bench bench-scale bench-fleet docs format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-11s %s\n' "$$name" "$$text"; done

setup: ## system packages, .venv with the package, and the tools that the tests run
	@scripts/setup
	@scripts/fetch-tools

test: setup ## all tests, the linters among them
	$(PYTHON) -m pytest $(PYTEST_ARGUMENTS)

coverage: setup ## the same, and which lines of the package no test has run; takes longer
	$(PYTHON) -m pytest --cov $(PYTEST_ARGUMENTS)

demo: setup ## a disposable host with drift: report, alert, notification (ends by itself with DEMO_SECONDS=5)
	@PYTHONPATH=tests $(PYTHON) -m host.demo

alerts: setup ## alerts/microvm.rules.yml (settings: make alerts SETTINGS=FILE.json OUT=FILE.yml)
	@PYTHONPATH=alerts $(PYTHON) -m microvm_alerts $(if $(SETTINGS),--settings=$(SETTINGS)) $(if $(OUT),--output=$(OUT))

dashboards: setup ## dashboards/*.json, from the code beside them
	@PYTHONPATH=dashboards $(PYTHON) -m microvm_dashboards

screenshots: setup ## docs/dashboards/*.png: the dashboards, drawn on simulated hosts (needs npm and Chromium); DIR=… all states
	@PYTHONPATH=bench:dashboards:tests $(PYTHON) -m screenshots $(DIR)

bench: setup ## what it costs with 1,000 VMs, and node_exporter's systemd collector there
	@PYTHONPATH=tests $(PYTHON) -m host.bench

bench-scale: setup ## how that grows from 1,000 to 5,000 VMs
	@PYTHONPATH=tests $(PYTHON) -m host.bench scale

bench-fleet: setup ## what 1,000 hosts of 50 VMs cost Prometheus, with the rules
	@PYTHONPATH=bench:tests:dashboards $(PYTHON) -m microvm_simulator.scale

docs: setup ## docs/metrics.md and the README's flags, from what the code declares
	$(PYTHON) scripts/docs.py

format: setup ## format the code and mend what the linter can
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

clean: ## remove all that setup and tests have made
	rm -rf .venv .tools dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find alerts bench dashboards exporter tests -name __pycache__ -type d -prune -exec rm -rf {} +
