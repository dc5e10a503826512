# SPDX-License-Identifier: GPL-2.0-or-later
"""ocf-tester, with every generation of daemons; from a checkout. (tests/packages has it for what is installed.)"""
import os
import shutil

import pytest

from world import World

from . import agents, page
from .agents import NAMES, ROOT

OPTIONAL = {"notify", "demote", "promote", "migrate", "promotable"}
NO_RELOAD = "* Your agent does not support the reload action (optional)"


@pytest.fixture(scope="module")
def place():
    """Folder of agents, where nobody may read: ocf-tester tries that."""
    top = "/tmp/ocf-tester"
    shutil.rmtree(top, ignore_errors=True)
    os.makedirs(top, mode=0o755)
    for part in ("agents", "lib"):
        shutil.copytree(os.path.join(ROOT, part), os.path.join(top, part),
                        ignore=shutil.ignore_patterns("__pycache__"))
    yield top + "/agents"
    shutil.rmtree(top)


@pytest.fixture
def host(generation):
    """A host with the daemons of a generation; the database runs, the daemons don't yet."""
    if os.environ.get("KOPANO_SBIN") and generation != 11:
        pytest.skip("KOPANO_SBIN: real daemons are of one generation, tried once")
    host = World.shared(generation)
    host.database.start()
    yield host
    host.reset()


def ocf_tester(host, *words):
    """(exit code, what it said)"""
    environment = {"PATH": host.sbin + ":/usr/sbin:/usr/bin:/sbin:/bin", "HA_RSCTMP": host.rsctmp}
    done = agents.run("ocf-tester", "-n", "kopano", *words, env=environment, timeout=150)
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("name, generation", [
    pytest.param(name, generation, marks=[] if generation == (8, 11)[number % 2] else [pytest.mark.long])
    for number, name in enumerate(NAMES) for generation in (8, 9, 11)])
def test_ocf_tester(name, place, host):
    words = []
    if name == "webapp-health":
        words = ["-o", "attribute="]        # there is no cluster to keep it
    elif name != "server":
        host.up("server")
    with page.served():
        code, said = ocf_tester(host, *words, os.path.join(place, name))
    assert code == 0, said
    lines = said.splitlines()
    assert lines[-1].endswith("passed all tests")
    # the rest is a title and remarks about actions that an agent need not have
    remarks = [line for line in lines[1:-1]
               if not (line.endswith("(optional)") and OPTIONAL & set(line.split()))]
    assert remarks == ([] if name != "webapp-health" else [NO_RELOAD])
    assert name == "webapp-health" or host.gone(name)


@pytest.mark.parametrize("generation", [11])
def test_a_wrong_agent_does_not_pass(place, host, tmp_path):
    """Or the test above would prove nothing."""
    shutil.copytree(os.path.dirname(place), tmp_path / "copy")
    agent = tmp_path / "copy/agents/ical"
    lazy = "sys.exit(0 if 'stop' in sys.argv else AGENT.run())"
    agent.write_text(agent.read_text().replace("AGENT.run()", lazy))
    code, said = ocf_tester(host, str(agent))
    assert code == 1
    assert "Monitoring a stopped resource should return 7" in said
