# Every target makes what it needs: a machine with Python 3.11 or newer, make and
# the Debian packages that the README names is enough.
PYTHON ?= python3
RUN_ENV := .venv-run
DEV_ENV := .venv
PIP := -m pip --disable-pip-version-check install --quiet
PIP_SHOWN := -m pip --disable-pip-version-check install
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

# All targets but the environments are names, not files.
.PHONY: $(shell sed -nE "s/^([a-z-]+):.*/\1/p" $(MAKEFILE_LIST))

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(RUN_ENV)/.done: pyproject.toml constraints.txt
	@echo "installing into $(RUN_ENV), once (a minute or two)"
	@$(PYTHON) -m venv $(RUN_ENV)
	@$(RUN_ENV)/bin/python $(PIP_SHOWN) -e .
	@touch $@

# torch comes first and by its full name, so that pip takes the CPU build where one
# is at hand instead of the registry's newest with its CUDA packages.
$(DEV_ENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV_ENV)
	$(DEV_ENV)/bin/python $(PIP) torch==$(shell sed -n 's/^torch==//p' constraints.txt)
	$(DEV_ENV)/bin/python $(PIP) -e '.[train,discover,dev]'
	@touch $@

demo: $(RUN_ENV)/.done  ## Label a shipped recording, as it plays (no hardware, no torch)
	$(RUN_ENV)/bin/neurovocal run demo

# The tests of a file stay together: they share what its fixtures made. Long files come
# first (tests/conftest.py). The code is compiled before: hundreds of tests start the
# program, and where Python keeps no compiled files, each start would do it again.
test: $(DEV_ENV)/.done  ## Run the test suite, as many files at once as there are cores
	@$(DEV_ENV)/bin/python -m compileall -q engine plugins models
	$(DEV_ENV)/bin/pytest --numprocesses $(shell getconf _NPROCESSORS_ONLN) \
		--dist loadfile --no-loadscope-reorder

test-failed: $(DEV_ENV)/.done  ## Run the tests that failed last, one after another
	$(DEV_ENV)/bin/pytest --last-failed --last-failed-no-failures none

test-long: $(DEV_ENV)/.done  ## Run the tests that take minutes
	$(DEV_ENV)/bin/pytest -m long

check: lint types  ## Lint, format check and strict type check

lint: $(DEV_ENV)/.done
	$(DEV_ENV)/bin/ruff check .
	$(DEV_ENV)/bin/ruff format --check .

types: $(DEV_ENV)/.done
	$(DEV_ENV)/bin/mypy

format: $(DEV_ENV)/.done  ## Format the code
	$(DEV_ENV)/bin/ruff check --fix .
	$(DEV_ENV)/bin/ruff format .

reference: $(DEV_ENV)/.done  ## Write the pages of the reference that follow from the code
	PYTHONPATH=tools/docs $(DEV_ENV)/bin/python tools/docs/reference.py

figures: $(DEV_ENV)/.done  ## Draw the figures of the pages that explain how things work
	$(DEV_ENV)/bin/python tools/docs/figures.py

docs: reference  ## Build the site of the documentation into site/ (strict)
	NO_MKDOCS_2_WARNING=1 $(DEV_ENV)/bin/mkdocs build --strict --quiet
	@echo "open site/index.html"

bench: $(DEV_ENV)/.done  ## Measure speed beside a bare loop and four peers, and latency
	$(DEV_ENV)/bin/python $(PIP) -e '.[bench]'
	$(DEV_ENV)/bin/python bench/speed/lane_speed.py
	$(DEV_ENV)/bin/python bench/speed/start.py

bench-channels: $(DEV_ENV)/.done  ## Measure many channels together beside one channel, and lanes in two processes (15 minutes)
	$(DEV_ENV)/bin/python bench/speed/channels.py
	$(DEV_ENV)/bin/python bench/speed/workers.py

bench-latency: $(DEV_ENV)/.done  ## Measure events at a subscriber beside bare ZeroMQ messages (15 minutes, idle machine)
	$(DEV_ENV)/bin/python bench/speed/subscriber_latency.py --seconds 60 --picture docs/pictures/latency.svg
	$(DEV_ENV)/bin/python bench/detection/early_onsets.py

