# make train  trains on digit scenes and scores the result; make test  runs the tests.
# make detect  trains a small network and a detector of digits, and scores it.
# make bench  times what there is to time beside its peers, in ten minutes, alone on the machine.
# make gpu-check  checks and times everything on a GPU, in eight minutes; no network is needed.
# make readme-check  runs the commands of README.md and docs/*.md, shortened, in a fresh clone.
# make faults  tries to break training, features and detection for an hour or two, alone on the
# machine: kills, signals, disks that fail, damaged files; it prints a scoreboard.
# make gpu-programs  compiles the programs for GPUs that are not there, and counts what they move;
# it installs JAX for GPUs in .venv-gpu, about 6 GB, and takes an hour.
# All set up .venv first when it is missing, gpu-check only where python3 has no JAX that reaches a
# GPU; PYTHON_GPU names another Python for it. VENV, PYTHON and WORKDIR can be given; SMOKE=1 makes
# train and detect stop after a few steps.

VENV ?= .venv
PYTHON ?= $(shell tools/find_python.sh)
WORKDIR ?= runs/digits_multisize
DETECTDIR ?= runs/digits_detection
BENCHDIR ?= runs/bench
FAULTSDIR ?= runs/faults
GPUDIR ?= runs/gpu_check
PYTHON_GPU ?=
REACHES_GPU := import jax, sys; sys.exit(jax.default_backend() != 'gpu')
RUN := $(VENV)/bin/python
GPU_RUN := .venv-gpu/bin/python
GPU_PROGRAMS ?= runs/gpu_programs.json
TRAIN_FLAGS := $(if $(SMOKE),--config.run.smoke=True)
COMMA := ,
DETECT_FLAGS := $(if $(SMOKE),--config.finetune.num_steps=4 --config.finetune.drop_steps="()" \
    --config.data.split="train[:16]" --config.data.eval_split="test[:8]" \
    --config.features.num_canvases=1 --config.features.scales="(128$(COMMA))")
REQUIREMENTS := $(if $(shell nvidia-smi -L 2>/dev/null),requirements-cuda.txt,requirements.txt)

.PHONY: setup train detect bench gpu-check gpu-programs faults test test-all check readme-check wheel-check lint format clean

setup: $(VENV)/ready

$(VENV)/ready: requirements.txt requirements-cuda.txt requirements-dev.txt
	@test -n "$(PYTHON)"
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS) -r requirements-dev.txt
	@touch $@

train: setup
	$(RUN) train.py --config=configs/digits_multisize.py --workdir=$(WORKDIR) $(TRAIN_FLAGS)
	$(RUN) eval.py --workdir=$(WORKDIR) --protocol=full

detect: setup
	$(RUN) train.py --config=configs/digits_multisize.py --workdir=$(DETECTDIR)/network \
	    --config.train.num_epochs=12 --config.train.drop_epochs="(6, 8, 10, 11)" $(TRAIN_FLAGS)
	$(RUN) detect.py train --config=configs/digits_detection.py --workdir=$(DETECTDIR) \
	    --config.checkpoint=$(DETECTDIR)/network $(DETECT_FLAGS)

# IMAGES=FOLDER of photographs, if there is one; torch, if it is installed, is timed beside us.
bench: setup
	$(RUN) -m benchmarks --output=$(BENCHDIR) --images=$(IMAGES)

gpu-check:
	@if [ -n "$(PYTHON_GPU)" ]; then python="$(PYTHON_GPU)"; \
	elif python3 -c "$(REACHES_GPU)" 2>/dev/null; then python=python3; \
	else $(MAKE) setup && python="$(RUN)"; fi && \
	"$$python" -m benchmarks.gpu_check --output="$(GPUDIR)"

faults: setup
	$(RUN) -m tests.faults --output=$(FAULTSDIR)

gpu-programs: .venv-gpu/ready
	$(GPU_RUN) -m benchmarks.gpu_programs --output=$(GPU_PROGRAMS)

.venv-gpu/ready: requirements.txt requirements-cuda.txt
	@test -n "$(PYTHON)"
	test -x $(GPU_RUN) || $(PYTHON) -m venv .venv-gpu
	$(GPU_RUN) -m pip install --quiet --disable-pip-version-check -r requirements-cuda.txt
	@touch $@

# Two processes, a file of tests each: much of a test is waiting for one core.
test: setup
	$(RUN) -m pytest -m "not slow" -n 2 --dist loadfile

# The second line: everything that computes, once more in JAX's 64-bit mode.
test-all: setup
	$(RUN) -m pytest -n 2 --dist loadfile
	JAX_ENABLE_X64=1 $(RUN) -m pytest -m "not slow" -n 2 --dist loadfile tests/pooling tests/models \
	    tests/evaluation tests/detection tests/training/test_steps.py tests/training/test_transfer.py

check: lint test wheel-check

readme-check: setup
	$(RUN) -m tools.readme_check

# Installs the wheel in an empty environment outside the checkout, and trains there.
wheel-check: setup
	$(RUN) -m tools.wheel_check

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(RUN)

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build *.egg-info
