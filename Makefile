# Commands on a machine with Python 3.11 and make. `make help` lists those that have a line after `##`.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
FAST := $(addprefix tests/,campaign deliver desk documentation encode fetch job manifest plan report storage \
	$(patsubst %,test_%.py,canonical families jobs layout logs named_formats outcomes recipe where))
READY := $(VENV)/.ready

.PHONY: help demo fast test test-all long bench chaos fuzz check lint types schema reference docs constraints clean

help: ## This list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

demo: $(READY) manifests/demo/part-00000.parquet ## Renders 25 rows with the tiny models, some two minutes.
	$(BIN)/sdbatch run jobs/demo.yaml
	$(BIN)/sdbatch deliver jobs/deliveries/demo.yaml

fast: $(READY) ## The tests that start no cluster, server or browser and render nothing, under two minutes.
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not (long or slow or ray or s3 or browser)' $(FAST)

# Two tests at a time, since many of them wait for something that was killed to be missed.
test: lint types ## Lint, types and the tests, under 20 minutes; what CI runs.
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST)

# What `make test` leaves out, such as tests that judge the shipped weights; some 6 minutes.
long: $(READY) ## The tests that `make test` leaves out.
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long

# Against what people would use instead, some 20 minutes; BENCH='--only speed' runs a part of it. Wants a quiet machine.
bench: $(READY) ## Measures against what people would use instead.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH)

# Kills everything that can be killed, everywhere; up to an hour, and goes on where it was stopped.
# CHAOS='--only kill/s3' runs a part of it, CHAOS=--list names the cases.
chaos: $(READY) ## Kills everything that can be killed, everywhere.
	$(BIN)/python tests/chaos/run_chaos.py $(CHAOS)

# Damaged pictures, clips and shards, and `sdbatch check` many times; some 20 minutes. FUZZ='pictures --share 0.1' runs a part.
fuzz: $(READY) ## Damages pictures, clips and shards.
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

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray,worker,s3,local,test]'
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

clean: ## Removes the environment and what the demo made.
	rm -rf $(VENV) out manifests/demo
