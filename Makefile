# Two commands set a machine up entirely: `make quickstart` and `make test`. Each makes its own .venv first.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
# Container images often forbid it, and then each process compiles what it imports: four seconds of seven per command.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: quickstart test lint docs clean

quickstart: $(VENV)/installed
	test -f runs/quickstart-data/meta.json || $(RUN) -m igd_jax.prepare --source=synthetic --max_history=3 --output=runs/quickstart-data
	$(RUN) -m igd_jax.train --config=configs/quickstart.py --config.data.dir=runs/quickstart-data --workdir=runs/quickstart
	$(RUN) -m igd_jax.evaluate --workdir=runs/quickstart
	$(RUN) -m igd_jax.report --workdir=runs/quickstart

# Slow tests run with ARGS="-m slow", as .ci/run does.
test: $(VENV)/installed-test
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(or $(ARGS),-m "not slow")

lint: $(VENV)/installed-test
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/shellcheck -x launch/*.sh .ci/run

docs: $(VENV)/installed
	$(RUN) -m pip install -q -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

# Where launch/setup.sh made the environment, or making it was broken off, there is no pip yet.
$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

# Modules are compiled when they are first imported, which most of what is installed never is.
$(VENV)/installed: setup.py | $(VENV)/bin/pip
	$(RUN) -m pip install -q --no-compile -e .
	touch $@

$(VENV)/installed-test: setup.py | $(VENV)/bin/pip
	$(RUN) -m pip install -q --no-compile -e '.[test]'
	touch $@ $(VENV)/installed

# Runs and data of your own are left.
clean:
	rm -rf $(VENV) .venv312 .cache build runs/quickstart runs/quickstart-data* *.egg-info
