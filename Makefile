# Two commands set up everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
DEMO := out/demo
# Two installations in one environment: what a user needs, and for tests and docs everything else with torch.
RUNS := .venv/.runs
STAMP := .venv/.installed

.PHONY: demo test test-all mutants coverage lint bench docs dist audit lock clean

$(RUNS): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[report,app]'
	touch $@

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[learn,report,app,onnx,docs,dev]'
	touch $(RUNS) $@

# A programme's week on shipped messy sheets: a list, the sheet to tick, a page with pictures, the proof, the next week.
SHEETS := models/weekly_calls_sheets
demo: $(RUNS)
	rm -rf $(DEMO)
	$(BIN)/rmab-opt start $(SHEETS)/register.csv --log $(SHEETS)/call_log.csv --roster $(SHEETS)/roster.csv --out $(DEMO)/calls --yes
	$(BIN)/rmab-opt check $(DEMO)/calls --decision $(DEMO)/calls/weeks/week-17.json
	$(BIN)/rmab-opt next $(DEMO)/calls --outcomes $(SHEETS)/seen.csv --register $(SHEETS)/changes.csv
	$(BIN)/rmab-opt check $(DEMO)/calls --decision $(DEMO)/calls/weeks/week-18.json
	@echo
	@echo "the list to tick       $(DEMO)/calls/weeks/week-18.csv (certificate beside it: week-18.json)"
	@echo "a page with pictures   $(DEMO)/calls/weeks/week-18.html, $(DEMO)/calls/estimate.html"
	@echo "what was read how      $(DEMO)/calls/readings.csv, $(DEMO)/calls/columns.yaml"
	@echo "the same in a browser   $(BIN)/rmab-opt serve $(DEMO)/calls"
	@echo "to call it yourself    . .venv/bin/activate, then rmab-opt --help"

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not gpu" tests

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not gpu" tests

# The quick suite with the share of lines that it runs; the processes that tests start are counted too.
coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow and not gpu" --cov=rmab_opt --cov-report=term:skip-covered tests

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

# Wheel and sdist; checked by twine where one is at hand (`uv tool install twine` or `pipx install twine` brings one).
dist: $(STAMP)
	rm -rf out/dist
	$(BIN)/python -m build --outdir out/dist
	if command -v twine >/dev/null; then twine check --strict out/dist/*; else echo "not checked: no twine at hand"; fi

# Known faults of the installed versions, where a database of them is at hand (`uv tool install pip-audit`).
audit: $(STAMP)
	if command -v pip-audit >/dev/null; then pip-audit --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" --skip-editable; else echo "not checked: no pip-audit at hand"; fi

# The versions that the suite ran with, for every Python that is declared (needs uv).
lock: $(STAMP)
	$(BIN)/python scripts/lock.py

clean:
	rm -rf out .venv
