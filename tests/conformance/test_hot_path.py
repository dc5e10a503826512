# SPDX-License-Identifier: GPL-2.0-or-later
"""What a good monitor loads. Imports are most of its cost, and a node runs seven every few seconds."""
import os

import pytest

from world import World

from . import agents

# each of these costs more than all that a good monitor has to do
HEAVY = {"socket", "ssl", "re", "json", "logging", "psutil", "requests", "subprocess", "typing", "enum",
         "collections", "ocf", "traceback", "shlex", "tempfile", "urllib.request", "http.client", "site",
         "datetime", "inspect"}
DAEMONS = [name for name in agents.NAMES if name != "webapp-health"]


@pytest.fixture(scope="module", params=["plain", "tls"])
def host(request, tmp_path_factory):
    """A healthy host, all six daemons started by their agents; agents there tell what they import."""
    folder = tmp_path_factory.mktemp("telling")
    for name in DAEMONS:
        script = folder / name
        script.write_text('#!/bin/sh\nexec /usr/bin/python3 -IS -X importtime %s "$@"\n' % agents.path(name))
        script.chmod(0o755)
    with World(11, tls=request.param == "tls") as world:
        world.database.start()
        for name in DAEMONS:
            assert world.agent(name, "start", timeout=60).rc == 0
        world.wait_ready(*DAEMONS)
        world.telling = str(folder)
        yield world


def loaded(result):
    """Names of the modules that a process run with -X importtime has imported."""
    return {line.rpartition("|")[2].strip() for line in result.err.splitlines()
            if line.startswith("import time:")}


@pytest.mark.parametrize("level", [0, 10, 20])
@pytest.mark.parametrize("name", DAEMONS)
def test_a_good_monitor_loads_nothing_heavy(host, name, level):
    host.agent(name, "monitor", level=level)        # the first of a kind may have something to remember
    result = host.agent(name, "monitor", level=level, agents_dir=host.telling)
    assert result.rc == 0, result
    found = loaded(result)
    assert "kopano_ocf.action" in found
    assert found & HEAVY == set()
    assert not [name for name in found if name.startswith(("kopano_ocf.validate", "kopano_ocf.foreign"))]
    assert "_ssl" not in found or (host.tls and level > 0), "TLS where none is spoken"


def test_a_bad_monitor_may(host):
    """Or the test above would prove nothing."""
    host.freeze("gateway")
    try:
        result = host.agent("gateway", "monitor", agents_dir=host.telling)
    finally:
        host.thaw("gateway")
    assert result.rc == 1
    assert loaded(result) & HEAVY


@pytest.mark.parametrize("name", DAEMONS)
def test_meta_data_loads_nothing_heavy(host, name):
    result = host.agent(name, "meta-data", agents_dir=host.telling)
    assert loaded(result) & (HEAVY | {"_ssl"}) == set()


def test_this_is_how_agents_start():
    """Without site, in isolated mode: a stray PYTHONPATH or user directory changes nothing."""
    for name in agents.NAMES:
        with open(agents.path(name), "rb") as file:
            assert file.readline() == b"#!/usr/bin/python3 -IS\n"
        assert os.access(agents.path(name), os.X_OK)
