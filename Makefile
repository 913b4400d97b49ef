# Commands on a machine with Python 3.11 and make: `make demo`, `make test`, and four long ones, `make long`,
# `make bench`, `make chaos` and `make fuzz`.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test long bench chaos fuzz check lint types schema families columns constraints clean

demo: $(READY) manifests/demo/part-00000.parquet
	$(BIN)/sdbatch run jobs/demo.yaml

# Two tests at a time, since many of them wait for something that was killed to be missed.
test: lint types
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST)

# What `make test` leaves out, such as tests that judge the shipped weights; some 6 minutes.
long: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long

# Against what people would use instead, some 20 minutes; BENCH='--only speed' runs a part of it. Wants a quiet machine.
bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH)

# Kills everything that can be killed, everywhere; up to an hour, and goes on where it was stopped.
# CHAOS='--only kill/s3' runs a part of it, CHAOS=--list names the cases.
chaos: $(READY)
	$(BIN)/python tests/chaos/run_chaos.py $(CHAOS)

# Damaged pictures, clips and shards, and `sdbatch check` many times; some 20 minutes. FUZZ='pictures --share 0.1' runs a part.
fuzz: $(READY)
	$(BIN)/python tests/fuzz/run_fuzz.py $(FUZZ)

check: lint types

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

schema: $(READY)
	$(BIN)/python -c 'import json; from sdbatch.job import job_schema; print(json.dumps(job_schema(), indent=1))' \
		> jobs/job.schema.json

families: $(READY)
	$(BIN)/python -c 'from pathlib import Path; from sdbatch.families.listing import in_readme; \
		file = Path("README.md"); file.write_text(in_readme(file.read_text()))'

columns: $(READY)
	$(BIN)/python -c 'from pathlib import Path; from sdbatch.manifest.listing import in_readme; \
		file = Path("README.md"); file.write_text(in_readme(file.read_text()))'

constraints: $(READY)
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[ray,worker,s3,local,test,bench]'
	(head -1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//') > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) out manifests/demo
