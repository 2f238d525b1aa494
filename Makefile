PYTHON ?= $(shell command -v python3.11 || command -v python3)
CONFIG ?= etc/four.yaml
TESTS ?= tests
SECONDS ?= 60

bin := .venv/bin
runs := .venv/runs
ready := .venv/ready
units := $(filter-out tests.simulator tests.integration,$(subst /,.,$(patsubst %/,%,$(dir $(wildcard tests/*/__init__.py))) \
	$(basename $(wildcard tests/test_*.py))))
modules = $(subst /,.,$(basename $(wildcard tests/integration/$(1))))
clusters_first := tests.integration.hostile $(call modules,test_[a-o]*.py)
clusters_later := $(call modules,test_[!a-o]*.py)
pooled := tests.simulator.runs.test_run tests.simulator.defects
simulated_runs := tests.simulator.schedules \
	$(filter-out $(pooled),$(subst /,.,$(basename $(wildcard tests/simulator/runs/test_*.py)))) $(firstword $(pooled))
simulated_rest := $(filter-out tests.simulator.runs tests.simulator.schedules $(pooled), \
	$(subst /,.,$(patsubst %/,%,$(dir $(wildcard tests/simulator/*/__init__.py))) \
	$(basename $(wildcard tests/simulator/test_*.py)))) $(lastword $(pooled))

.PHONY: run test test-all quick simulate fuzz bench lint types docs package clean

# Installs only what servers and clients need. Two lines of the start say which ports to type at.
run: $(runs)
	$(bin)/pfsb cluster $(CONFIG)

# Five parts run side by side: two of tests with real clusters, which wait for servers; two of tests of the simulator, which
# compute, and give way to the others; and the rest, which does some of both. Each is one process, although trial can use
# several: its report stays in order. Servers of two parts get their ports from different ranges, since a port that was
# found free must stay so until its server has it. The tests in `pooled` use all processors, and come last in their parts, so
# that no processor is idle at the end. Byte code is kept in any case: otherwise each of the thousand servers that
# the tests start would compile the whole of pfsb, half a second of CPU time.
test: export PYTHONDONTWRITEBYTECODE =
test: $(ready)
ifeq ($(TESTS),tests)
	@mkdir -p build
	@trap 'kill $$simulator $$runs $$units $$clusters 2>/dev/null' EXIT INT TERM; \
	nice -n 10 $(bin)/python -m twisted.trial --temp-directory=build/_trial_simulator $(simulated_rest) >build/simulator.txt 2>&1 & \
	simulator=$$!; \
	nice -n 10 $(bin)/python -m twisted.trial --temp-directory=build/_trial_runs $(simulated_runs) >build/runs.txt 2>&1 & \
	runs=$$!; \
	PFSB_PORTS=20000-23999 $(bin)/python -m twisted.trial --temp-directory=_trial_temp_units $(units) >build/units.txt 2>&1 & \
	units=$$!; \
	PFSB_PORTS=24000-27999 $(bin)/python -m twisted.trial --temp-directory=_trial_temp_clusters $(clusters_later) \
		>build/clusters.txt 2>&1 & \
	clusters=$$!; status=0; \
	PFSB_PORTS=28000-31999 $(bin)/python -m twisted.trial $(clusters_first) || status=1; \
	echo "The other tests with real clusters (build/clusters.txt):"; \
	wait $$clusters || status=1; \
	cat build/clusters.txt; \
	echo "The tests of all parts without real clusters and the simulator (build/units.txt):"; \
	wait $$units || status=1; \
	cat build/units.txt; \
	echo "The simulator's runs and schedules (build/runs.txt):"; \
	wait $$runs || status=1; \
	cat build/runs.txt; \
	echo "The other tests of the simulator (build/simulator.txt):"; \
	wait $$simulator || status=1; \
	cat build/simulator.txt; exit $$status
else
	$(bin)/python -m twisted.trial $(TESTS)
endif

# Also the tests that take minutes each, a quarter of an hour more.
test-all: $(ready)
	PFSB_TEST_LONG=1 $(MAKE) test

# Under a minute: no long tests, which are those with simulator runs, real clusters and load, and only a fifth of all
# random examples. No quick test starts a server, so two processes can share them.
quick: $(ready)
	PFSB_QUICK=1 $(bin)/python -m twisted.trial --jobs=2 $(TESTS)

# As many seeds as fit into SECONDS, on all cores; each time others.
simulate: $(ready)
	$(bin)/pfsb simulate --for $(SECONDS) --jobs 0

# Changed input of every kind for SECONDS, on all cores; each time another. Failing inputs are written to build/fuzz.
fuzz: $(ready)
	$(bin)/pfsb fuzz --for $(SECONDS) --jobs 0

# Half a minute: is anything slower than what was recorded? See docs/performance.rst.
bench: $(ready)
	$(bin)/python -m benchmarks.regressions

lint: $(ready)
	$(bin)/ruff check .
	$(bin)/ruff format --check .

types: $(ready)
	$(bin)/mypy

docs: $(ready)
	$(bin)/python docs/make_paper_map.py
	$(bin)/python docs/make_configuration.py
	$(bin)/sphinx-build -W -b html docs build/docs

package: $(ready)
	$(bin)/python -m build --outdir dist .

# Each stamp comes last, so that an installation that broke off is made anew.
$(runs): setup.cfg
	@echo "Installing pfsb and the libraries that it needs into .venv, and nowhere else."
	$(PYTHON) -m venv .venv
	$(bin)/python -m pip install --disable-pip-version-check --editable .
	@touch $(runs)

$(ready): setup.cfg | $(runs)
	@echo "Installing what tests, linters and docs need into .venv."
	$(bin)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,test]'
	@touch $(runs) $(ready)

clean:
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .ruff_cache _trial_temp*
	find pfsb tests twisted -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache
