# Every target makes its own virtual environment from the lock; nothing is installed globally.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

# Processes by the hundred start here: where this is set, each of them compiles every module anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test coverage lint bench bench-peers bench-check bench-ledger bench-verify bench-reweighting bench-best_arm \
    bench-regret bench-interleaving bench-shadows bench-micro_batching bench-coverage bench-sample_ratio bench-off_policy \
    bench-reports bench-rollouts bench-outcomes bench-allocations bench-growth bench-soak bench-workers bench-cost bench-shards \
    lock clean

# uv comes from the lock too, hash-checked by pip, and then installs the rest in seconds instead of minutes.
$(VENV)/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	awk '/^[a-z]/ {keep = /^uv==/} keep' requirements.lock > $(VENV)/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

# The whole loop on real flights; `make demo ONCE=1` ends after the result, FLIGHTS=1000 replays fewer.
demo: $(VENV)/ready
	$(BIN)/turnout demo $(if $(ONCE),--once) $(if $(FLIGHTS),--flights $(FLIGHTS))

test: lint
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 10

# The same tests and the lines that they reach; counting lines takes its time, so `test` does without.
coverage: $(VENV)/ready
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report term

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/ready
	$(BIN)/python -m bench.predict

# Other model servers, each in an environment of its own below var/bench/, which its first run makes.
bench-peers: $(VENV)/ready
	$(BIN)/python -m bench.peers

# Against bench/baseline.json; `$(BIN)/python -m bench.check --update` writes that anew.
bench-check: $(VENV)/ready
	$(BIN)/python -m bench.check

bench-ledger bench-verify bench-reweighting bench-best_arm bench-regret bench-interleaving bench-shadows bench-micro_batching \
    bench-coverage bench-sample_ratio bench-off_policy bench-reports bench-rollouts bench-outcomes bench-allocations bench-growth \
    bench-soak bench-workers bench-cost bench-shards: bench-%: $(VENV)/ready
	$(BIN)/python -m bench.$*

lock: $(VENV)/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes \
	    --no-strip-extras --no-emit-index-url --no-header --no-annotate pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) var .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
