# make test: the environment, ruff, the tests, and those that touch models again with the oldest Transformers.
# make demo: the environment, then the benchmark on real photographs.

PYTHON ?= python3
VENV ?= .venv
OLDEST ?= .overlay-oldest
ARTIFACTS ?= artifacts
WORKERS ?= 2

OLDEST_VERSION := $(shell sed -n 's/^transformers==//p' constraints-oldest.txt)

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
PYTEST := $(PY) -m pytest -q -n $(WORKERS) --dist worksteal

export HF_HUB_OFFLINE ?= 1

.PHONY: test demo lint format readme cards pictures clean

$(VENV)/.made: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt hatchling editables
	$(PIP) install -q -c constraints.txt --no-build-isolation -e '.[bench]'
	touch $@

$(VENV)/.made-for-tests: $(VENV)/.made
	$(PIP) install -q -c constraints.txt --no-build-isolation -e '.[test]'
	touch $@

$(OLDEST)/.made: constraints-oldest.txt $(VENV)/.made-for-tests
	rm -rf $(OLDEST)
	$(PIP) install -q --no-deps --target $(OLDEST) -r constraints-oldest.txt
	touch $@

test: lint $(OLDEST)/.made
	$(PYTEST)
	PYTHONPATH=$(OLDEST) $(PY) -c "import transformers as t; assert t.__version__ == '$(OLDEST_VERSION)', t.__version__"
	PYTHONPATH=$(OLDEST) $(PYTEST) -m models

demo: $(VENV)/.made
	mkdir -p $(ARTIFACTS)
	$(PY) scripts/bench_clip.py --weights random --method vtp qk_topk --keep-ratio 0.7 0.5 0.3 --layer 0 \
		--batch-size 4 --rounds 5 --json $(ARTIFACTS)/bench_clip.json --plot $(ARTIFACTS)/bench_clip.png
	@echo "the picture is in $(ARTIFACTS)/bench_clip.png, the rows in $(ARTIFACTS)/bench_clip.json"

lint: $(VENV)/.made-for-tests
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(VENV)/.made-for-tests
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

readme: $(VENV)/.made
	$(PY) scripts/update_readme.py

cards: $(VENV)/.made
	$(PY) scripts/make_model_card.py

pictures: $(VENV)/.made-for-tests
	$(PY) scripts/make_pictures.py
	$(PY) -m pytest -q tests/test_demo_browser.py
	@if [ -f $(ARTIFACTS)/demo/a_visit.png ]; then $(PY) scripts/make_pictures.py --screenshot $(ARTIFACTS)/demo/a_visit.png; fi
	$(PY) scripts/update_readme.py

clean:
	rm -rf $(VENV) $(OLDEST) $(ARTIFACTS) build dist .pytest_cache .ruff_cache
