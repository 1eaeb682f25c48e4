# Two commands set up everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
DEMO := out/demo
STAMP := .venv/.installed

.PHONY: demo test test-all mutants lint bench docs clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[learn,report,onnx,docs,dev]'
	touch $@

# The main job on the shipped cohort: check, decide, verify, train, evaluate; about two minutes.
demo: $(STAMP)
	rm -rf $(DEMO)
	$(BIN)/rmab-opt new weekly_calls $(DEMO)/model
	$(BIN)/rmab-opt check $(DEMO)/model
	$(BIN)/rmab-opt decide $(DEMO)/model --state $(DEMO)/model/monday.csv --out $(DEMO)/week.csv
	$(BIN)/rmab-opt decide $(DEMO)/model --state $(DEMO)/model/monday.csv --out $(DEMO)/week.json > /dev/null
	$(BIN)/rmab-opt check $(DEMO)/model --decision $(DEMO)/week.json
	$(BIN)/rmab-opt train $(DEMO)/model --out $(DEMO)/run --seed 0
	$(BIN)/rmab-opt evaluate $(DEMO)/model --policies $(DEMO)/run,myopic,random,none --episodes 10 --out $(DEMO)/table
	@echo
	@echo "this week's calls   $(DEMO)/week.csv (certificate: $(DEMO)/week.json)"
	@echo "training run        $(DEMO)/run (log.jsonl, weights.safetensors, learning.png)"
	@echo "comparison          $(DEMO)/table (evaluation.csv, evaluation.png)"

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow and not gpu" tests

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not gpu" tests

# Small breakages, each against the nearest tests; hours, and goes on where it was stopped.
mutants: $(STAMP)
	$(BIN)/python scripts/mutants.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Those with a quick form; the others run by themselves.
bench: $(STAMP)
	for file in $$(grep -l -e '"--quick"' benchmarks/*.py); do $(BIN)/python $$file --quick || exit 1; done

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir out/site

clean:
	rm -rf out .venv
