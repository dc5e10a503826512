# SPDX-License-Identifier: GPL-2.0-or-later
# Kopano OCF: resource agents for Kopano under Pacemaker.

PREFIX  = /usr
DESTDIR =
PYTHON  = /usr/bin/python3
WORKERS = 4
# more words for the command behind a target, as in: make test T="tests/contract -k gateway"
T =

# the one place where the version stands
VERSION := $(shell sed -n 's/^VERSION = "\(.*\)"$$/\1/p' lib/kopano_ocf/__init__.py)
PACKAGE = resource-agents-kopano
# what is built carries the time of the last change, not that of the build: the same bytes twice
EPOCH  := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null || \
	stat -c %Y lib/kopano_ocf/__init__.py))
TARBALL = build/$(PACKAGE)-$(VERSION).tar.gz

# below $(DESTDIR); DOCS is somewhere else on SUSE
RESOURCES = $(PREFIX)/lib/ocf/resource.d/kopano
LIBRARY   = $(PREFIX)/lib/ocf/lib/kopano
SBIN      = $(PREFIX)/sbin
MAN       = $(PREFIX)/share/man
SHARE     = $(PREFIX)/share/$(PACKAGE)
DOCS      = $(PREFIX)/share/doc/$(PACKAGE)
WIZARD    = $(PREFIX)/share/crmsh/scripts/kopano
OCFT      = $(PREFIX)/share/resource-agents/ocft/configs
# empty: the library is not byte-compiled (Debian's packages do that where they are installed)
BYTECODE = yes

.PHONY: help
help:		## list the targets (the default)
	@echo "make TARGET, where TARGET is one of:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: deps	## a two-node cluster on this machine: mail delivered, a server frozen, a node killed (root)
	@$(PYTHON) tests/cluster/demo.py

.PHONY: drill
drill: deps	## a named drill on a cluster of its own, to watch: NAME=kill-node; without NAME a list (root)
	@$(PYTHON) tests/cluster/drills/run.py $(NAME) $(T)

.PHONY: drills
drills: deps	## all drills, to be within their targets: on a quiet machine; see build/outages.txt (root)
	@INSTALLED=$${INSTALLED:-deb} DRILLS=all LONG=all $(PYTHON) -m pytest -q -n 3 --dist loadgroup tests/cluster/test_drills.py $(T)

.PHONY: compare
compare: deps	## the same faults on the manual's own cluster and on crm/drbd; T=--write for docs/ (root)
	@$(PYTHON) tests/cluster/comparison/run.py $(T)

.PHONY: test
test:		## install what the tests need, then lint and run everything (root)
	@WORKERS=$(WORKERS) tests/tools/test $(T)

.PHONY: test-long
test-long: deps	## what make test leaves out for its length (root)
	@INSTALLED=$${INSTALLED:-deb} CROWDED=1 LONG=only $(PYTHON) -m pytest -q -n $(WORKERS) --dist loadgroup \
		--ignore tests/cluster/test_drills.py tests $(T)

.PHONY: test-drbd
test-drbd: deps	## crm/drbd with real DRBD, on two emulated machines: up to an hour of a quiet machine (root)
	@tests/tools/deps $$(sed 's/#.*//' tests/vm/debian-packages.txt)
	@tests/vm/build-image
	@$(PYTHON) -m pytest -x -s -v tests/vm/drbd_story.py $(T)

.PHONY: unit
unit:		## the library's own tests alone (anyone)
	@$(PYTHON) -m pytest -q -n $(WORKERS) tests/unit $(T)

.PHONY: test-pythons
test-pythons:	## the library's own tests with Python 3.6 and with the newest one found
	@LONG=all tests/tools/pythons $(T)

.PHONY: lint
lint: deps	## style, types of the library, unused code, shell scripts
	@tests/tools/lint

.PHONY: golden
golden: deps	## renew tests/conformance/golden and tests/packages/files.txt after a wanted change
	@$(PYTHON) tests/conformance/golden.py
	@$(PYTHON) tests/packages/files.py

.PHONY: bench
bench: deps	## what an action costs, beside ocf:heartbeat:dummypy; writes docs/benchmarks.md (root)
	@tests/tools/deps $$(sed 's/#.*//' tests/bench/debian-packages.txt)
	@$(PYTHON) tests/bench/bench.py $(T)

.PHONY: matrix
matrix: deps	## every fault, beside lsb:, anything and others: 20 minutes; writes docs/fault-matrix.md (root)
	@$(PYTHON) tests/faults/matrix.py $(T)

.PHONY: soak
soak: deps	## no false alarm: 22,000 monitors on a busy host, takes half an hour: build/soak.txt (root)
	@$(PYTHON) tests/soak/soak.py $(T)

.PHONY: chaos
chaos: deps	## random faults on a cluster while mail flows: SEED=7 MINUTES=30; log: build/chaos-SEED.txt (root)
	@$(PYTHON) tests/cluster/chaos/run.py $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(T)

.PHONY: shell
shell: deps	## a root shell in the tests' sandbox
	@tests/sandbox.py

.PHONY: deps
deps:		## install the Debian packages that the targets above use (root)
	@tests/tools/deps

# ---- to be installed -------------------------------------------------------------------------------------

.PHONY: man
man:		## the manual pages, in build/man
	@$(PYTHON) man/pages.py build/man $(VERSION) $(EPOCH)

.PHONY: install
install: export PLACES = $(RESOURCES) $(LIBRARY) $(SBIN) $(MAN) $(SHARE) $(DOCS) $(WIZARD) $(OCFT)
install: man	## install below $(DESTDIR)$(PREFIX): agents, library, cluster configurations, manual pages, ...
	@PYTHON="$(PYTHON)" BYTECODE="$(BYTECODE)" tools/install all "$(DESTDIR)"

.PHONY: install-agents
install-agents: export PLACES = $(RESOURCES) $(LIBRARY)
install-agents:	## install agents and library alone
	@PYTHON="$(PYTHON)" BYTECODE="$(BYTECODE)" tools/install agents "$(DESTDIR)"

.PHONY: uninstall
uninstall: export PLACES = $(RESOURCES) $(LIBRARY) $(SBIN) $(MAN) $(SHARE) $(DOCS) $(WIZARD) $(OCFT)
uninstall:	## remove what install has put there
	@tools/install remove "$(DESTDIR)"

# ---- packages --------------------------------------------------------------------------------------------

.PHONY: dist
dist:		## the source, with the packages' changelogs made: build/resource-agents-kopano-VERSION.tar.gz
	@PYTHON="$(PYTHON)" tools/dist $(PACKAGE) $(VERSION) $(EPOCH) $(TARBALL)

.PHONY: rpm
rpm: dist	## RPM packages, in build/rpm (needs rpmbuild)
	@tools/package rpm $(PACKAGE) $(VERSION) $(EPOCH) $(TARBALL)

.PHONY: deb
deb: dist	## Debian packages, in build/deb (needs debhelper)
	@tools/package deb $(PACKAGE) $(VERSION) $(EPOCH) $(TARBALL)

.PHONY: clean
clean:		## remove what was built
	rm -rf build .hypothesis .mypy_cache .pytest_cache
	find agents lib tests -name __pycache__ -type d -exec rm -rf {} +
