# The two commands: `make run` shows IODINE at work, `make test` checks it all.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# For the tests in a browser, which are skipped where it cannot be had.
INSTALL_CHROMIUM = \
  { command -v chromium && command -v chromedriver; } >/dev/null \
  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
    && echo "installing Chromium for the tests in a browser" \
    && apt-get -qq update >/dev/null \
    && DEBIAN_FRONTEND=noninteractive apt-get -qq install \
      --no-install-recommends chromium chromium-driver >/dev/null; } \
  || echo "no Chromium: the tests in a browser will be skipped"

.PHONY: run test test-slow lint format clean

# `make run CUDA=1` adds the libraries of NVIDIA's GPUs.
run: $(VENV)/.run-ready $(if $(filter-out 0,$(CUDA)),$(VENV)/.cuda-ready)
	$(BIN)/python main.py quickstart with quick

test: lint
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(VENV)/.test-ready
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.test-ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.test-ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.run-ready: requirements.txt requirements-shapeguard.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "error: $(PYTHON) is not a Python 3.10 to 3.13 (for 3.14 there is no TensorFlow yet): run make with PYTHON=python3.13" >&2; exit 1; }
	@echo "installing into $(VENV), which takes some minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt -c constraints.txt
	$(PIP) --no-deps -r requirements-shapeguard.txt
	@touch $@

$(VENV)/.cuda-ready: $(VENV)/.run-ready requirements-cuda.txt
	@echo "installing CUDA's libraries into $(VENV), some gigabytes"
	$(PIP) -r requirements-cuda.txt -c constraints.txt
	@touch $@

$(VENV)/.test-ready: $(VENV)/.run-ready requirements-dev.txt requirements-mongo.txt
	$(PIP) -r requirements-dev.txt -r requirements-mongo.txt -c constraints.txt
	@$(INSTALL_CHROMIUM)
	@touch $@