bench-page: $(DEV_ENV)/.done  ## Measure the live page before 0, 1 and 10 browsers
	$(DEV_ENV)/bin/python bench/speed/page.py
	$(DEV_ENV)/bin/python bench/speed/page_drawn.py

bench-privacy: $(DEV_ENV)/.done  ## Measure recall and false alarms of the privacy gate
	$(DEV_ENV)/bin/python $(PIP) -e '.[privacy]'
	$(DEV_ENV)/bin/python bench/detection/privacy.py

bench-detect: $(DEV_ENV)/.done  ## Measure the detectors on the annotated recordings
	$(DEV_ENV)/bin/python $(PIP) -e '.[bench]'
	$(DEV_ENV)/bin/python bench/detection/detect.py
	$(DEV_ENV)/bin/python bench/detection/short_streams.py energy bands

bench-prior: $(DEV_ENV)/.done  ## Measure forecasts, and labels with and without them (an hour; resumable)
	$(DEV_ENV)/bin/python bench/labels/prior.py

bench-polyphonic: $(DEV_ENV)/.done  ## Compute the table of the RNN-RBM's paper on piano rolls (hours; resumable)
	$(DEV_ENV)/bin/python bench/paper/polyphonic.py

CUTS ?= 100
bench-resume: $(DEV_ENV)/.done  ## Cut, stall and kill CUTS times; count what a subscriber loses
	$(DEV_ENV)/bin/python bench/reliability/resume.py --cuts $(CUTS)

bench-away: $(DEV_ENV)/.done  ## Take a broker and a web service away for a minute; compare what they got with the journal
	$(DEV_ENV)/bin/python bench/reliability/outputs/away.py

STALLED ?= 10
bench-stall: $(DEV_ENV)/.done  ## Stop a subscriber for STALLED minutes beside one that reads
	$(DEV_ENV)/bin/python bench/reliability/stall.py --minutes $(STALLED)

INPUTS ?= 100000
fuzz: $(DEV_ENV)/.done  ## Give INPUTS damaged inputs to all parsers
	$(DEV_ENV)/bin/python bench/reliability/fuzz.py --inputs $(INPUTS)

CASES ?= *
cases: $(DEV_ENV)/.done  ## Run the scripts of situations called CASES, one after another (an hour)
	$(DEV_ENV)/bin/python bench/reliability/cases.py --only '$(CASES)'

# The environment of its own keeps the tools' packages out of the others.
AUDIT_ENV := .venv-audit
$(AUDIT_ENV)/.done:
	$(PYTHON) -m venv $(AUDIT_ENV)
	PIP_CONSTRAINT= $(AUDIT_ENV)/bin/python $(PIP) pip-audit pip-tools
	@touch $@

audit: $(AUDIT_ENV)/.done  ## Look up known vulnerabilities of the locked packages (needs the network)
	$(AUDIT_ENV)/bin/python bench/packaging/audit.py requirements.lock

lock: $(AUDIT_ENV)/.done  ## Write requirements.lock from pyproject.toml and constraints.txt
	PIP_CONSTRAINT= $(AUDIT_ENV)/bin/pip-compile --quiet --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-header --no-annotate --strip-extras --allow-unsafe \
	    --extra parquet --extra prometheus --extra privacy \
	    --constraint constraints.txt --output-file requirements.lock pyproject.toml

LOSSES ?= 100
bench-losses: $(DEV_ENV)/.done  ## Interrupt a stream and a sound card LOSSES times; compare the gaps' lengths
	$(DEV_ENV)/bin/python bench/reliability/losses.py --losses $(LOSSES)

bench-disk: $(DEV_ENV)/.done  ## Make the disk of a running engine fail in five ways (Linux; best as root)
	$(DEV_ENV)/bin/python $(PIP) -e '.[parquet]'
	$(DEV_ENV)/bin/python bench/reliability/outputs/disk.py

KILLS ?= 300
RUNS ?= 200
sound-exits: $(DEV_ENV)/.done  ## Stop RUNS closed loops with sound; count crashes and hangs
	$(DEV_ENV)/bin/python bench/reliability/exits.py --runs $(RUNS)

torture: $(DEV_ENV)/.done  ## Kill the engine KILLS times; count the losses of its journal
	$(DEV_ENV)/bin/python bench/reliability/outputs/torture.py --kills $(KILLS)

