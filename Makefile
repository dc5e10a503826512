# SPDX-License-Identifier: GPL-2.0-or-later
# Kopano OCF: resource agents for Kopano under Pacemaker.

PREFIX  = /usr
DESTDIR =
PYTHON  = /usr/bin/python3
WORKERS = 2
# more words for the command behind a target, as in: make test T="tests/contract -k gateway"
T =

AGENTS  = agents/server agents/dagent agents/spooler agents/gateway agents/ical agents/monitor \
          agents/webapp-health
RESOURCES = $(DESTDIR)$(PREFIX)/lib/ocf/resource.d/kopano
LIBRARY   = $(DESTDIR)$(PREFIX)/lib/ocf/lib/kopano

.PHONY: help
help:		## list the targets (the default)
	@echo "make TARGET, where TARGET is one of:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: deps	## a two-node cluster on this machine: mail delivered, a server frozen, a node killed (root)
	@$(PYTHON) tests/cluster/demo.py

.PHONY: test
test:		## install what the tests need, then lint and run everything (root)
	@WORKERS=$(WORKERS) tests/tools/test $(T)

.PHONY: unit
unit:		## the library's own tests alone (anyone)
	@$(PYTHON) -m pytest -q -n $(WORKERS) tests/unit $(T)

.PHONY: test-pythons
test-pythons:	## the library's own tests with Python 3.6 and with the newest one found
	@tests/tools/pythons $(T)

.PHONY: lint
lint: deps	## style, types of the library, unused code, shell scripts
	@tests/tools/lint

.PHONY: golden
golden: deps	## renew tests/conformance/golden after a wanted change of the agents' interface
	@$(PYTHON) tests/conformance/golden.py

.PHONY: bench
bench: deps	## what an action costs, beside ocf:heartbeat:dummypy (root; T=--write for docs/benchmarks.md)
	@$(PYTHON) tests/bench/bench.py $(T)

.PHONY: shell
shell: deps	## a root shell in the tests' sandbox
	@tests/sandbox.py

.PHONY: deps
deps:		## install the Debian packages that test, lint, demo and bench use (root)
	@tests/tools/deps

.PHONY: install
install:	## install agents and library below $(DESTDIR)$(PREFIX)
	install -d $(RESOURCES) $(LIBRARY)/kopano_ocf/probe
	install -m 755 $(AGENTS) $(RESOURCES)
	install -m 644 lib/kopano_ocf/*.py $(LIBRARY)/kopano_ocf
	install -m 644 lib/kopano_ocf/probe/*.py $(LIBRARY)/kopano_ocf/probe

.PHONY: clean
clean:		## remove what was built
	rm -rf build .hypothesis .mypy_cache .pytest_cache
	find agents lib tests -name __pycache__ -type d -exec rm -rf {} +
