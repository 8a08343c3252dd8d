# Two commands do everything, each by itself from a fresh clone: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint deploy/constraints.txt

.PHONY: demo test lint bench clean
.DELETE_ON_ERROR:

demo: .make/worker          ## the whole path: six films in, SEGs back
	$(BIN)/segmenter-worker demo

test: .make/test .make/tools  ## every test
	$(BIN)/python -m pytest --junit-xml=junit.xml

lint: .make/test
	$(BIN)/ruff check dicom_node segmenter train tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .make/test .make/tools
	$(BIN)/python bench/run.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...'; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo 'venv is missing: apt-get install python3-venv'; rm -rf $(VENV); exit 1; }

.make/worker: $(BIN)/python pyproject.toml deploy/constraints.txt
	@echo 'installing the worker into $(VENV) (torch is several GB, minutes)'
	$(PIP) --editable '.[worker]'
	@mkdir -p .make && touch $@

.make/test: $(BIN)/python pyproject.toml deploy/constraints.txt
	@echo 'installing worker, training and test tools into $(VENV) (torch is several GB, minutes)'
	$(PIP) --editable '.[worker,train,test]'
	@mkdir -p .make && touch .make/worker $@

# Not remembered in .make: a tool that was removed since must be missed here, not in the middle of the tests.
.PHONY: .make/tools
.make/tools:
	@sh deploy/install-test-tools.sh

clean:
	rm -rf $(VENV) .make demo-output junit.xml
