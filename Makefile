# Two commands do everything, each by itself from a fresh clone: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OHIF := 3.13.2
KEEP_DCMTK := sh deploy/keep-dcmtk.sh $(BIN)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint deploy/constraints.txt

.PHONY: demo test lint bench bench-gpu chaos soak fuzz matrix viewer train-quick clean
.DELETE_ON_ERROR:

demo: .make/worker-cpu      ## the whole path: six films in, SEGs back
	$(BIN)/segmenter-worker demo

# Three files at a time, one thread each: much of the time is waiting. The long ones first (tests/conftest.py).
test: .make/test .make/tools .make/viewer/installed-$(OHIF)  ## every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --junit-xml=junit.xml

lint: .make/test
	$(BIN)/ruff check dicom_node segmenter train tests bench .ci
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/check_links.py

# Phantoms -> data set -> quick training -> thresholds -> artifact -> figures -> the demo with that artifact (minutes).
QUICK := runs/quick
TRAIN := $(BIN)/python -m train
train-quick: .make/train
	$(TRAIN) phantoms --out $(QUICK)/raw --count 240 --longer-px 512
	$(TRAIN) prepare $(QUICK)/raw --out $(QUICK)/data --sizes 128
	$(TRAIN) fit --recipe quick --data $(QUICK)/data --run $(QUICK)/run --resume
	$(TRAIN) calibrate --data $(QUICK)/data --run $(QUICK)/run --out $(QUICK)/calibration
	$(TRAIN) export --data $(QUICK)/data --run $(QUICK)/run --calibration $(QUICK)/calibration --out $(QUICK)/model --name quick
	$(TRAIN) evaluate --artifact $(QUICK)/model --films 20 --out $(QUICK)/exam --record
	$(BIN)/segmenter-worker demo --model $(QUICK)/model --out $(QUICK)/demo

bench: .make/bench .make/tools
	$(BIN)/python bench/run.py

# On a machine with a CUDA GPU (and a C++ compiler): the rows that need one, into bench/gpu.json.
bench-gpu: .make/train
	$(BIN)/python bench/gpu.py

# 200 random kills while films flow (some ten minutes); CHAOS="--seed 7 --kills 500 --redis" for another night.
chaos: .make/test .make/tools
	$(BIN)/python bench/chaos.py $(CHAOS)

# Half an hour of steady flow; SOAK="--minutes 120" for longer.
soak: .make/test .make/tools
	$(BIN)/python bench/soak.py $(SOAK)

# 5,000 broken conversations, 1,000 broken answers of a PACS and 5,000 broken films: some 11 minutes of CPU time, shared by three
# processes. bench/fuzz.json holds the last run, and how many seconds it took.
fuzz: .make/test
	$(BIN)/python tests/support/fuzz.py --seed 7 --pdus 5000 --answers 1000 --objects 5000 --out bench/fuzz.json

# What a radiologist sees, in OHIF and a headless Chromium (minutes); OHIF=3.11.1 for another version of deploy/viewer.sha512.
viewer: .make/test .make/tools .make/viewer/installed-$(OHIF)
	$(BIN)/python tests/support/viewer.py --ohif $(OHIF) --out bench/viewer.json --pictures .make/viewer/pictures-$(OHIF)

# Every kind of film through every checker: 7,488 films (two hours on two idle cores); MATRIX="--part 1/29" takes each 29th.
# bench/matrix.json holds the last run.
matrix: .make/test .make/tools
	$(BIN)/python tests/support/matrix.py --out bench/matrix.json $(MATRIX)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...'; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo 'venv is missing: apt-get install python3-venv'; rm -rf $(VENV); exit 1; }

.make/worker-cpu: $(BIN)/python pyproject.toml deploy/constraints.txt deploy/keep-dcmtk.sh
	@echo 'installing the worker for CPUs into $(VENV)'
	$(PIP) --editable '.[worker-cpu]'
	@$(KEEP_DCMTK)
	@mkdir -p .make && touch $@

.make/train: $(BIN)/python pyproject.toml deploy/constraints.txt deploy/keep-dcmtk.sh
	@echo 'installing worker and training tools into $(VENV) (torch is several GB, minutes)'
	$(PIP) --editable '.[worker,train]'
	@$(KEEP_DCMTK)
	@mkdir -p .make && touch .make/worker-cpu $@

.make/test: $(BIN)/python pyproject.toml deploy/constraints.txt deploy/keep-dcmtk.sh
	@echo 'installing worker, training and test tools into $(VENV) (torch is several GB, minutes)'
	$(PIP) --editable '.[worker,train,test]'
	@$(KEEP_DCMTK)
	@mkdir -p .make && touch .make/worker-cpu .make/train $@

.make/bench: .make/test
	$(PIP) --editable '.[bench]'
	@$(KEEP_DCMTK)
	@touch $@

# Not remembered in .make: a tool that was removed since must be missed here, not in the middle of the tests.
.PHONY: .make/tools
.make/tools:
	@sh deploy/install-test-tools.sh

.make/viewer/installed-%: deploy/install-viewer.sh deploy/viewer.sha512 | .make/tools
	@sh deploy/install-viewer.sh $*

clean:
	rm -rf $(VENV) .make demo-output runs/quick junit.xml
