# make demo: see it work.  make test: what every change must pass.  Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo/out

.PHONY: demo test quick lint clean

demo: $(VENV)/.demo
	rm -rf $(DEMO)
	$(BIN)/python demo/make_pairs.py $(DEMO)/source
	$(BIN)/hqsod check $(DEMO)/source
	$(BIN)/hqsod build $(DEMO)/source $(DEMO)/built --recipe preview
	$(BIN)/hqsod predict $(DEMO)/source/images --out $(DEMO)/maps --cutout
	$(BIN)/python demo/show.py $(DEMO)/source $(DEMO)/built $(DEMO)/maps $(DEMO)/demo.jpg
	@echo "Look at $(DEMO)/demo.jpg and $(DEMO)/built/contact-sheet.jpg, then read $(DEMO)/built/README.md"

test: lint $(VENV)/.browser
	$(BIN)/pytest -n 2 --dist worksteal

quick: $(VENV)/.test
	$(BIN)/pytest -n 2 -m "not slow" -q

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . scikit-image
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# The browser tests skip, with this as their reason, where Debian's Chromium cannot be had.
$(VENV)/.browser: $(VENV)/.test
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium >/dev/null; } \
	  || echo "no Chromium: the browser tests will be skipped"
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) demo/tour dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
