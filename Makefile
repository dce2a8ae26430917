# Everything is made in .venv; nothing outside the checkout is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
export CONVKIT_CACHE := $(CURDIR)/$(VENV)/cache

.PHONY: demo test test-slow test-oldest search check docs wheel generate bench clean

# What is finished is not done again, and what was interrupted goes on; `rm -rf demo` begins anew. The commands can be
# typed by hand just as they are shown.
DEMO_MODEL := smolvlm:longest_edge=64,max_image_size=64,image_seq_len=4
DEMO_EVALUATE := $(BIN)/convkit evaluate --data_dir demo/easy-vqa --split val --batch_size 128 --max_new_tokens 8

demo: demo/ucf101/receipt.json demo/run/final ## convert generated clips and easy-VQA; train a small model from scratch on the CPU; its answers before and after, and a page of it
	$(DEMO_EVALUATE) --model demo/start --output_dir demo/before --metrics accuracy,majority
	$(DEMO_EVALUATE) --model demo/run/final/model --output_dir demo/after --metrics accuracy,majority,classes
	$(BIN)/convkit report demo/run --evaluation demo/before --evaluation demo/after

demo/run/final: demo/easy-vqa/receipt.json demo/start
	$(BIN)/convkit train --data_dir demo/easy-vqa --model demo/start --output_dir demo/run --resume auto \
		--num_train_epochs 1 --batch_size 32 --learning_rate 2e-3 --warmup_steps 100 --gradient_checkpointing none

demo/ucf101/receipt.json: | $(VENV)/demo
	$(BIN)/python tests/fixtures/make_clips.py demo/clips
	$(BIN)/convkit convert ucf101 --source demo/clips --out_dir demo/ucf101
	$(BIN)/convkit validate demo/ucf101

demo/easy-vqa/receipt.json: | $(VENV)/demo
	$(BIN)/convkit convert easy-vqa --one_question_per_row --out_dir demo/easy-vqa
	$(BIN)/convkit validate demo/easy-vqa --model $(DEMO_MODEL)

demo/start: | demo/easy-vqa/receipt.json
	$(BIN)/convkit init-vlm --tokenizer_corpus demo/easy-vqa --vision tiny --output_dir demo/start

test: $(VENV)/test ## the test suite; what takes long is in test-slow
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/test ## the rest of the suite: kills at every instant, several processes, large inputs
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

OLDEST := $(VENV)/oldest
test-oldest: pyproject.toml ## the tests that need no torch, with the oldest versions that pyproject.toml allows
	rm -rf $(OLDEST) && $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip --disable-pip-version-check -q install uv
	$(OLDEST)/bin/uv pip install -q --python $(OLDEST)/bin/python --resolution lowest-direct -e '.[oldest]'
	$(OLDEST)/bin/python -m pytest -n 2 -m "not slow" --ignore tests/train --ignore tests/benchmarks

search: $(VENV)/test ## the tests of drawn examples and of kills at drawn instants, drawn anew
	CONVKIT_TEST_SEED=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ') \
		$(BIN)/python -m pytest -n 2 -m "hypothesis or seeded" --hypothesis-profile=new

check: $(VENV)/dev $(VENV)/docs ## style, types, generated files, documentation site
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m scripts.generate --check
	$(MKDOCS)

MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q
MERMAID := mermaid@11.17.2
docs: $(VENV)/docs $(VENV)/mermaid.min.js ## build the documentation site in site/; dead links are errors
	$(MKDOCS)

$(VENV)/mermaid.min.js: # draws the figures in the browser; a local copy, so that the site needs no network
	mkdir -p $(VENV) && cd $(VENV) && npm pack --silent $(MERMAID)
	cd $(VENV) && tar -xzmf mermaid-*.tgz --strip-components=2 package/dist/mermaid.min.js && rm mermaid-*.tgz

wheel: $(VENV)/wheel ## build sdist and wheel into dist/, and try the wheel in an environment of its own
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	rm -rf $(VENV)/try && $(PYTHON) -m venv $(VENV)/try
	$(VENV)/try/bin/python -m pip --disable-pip-version-check -q install -c constraints.txt "$$(ls dist/*.whl)[easy-vqa]"
	cd $(VENV)/try && bin/convkit convert easy-vqa --out_dir data && bin/convkit validate data
	rm -rf $(VENV)/try

generate: $(VENV)/test ## write schemas/, docs/rules/, docs/cli.md and docs/mutations.md from the code
	$(BIN)/python -m scripts.generate

bench: $(VENV)/bench ## measure; see benchmarks/README.md
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e '.[$*]'
	touch $@
