# make test: the environment, ruff, the tests, and their core again with the oldest and the newest Transformers.
# make demo: the environment, then what pruning costs and buys on the testbed's trained CLIP and LLaVA.

PYTHON ?= python3
VENV ?= .venv
OLDEST ?= .overlay-oldest
NEWEST ?= .overlay-newest
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
	PYTHONPATH=$(OLDEST) $(PYTEST) -m core
	@newest=$$($(PY) scripts/dev/newest_transformers.py $(NEWEST)) && if [ -n "$$newest" ]; then \
		echo "Transformers $$newest is newer than the pinned one" && export PYTHONPATH=$(NEWEST) && \
		$(PY) -c "import transformers as t; assert t.__version__ == '$$newest', t.__version__" && \
		$(PYTEST) -m core; fi

demo: $(VENV)/.made
	mkdir -p $(ARTIFACTS)
	rm -rf $(ARTIFACTS)/classes $(ARTIFACTS)/questions
	$(PY) scripts/testbed/make_data.py --out $(ARTIFACTS)/classes --num 300 --seed 3 --split test --task classes
	$(PY) scripts/testbed/make_data.py --out $(ARTIFACTS)/questions --num 200 --seed 3 --split test --task questions
	echo '{}' > $(ARTIFACTS)/prompt.txt
	$(PY) scripts/eval_clip.py --model tests/testbed/clip --data $(ARTIFACTS)/classes --prompts $(ARTIFACTS)/prompt.txt \
		--keep-ratio 0.5 0.25 --seeds 2 --json $(ARTIFACTS)/demo_clip.json --plot $(ARTIFACTS)/demo_clip.png
	$(PY) scripts/eval_vlm.py --model tests/testbed/llava --data $(ARTIFACTS)/questions --prompt '{image} {question}' \
		--metric exact_match --max-new-tokens 4 --keep-ratio 0.5 0.25 --seeds 2 --batch-size 50 \
		--predictions $(ARTIFACTS)/demo_llava.jsonl --json $(ARTIFACTS)/demo_llava.json --plot $(ARTIFACTS)/demo_llava.png
	@echo "the pictures are $(ARTIFACTS)/demo_clip.png and $(ARTIFACTS)/demo_llava.png, the rows beside them"

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
	rm -rf $(VENV) $(OLDEST) $(NEWEST) $(ARTIFACTS) build dist .pytest_cache .ruff_cache
