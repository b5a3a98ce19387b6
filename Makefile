# Two commands on a bare checkout: `make demo` and `make test`. PYTHON chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

BENCH := .venv/bench
BENCH_STAMP := $(BENCH)/.ready

.PHONY: setup demo test nsqd check format bench bench-short chaos chaos-short lock clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("gpt4batch needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[nsq]' --group test --group check
	touch $@

demo: $(STAMP)
	$(BIN)/gpt4batch batchsvc --mock -q 10 -g 8 -i example.jsonl -o demo/out.jsonl -d demo/downloads

test: $(STAMP)
	$(BIN)/pytest

# The broker for tests/test_nsq.py; needs Go.
nsqd: .tools/bin/nsqd

.tools/bin/nsqd: tests/broker/go.mod tests/broker/go.sum
	cd tests/broker && GOBIN=$(CURDIR)/.tools/bin go install tool

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The peers live in a virtual environment of their own: nothing else needs them.
$(BENCH_STAMP): $(STAMP)
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --constraint constraints.txt --upgrade pip
	$(BENCH)/bin/pip install --quiet --constraint constraints.txt --editable . --group bench
	touch $@

bench: $(BENCH_STAMP)
	$(BENCH)/bin/python -m benchmarks

bench-short: $(STAMP)
	$(BIN)/python -m benchmarks --short

# The fault campaign: SEED=7 repeats a run. It writes docs/faults.md when every promise held.
chaos: $(STAMP)
	$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) --write docs/faults.md

chaos-short: $(STAMP)
	$(BIN)/python -m chaos --short $(if $(SEED),--seed $(SEED))

# The versions that are tested: what pip chose today, written down.
lock: $(STAMP)
	$(BIN)/pip freeze --all --exclude-editable --exclude setuptools > constraints.txt

clean:
	rm -rf .venv dist build site demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
