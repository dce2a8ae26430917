# Everything is made in .venv; nothing outside the checkout is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test check schemas bench clean

demo: $(VENV)/test ## convert and validate easy-VQA and a small set of generated clips
	rm -rf demo
	$(BIN)/convkit convert easy-vqa --out_dir demo/easy-vqa
	$(BIN)/python tests/fixtures/make_clips.py demo/clips
	$(BIN)/convkit convert ucf101 --source demo/clips --out_dir demo/ucf101
	$(BIN)/convkit validate demo/easy-vqa demo/ucf101

test: $(VENV)/test ## the whole test suite
	$(BIN)/python -m pytest -n 2

check: $(VENV)/dev ## style, types, generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m convkit.schemas --check
	$(BIN)/python -m convkit.rule_pages --check

schemas: $(VENV)/test ## write schemas/ from the pydantic models, and docs/rules/ from the rules
	$(BIN)/python -m convkit.schemas
	$(BIN)/python -m convkit.rule_pages

bench: $(VENV)/bench ## measure; see benchmarks/README.md
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e '.[$*]'
	touch $@
