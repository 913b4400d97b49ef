# Commands on a machine with Python 3.11 and make. `make help` lists those that have a line after `##`.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
FAST := $(addprefix tests/,campaign deliver desk documentation encode fetch job manifest plan report storage \
	$(patsubst %,test_%.py,canonical families jobs layout logs named_formats outcomes recipe where))
READY := $(VENV)/.ready

RAY_RANGE ?= 2.52.0 2.60.0
PYTHONS ?= python3.12 python3.13
HASHES := constraints-hashes.txt

# Of the core's tests those that need none of torch, peft and torchao.
CORE := $(addprefix tests/,deliver desk encode job manifest plan report \
	$(patsubst %,test_%.py,canonical logs named_formats outcomes recipe where)) --ignore tests/plan/test_texts.py \
	--deselect tests/encode/test_watermark.py::test_a_run_marks_its_pictures_when_it_is_allowed_to \
	--deselect tests/plan/test_checks.py::test_loras_are_keyed_by_content_whatever_their_order \
	--deselect tests/plan/test_checks.py::test_rows_with_other_loras_share_no_batch

# The tests start some hundreds of processes of the command: what one has compiled, the others read.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help environment demo fast test tests test-all long coverage ray-range python-range bench chaos fuzz check lint types \
	schema reference docs constraints hashes clean

help: ## This list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

environment: $(READY) ## Only the environment that the other targets need.

demo: $(READY) manifests/demo/part-00000.parquet ## Renders 25 rows with the tiny models, some two minutes.
	$(BIN)/sdbatch run jobs/demo.yaml
	$(BIN)/sdbatch deliver jobs/deliveries/demo.yaml

fast: $(READY) ## The tests that start no cluster, server or browser and render nothing, under two minutes.
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not (long or slow or ray or s3 or browser)' $(FAST)

# Types are checked beside the tests, which wait half of their time.
test: lint ## Lint, types and the tests, under 20 minutes; what CI runs.
	$(MAKE) --no-print-directory -j 2 types tests

# Two tests at a time, since many of them wait for something that was killed to be missed.
tests: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST)

# PYTEST=tests/plan measures what one folder's tests reach.
coverage: $(READY) ## Runs the tests and prints which lines of the package they reach.
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov=sdbatch --cov-report=term:skip-covered $(PYTEST)
	@$(BIN)/python -m coverage report --format=total | sed 's/^/coverage of the package, in percent: /'

# Each Ray in an environment of its own, which borrows everything else from this one.
ray-range: $(READY) manifests/demo/part-00000.parquet ## Runs what starts a cluster on the oldest and on the newest Ray that are tried.
	for version in $(RAY_RANGE); do \
		$(BIN)/python tests/support/other_ray.py $$version $(VENV)-ray-$$version && \
		$(VENV)-ray-$$version/bin/python -m pytest tests/dispatch tests/test_cluster.py $(PYTEST) && \
		$(VENV)-ray-$$version/bin/python -m sdbatch run jobs/demo.yaml --set output=out/demo-ray-$$version || exit 1; \
	done

python-range: $(READY) ## Runs the tests of the core on other Pythons, without torch and Ray.
	for python in $(PYTHONS); do \
		$$python -m venv $(VENV)-$$python && \
		$(VENV)-$$python/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[core-test]' && \
		$(VENV)-$$python/bin/python -m pytest -m 'not (long or slow or ray or s3 or browser)' $(CORE) || exit 1; \
	done

# What `make test` leaves out, such as tests that judge the shipped weights; some 10 minutes.
long: $(READY) ## The tests that `make test` leaves out.
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long

# Against what people would use instead, over an hour; BENCH='--only speed' runs a part of it. Wants a quiet machine.
bench: $(READY) ## Measures against what people would use instead.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH)

# Kills everything that can be killed, everywhere; up to an hour, and goes on where it was stopped.
# CHAOS='--only kill/s3' runs a part of it, CHAOS=--list names the cases.
chaos: $(READY) ## Kills everything that can be killed, everywhere.
	$(BIN)/python tests/chaos/run_chaos.py $(CHAOS)

# Damaged pictures, clips and shards, `sdbatch check` many times, and rows of chance beside plain diffusers; some 20 minutes. FUZZ='pictures --share 0.1' runs a part.
fuzz: $(READY) ## Damages files, and compares rows of chance with plain diffusers.
	$(BIN)/python tests/fuzz/run_fuzz.py $(FUZZ)

check: lint types ## Lint and types.

test-all: test long ## Every test.

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# The demo's manifest and its sources are built, not kept: edit manifests/demo.csv and run `make demo` again.
manifests/demo/part-00000.parquet: manifests/demo.csv manifests/draw_demo.py $(READY)
	$(BIN)/python -m manifests.draw_demo manifests/demo/images
	$(BIN)/sdbatch manifest build manifests/demo.csv --to manifests/demo

# pip compiles with one core, compileall with all; it fails on what was never meant to be imported, which does not matter.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[ray,worker,s3,local,test]'
	$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || true
	touch $(READY)

schema: $(READY) ## Writes the JSON Schemas of the files that people write.
	$(BIN)/python -c 'import json; from sdbatch.job import job_schema; print(json.dumps(job_schema(), indent=1))' \
		> jobs/job.schema.json
	$(BIN)/python -c 'import json; from sdbatch.deliver.settings import delivery_schema; \
		print(json.dumps(delivery_schema(), indent=1))' > jobs/delivery.schema.json
	$(BIN)/python -c 'import json; from sdbatch.desk.form import brief_schema; \
		print(json.dumps(brief_schema(), indent=1))' > jobs/brief.schema.json

reference: schema ## Writes the tables of docs/ that are made from the code.
	$(BIN)/python -m docs.generator

docs: $(READY) ## Builds the documentation into out/docs, strictly, and runs its commands.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(BIN)/python -m pytest -m 'long or not long' tests/documentation

constraints: $(READY) ## Writes the newest versions of all packages into constraints.txt.
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[ray,worker,s3,local,test,bench,docs]'
	(head -1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//') > constraints.new
	mv constraints.new constraints.txt

# torch is not among them: its wheel is another one on each index (CPU, builds for CUDA) and so has other digests.
hashes: $(READY) ## Writes the digests of what constraints.txt names, for Python 3.11 on Linux x86_64.
	grep -v '^#\|^torch==' constraints.txt > constraints.new
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --no-deps --report report.new -r constraints.new
	$(BIN)/python tests/support/hashes.py report.new > $(HASHES)
	rm constraints.new report.new

clean: ## Removes the environment and what the demo made.
	rm -rf $(VENV) $(VENV)-* out manifests/demo
