# The two commands are `make up` and `make test`; each sets up what it needs first.
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys; print(("python3", sys.executable)[sys.version_info >= (3, 11)])' 2>/dev/null || echo python3)
SETUP = PYTHONSAFEPATH=1 $(PYTHON) deploy/setup/setup.py
INSTALL = PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$(CURDIR) $(PYTHON) -m deploy.install
# Most of a test's time is waiting for processes, so one more than the cores we count on.
WORKERS ?= 3
RUN = PYTHONSAFEPATH=1 .venv/bin/python

.PHONY: up down install uninstall test check bench fmt clean

up:
	@$(SETUP) run
	@$(RUN) -m libhive.embedded up

down:
	@test ! -x .venv/bin/python || $(RUN) -m libhive.embedded down

# As units of systemd, for the whole machine; as root. WHEELS=dir: packages from there, not from the network;
# CLAUDE=file: that Claude Code, where it lies.
install:
	@$(INSTALL) install $(if $(WHEELS),--wheels $(WHEELS)) $(if $(CLAUDE),--claude $(CLAUDE))

# The state is kept; PURGE=yes removes it too.
uninstall:
	@$(INSTALL) uninstall $(if $(PURGE),--purge)

test:
	@$(SETUP) test
	@PYTHONPATH=$(CURDIR) $(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check:
	@$(SETUP) test
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .
	@.venv/bin/mypy
	@PYTHONPATH=$(CURDIR) .venv/bin/lint-imports

bench:
	@$(SETUP) test
	@PYTHONPATH=$(CURDIR) $(RUN) -m tests.bench

fmt:
	@$(SETUP) test
	@.venv/bin/ruff check --fix . && .venv/bin/ruff format .

clean: down
	@rm -rf .venv .claude-cli .claude-cli.new .cache dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
