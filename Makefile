# Shorthands; the README has the same commands in full. `make run` and `make test` need nothing but Python 3.11 or later.
PIP := .venv/bin/pip install -q -c constraints.txt

.PHONY: run test lint viz mlflow

run: .venv
	$(PIP) -e ".[viz]"
	.venv/bin/kedro run

test: .venv
	$(PIP) -e ".[dev]"
	.venv/bin/pytest -n auto --dist loadfile

lint: .venv
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/pyright && .venv/bin/lint-imports

viz: .venv
	.venv/bin/kedro viz run

mlflow: .venv
	@echo "Open http://127.0.0.1:5000/#/experiments/1?workflowType=machine_learning"
	.venv/bin/mlflow ui --backend-store-uri sqlite:///mlflow.db

.venv:
	python3 -m venv .venv
