# Two commands on a bare checkout: `make demo` and `make test`. PYTHON chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
TOOLS := .venv/.tools-ready
FUZZ := .venv/.fuzz-ready

STRANGERS := .venv/.strangers-ready

BENCH := .venv/bench
MEASURED := .venv/measured
BENCH_STAMP := $(BENCH)/.ready

.PHONY: setup demo test nsqd chaos-fleet check format bench bench-short chaos chaos-short lock clean
.PHONY: simulate simulate-faults strangers
.PHONY: simulate-short reference words pictures docs packages single-file vendor test-browser python314

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("gpt4batch needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[nsq]' --group test --group strangers --group check
	touch $@

demo: $(STAMP)
	$(BIN)/gpt4batch batchsvc --mock -q 10 -g 8 -i example.jsonl -o demo/out.jsonl -d demo/downloads
	@echo
	@case "$${LC_ALL:-$${LC_MESSAGES:-$$LANG}}" in \
	zh*) echo "启用 gpt4batch 命令：. $(BIN)/activate"; \
	     echo "运行自己的批次：    gpt4batch check --mock -i 您的文件.jsonl";; \
	*)   echo "To have gpt4batch at hand: . $(BIN)/activate"; \
	     echo "A batch of your own:       gpt4batch check --mock -i YOUR.jsonl";; \
	esac

test: $(STAMP)
	$(BIN)/pytest -n 3 --dist worksteal

# The broker for tests/test_nsq.py; needs Go.
nsqd: .tools/bin/nsqd

.tools/bin/nsqd: tests/broker/go.mod tests/broker/go.sum
	cd tests/broker && GOBIN=$(CURDIR)/.tools/bin go install tool

# 5,000 lines on a fleet in which everything is killed again and again; minutes.
chaos-fleet: $(STAMP) nsqd
	GPT4BATCH_REQUIRE_NSQ=1 $(BIN)/pytest -m chaos -s tests/test_fleet.py tests/test_fleet_hosts.py

# The viewer in a real Chromium, which the system must have.
test-browser: $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --group browser
	GPT4BATCH_REQUIRE_BROWSER=1 $(BIN)/pytest tests/test_view_browser.py

# Clients and services that nobody here wrote. litellm wants other versions than the tool, so it gets
# an environment of its own; aimock comes from npm, where there is one.
strangers: $(STRANGERS)
	GPT4BATCH_REQUIRE_STRANGERS=1 $(BIN)/pytest -k "litellm or aimock" tests/test_strangers.py tests/test_strange_services.py

$(STRANGERS): $(STAMP) tests/strangers/litellm.txt tests/strangers/package-lock.json
	$(PYTHON) -m venv .venv/litellm
	.venv/litellm/bin/pip install --quiet --constraint constraints.txt --upgrade pip
	.venv/litellm/bin/pip install --quiet --constraint tests/strangers/litellm.txt --group litellm
	if command -v npm >/dev/null; then \
		mkdir -p .venv/aimock && cp tests/strangers/package*.json .venv/aimock && \
		cd .venv/aimock && npm ci --silent --ignore-scripts --no-fund --no-audit; fi
	touch $@

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The peers live in a virtual environment of their own: nothing else needs them. What is measured
# lives in one without them: click, which they bring, makes httpx load its own command line.
$(BENCH_STAMP): $(STAMP)
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --constraint constraints.txt --upgrade pip
	$(BENCH)/bin/pip install --quiet --constraint constraints.txt --editable ".[nsq]" --group bench
	$(PYTHON) -m venv $(MEASURED)
	$(MEASURED)/bin/pip install --quiet --constraint constraints.txt --editable '.[nsq]'
	touch $@

bench: $(BENCH_STAMP)
	$(BENCH)/bin/python -m benchmarks --program $(MEASURED)/bin/gpt4batch

bench-short: $(STAMP)
	$(BIN)/python -m benchmarks --short

# What only the site, the pictures and the packages need; the suite does without.
$(TOOLS): $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --group docs --group package
	touch $@

# The flags' tables in both READMEs and in docs/, and the map of the modules, made from the code.
reference: $(STAMP)
	$(BIN)/python scripts/reference.py
	$(BIN)/python scripts/module_map.py

# The messages of the code into the catalogues, and these compiled; names what is to be translated.
words: $(STAMP)
	$(BIN)/python scripts/words.py

# The pictures in docs/pictures, taken of the tool at work.
pictures: $(TOOLS)
	$(BIN)/python scripts/pictures.py

# The documentation site, in site/.
docs: $(TOOLS)
	$(BIN)/python scripts/reference.py --check
	$(BIN)/python scripts/website.py

# Wheel, sdist and single file, in dist/; each is installed in a clean place and tried.
packages: single-file
	rm -f dist/*.whl dist/*.tar.gz
	$(BIN)/python -m build --quiet
	$(BIN)/pytest -m package

# One file that needs nothing but a Python of this version and system.
single-file: $(TOOLS)
	$(BIN)/pex '.[nsq,tables]' --constraints constraints.txt --console-script gpt4batch --venv \
		--python-shebang '/usr/bin/env python3' --output-file dist/gpt4batch.pyz

# The fuzzer, where it runs.
$(FUZZ): $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --only-binary atheris --group fuzz \
		|| echo 'no atheris for this Python: the fuzzer is left out'
	touch $@

# The fault campaign: SEED=7 repeats a run. It writes docs/faults.md when every promise held.
chaos: $(FUZZ)
	$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) --write docs/faults.md

chaos-short: $(FUZZ)
	$(BIN)/python -m chaos --short $(if $(SEED),--seed $(SEED))

# Whole runs in virtual time, 2,000 histories: HISTORIES=100000 plays more, FIRST=2000 others, FLEET=1
# those of a fleet; RECORD=1 adds what they came to to docs/faults.md.
simulate: $(STAMP)
	$(BIN)/python -m simulation --histories $(or $(HISTORIES),2000) --first $(or $(FIRST),0) \
		$(if $(FLEET),--fleet) $(if $(RECORD),--record)

# Faults that are put in by hand, each of which has to be found; MOST histories for each.
simulate-faults: $(STAMP)
	PYTHONHASHSEED=0 $(BIN)/python -m simulation.mutations --most $(or $(MOST),2000)

# The demo and the quick tests with Python 3.14, in a root of its own where one can be made.
python314:
	scripts/python314.sh

# A part of both, for the gate.
simulate-short: $(STAMP)
	PYTHONHASHSEED=0 $(BIN)/python -m simulation --histories 2000
	PYTHONHASHSEED=0 $(BIN)/python -m simulation --fleet --histories 200
	PYTHONHASHSEED=0 $(BIN)/python -m simulation.mutations --most 30 "an fsync left out" \
		"a slot given twice" "a call beyond the budget" "lines out of order" "an exit code of success" \
		"fleet: a moved call that is forgotten"

# The versions that are tested: what pip chose today, written down.
lock: $(TOOLS) $(FUZZ)
	$(BIN)/pip install --quiet --constraint constraints.txt --group browser
	$(BIN)/pip freeze --all --exclude-editable --exclude setuptools > constraints.txt

# The third-party files of the viewer's page, fetched again from npm; UPDATE=1 takes new sums.
vendor:
	$(PYTHON) scripts/vendor.py $(if $(UPDATE),--update)

clean:
	rm -rf .venv dist build site demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
