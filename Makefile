# Each command is complete on a machine that has only Python (3.11 or newer) and make: it makes or
# refreshes .venv from requirements.txt first.

PYTHONS := python3.14 python3.13 python3.12 python3.11
# The newest that works and can make an environment, which Debian's does only with python3-venv.
ifndef PYTHON
PYTHON := $(shell for python in $(PYTHONS); do \
	$$python -c 'import ensurepip, venv' 2>/dev/null && echo $$python && break; done)
endif
BIN := .venv/bin
LOCK := $(BIN)/uv pip compile --no-python-downloads --universal --python-version 3.11 --no-annotate --quiet
PYTEST := $(BIN)/pytest -n logical # workers side by side
ENV := .venv/complete
BOOK := _build/html/index.html
BOOK_SOURCES := $(wildcard benchmarks/*.json) $(shell find _config.yml _toc.yml book gmlib \
	notebooks results -type f \
	-not -path '*/__pycache__/*' -not -path '*/.*/*' 2>/dev/null)

.DELETE_ON_ERROR:
.PHONY: help book archive pdf test notebooks reproduce bench torture mutants lint lock clean

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

book: ## execute the notebooks, write _build/html/index.html; any warning fails
	@rm -f $(BOOK)
	@$(MAKE) --no-print-directory $(BOOK)

archive: ## the book as one file to read offline: _build/kumar-book.zip, with its checksum
	@$(MAKE) --no-print-directory $(BOOK)
	rm -rf _build/kumar-book _build/kumar-book.zip
	cp -r _build/html _build/kumar-book
	cd _build && ../$(BIN)/python -m zipfile -c kumar-book.zip kumar-book/
	rm -r _build/kumar-book
	cd _build && sha256sum kumar-book.zip > kumar-book.zip.sha256

pdf: ## the book for paper: _build/kumar-book.pdf, printed by Chromium
	@$(MAKE) --no-print-directory $(BOOK)
	$(BIN)/python book/print.py _build/html _build/kumar-book.pdf

test: lint ## everything that can be checked: code, notebooks, the built book in a browser
	@$(MAKE) --no-print-directory $(BOOK)
	$(PYTEST) --nbval tests notebooks

notebooks: $(ENV) ## execute the notebooks in place, as they are committed
	$(BIN)/python notebooks/execute.py

reproduce: $(ENV) ## every run of the note from scratch, compared with the committed ledger
	$(BIN)/python -m gmlib.study.runs.reproduce

bench: $(ENV) ## how fast it is, as ratios within one run; STUDY=1 adds the main study
	$(BIN)/python benchmarks $(if $(STUDY),--study)

torture: $(ENV) ## the tests that can try harder, for an hour or two; writes benchmarks/torture.json
	$(BIN)/pytest --torture=benchmarks/torture.json

mutants: $(ENV) ## change the code in small ways and see that tests fail, for an hour
	$(BIN)/python benchmarks/mutants.py

lint: $(ENV) ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

lock: $(ENV) ## resolve constraints.txt and requirements.txt anew, but torch and torchvision as pinned
	grep -E '^torch(vision)?==' constraints.txt > .venv/pins.txt
	grep '^#' constraints.txt > .venv/constraints.txt
	# A CUDA build of torch brings libraries of its own, at versions of its own.
	$(LOCK) pyproject.toml --all-extras --constraint .venv/pins.txt --no-header \
		| sed -E '/^(cuda|nvidia|triton)/d' >> .venv/constraints.txt
	# Which build of torch there is depends on the machine, and so does what else it needs.
	grep -vE '^torch(vision)?==' .venv/constraints.txt | $(LOCK) - --no-deps --generate-hashes \
		--custom-compile-command 'make lock' --output-file .venv/requirements.txt
	mv .venv/constraints.txt .venv/requirements.txt .
	@echo "environment.yml names versions too; test_environment.py says which are old now"

clean: ## remove what was built and cached, but not .venv
	rm -rf _build dist mutants .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# From nothing: a second build in place reads no page again, so its warnings would go unseen.
$(BOOK): $(ENV) $(BOOK_SOURCES)
	rm -rf _build
	$(BIN)/jupyter-book build book -n -W --keep-going

# Every file by its hash; then the package itself, built by what is there, and this machine's torch.
$(ENV): pyproject.toml constraints.txt requirements.txt
	@test -n '$(PYTHON)' || { echo 'no Python that can make an environment: wanted is one of' \
		'$(PYTHONS), with its venv module, or make PYTHON=...' >&2; exit 1; }
	@test "$$($(BIN)/python -V 2>&1)" = "$$($(PYTHON) -V)" || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --require-hashes --no-deps -r requirements.txt
	$(BIN)/pip install -c constraints.txt --no-build-isolation -e '.[study,cluster,book,test]'
	touch $@