torture-files: $(DEV_ENV)/.done  ## Kill the engine KILLS times; count the losses of all files
	$(DEV_ENV)/bin/python bench/reliability/outputs/torture.py --kills $(KILLS) --files

bench-sound: $(DEV_ENV)/.done  ## Measure the inversion of frames to audio beside Griffin-Lim
	$(DEV_ENV)/bin/python $(PIP) -e '.[bench]'
	$(DEV_ENV)/bin/python bench/song/inversion.py

LOOPS ?= 500
bench-loop: $(DEV_ENV)/.done  ## Measure the latency of a closed loop with LOOPS triggers (15 minutes)
	$(DEV_ENV)/bin/python bench/speed/loop.py --triggers $(LOOPS)

bench-song: $(DEV_ENV)/.done  ## Measure prediction, decoding, surprise and density of the RNN-RBM (resumable)
	$(DEV_ENV)/bin/python bench/song/rnn_rbm.py

bench-curves: $(DEV_ENV)/.done  ## Measure labels by seconds of annotation, three sets and seeds (hours; resumable)
	$(DEV_ENV)/bin/python bench/labels/learning_curves.py

bench-labels: $(DEV_ENV)/.done  ## Measure the accuracy of labels: tables of docs/performance/labels.md (an hour; resumable)
	$(DEV_ENV)/bin/python bench/labels/label_accuracy.py --picture docs/pictures/labels.svg

bench-discover: $(DEV_ENV)/.done  ## Compare discovered clusters with annotated labels (an hour; resumable)
	$(DEV_ENV)/bin/python bench/discovery/agreement.py

bench-synthesis: $(DEV_ENV)/.done  ## Generate an hour of song, and send 200 commands to a run (20 minutes)
	$(DEV_ENV)/bin/python bench/song/free_run.py --commands 200

bench-transfer: $(DEV_ENV)/.done  ## Measure the benefit of starting from another bird's bundle (an hour; resumable)
	$(DEV_ENV)/bin/python bench/labels/transfer.py

bundle: $(DEV_ENV)/.done  ## Train the bundles that ship again, from ../shared/data
	$(DEV_ENV)/bin/neurovocal train ../shared/data/finch_gy6or6 --overwrite \
	    --out models/pretrained/bengalese-finch --config configs/train.yaml
	$(DEV_ENV)/bin/neurovocal train ../shared/data/zebra_finch_G402 --overwrite \
	    --out models/pretrained/zebra-finch --config configs/train-zebra-finch.yaml
	$(DEV_ENV)/bin/neurovocal train ../shared/data/spoken_digits --overwrite \
	    --out models/pretrained/spoken-digits --config configs/train-spoken-digits.yaml

DATA ?= ../shared/data
detector: $(DEV_ENV)/.done  ## Train the detector network that ships again, from DATA (20 minutes)
	$(DEV_ENV)/bin/neurovocal train --detector $(DATA)/finch_gy6or6 $(DATA)/finch_bird0 \
	    $(DATA)/zebra_finch_G402 $(DATA)/mouse_usv $(DATA)/bats_europe \
	    $(DATA)/fly_song $(DATA)/env_sounds $(DATA)/soundscape_background \
	    $(DATA)/spoken_digits --config configs/train-detector.yaml --overwrite \
	    --out models/pretrained/any-animal

clean:  ## Remove environments and caches
	rm -rf $(RUN_ENV) $(DEV_ENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis

ARCHIVE ?= 4
bench-scale: $(DEV_ENV)/.done  ## Label an archive of ARCHIVE hours on 1 and 2 cores; measure and simulate the scheduler's load
	$(DEV_ENV)/bin/python bench/scale/scan_speed.py --hours $(ARCHIVE)
	$(DEV_ENV)/bin/python bench/scale/scheduler_load.py

LANES ?= 8
MINUTES ?= 10
bench-load: $(DEV_ENV)/.done  ## Play LANES lanes in real time for MINUTES; count lost samples
	$(DEV_ENV)/bin/python bench/speed/load.py --lanes $(LANES) --minutes $(MINUTES)

HOURS ?= 24
soak: $(DEV_ENV)/.done  ## Process HOURS lane-hours as fast as possible; check memory and queues
	$(DEV_ENV)/bin/python bench/reliability/soak.py --hours $(HOURS)
