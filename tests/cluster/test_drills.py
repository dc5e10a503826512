# SPDX-License-Identifier: GPL-2.0-or-later
"""The named drills (drills/catalogue.py) on real two-node clusters, with the shipped configuration.

Each is performed under mail that is delivered and read all the time, and under a watch for what must never be: see
drills/scene.py. The monitors' intervals are a fifth of the shipped ones, to save waiting. SELECTED are those of
`make test`; DRILLS=all, as `make drills` has it, takes all. The outages are added to build/outages.txt.
"""
import contextlib
import fcntl
import os
import signal
import time

import pytest

from drills import docs
from drills.catalogue import DRILLS
from drills.scene import Scene
from drills.takeover import beside_dummies
from kopano_site import DEPLOYMENTS, QUICK, ROOT, Site, Watch, keep_logs
from namespaces import wait_for

OUTAGES = f"{ROOT}/build/outages.txt"
ALL = os.environ.get("DRILLS") == "all"
SELECTED = {
    "shared-storage": ("kill-server", "freeze-clients", "database-down", "schema-upgrade", "storage-readonly",
                       "cut-both", "storage-lost", "standby"),
    "drbd": ("kill-node", "cut-replication-then-kill"),
}
# Drills after which a node boots, on a cluster of their own: it needn't wait for the others.
OF_NODES = ("kill-node", "kill-database-node", "node-rejoin", "freeze-node", "kill-corosync", "power-loss", "cut-lan",
            "cut-replication", "cut-replication-then-kill", "cut-both", "storage-lost", "stop-fails",
            "fence-device-broken", "standby", "switch-over")


def programme():
    """(cluster, drill) of this run, clusters one after the other."""
    for deployment in DEPLOYMENTS:
        names = [name for name, drill in DRILLS.items() if deployment in drill.deployments and
                 (ALL or name in SELECTED[deployment])]
        for of_nodes in (False, True):
            for name in names:
                if (name in OF_NODES) == of_nodes:
                    cluster = f"{deployment}{'-nodes' if of_nodes else ''}"
                    yield pytest.param(cluster, name, marks=pytest.mark.xdist_group(f"drills-{cluster}"),
                                       id=f"{deployment}-{name}")


pytestmark = [pytest.mark.host, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def theatre():
    """theatre(cluster): the site of that cluster; the one before it ends."""
    with contextlib.ExitStack() as stack:
        current = {}

        def enter(cluster):
            if cluster not in current:
                stack.close()
                current.clear()
                site = stack.enter_context(Site(cluster.removesuffix("-nodes"), interval=QUICK))
                try:
                    site.ready()
                except BaseException:
                    print(site.lab.report())
                    print("logs of the nodes:", keep_logs(site.lab, f"setup-{cluster}"))
                    raise
                current[cluster] = site
            return current[cluster]
        yield enter


def note(line):
    """Add a line to the outages that the runs have measured; workers may do so at once."""
    os.makedirs(os.path.dirname(OUTAGES), exist_ok=True)
    with open(OUTAGES, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{time.strftime('%F %T')} {line}\n")


@pytest.mark.xdist_group("drills-shared-storage")
def test_the_watch_sees_a_daemon_that_runs_twice(theatre):
    site = theatre("shared-storage")
    other = site.lab.others(site.active())[0]
    with Watch(site) as watch:
        other.run("setsid kopano-spooler -F -c /etc/kopano/spooler.cfg >/dev/null 2>&1 </dev/null &")
        wait_for(lambda: watch.violations, 10, "the watch notes it")
    os.kill(other.processes("kopano-spooler")[0].pid, signal.SIGKILL)
    assert "kopano-spooler runs 2 times" in watch.violations[0]


@pytest.mark.parametrize("cluster, name", programme())
def test_drill(theatre, cluster, name, record_property):
    site = theatre(cluster)
    scene = Scene(site, DRILLS[name])
    try:
        scene.perform()
    except BaseException:
        print("logs of the nodes:", keep_logs(site.lab, f"{site.deployment}-{name}"))
        raise
    line = f"{site.deployment}: {scene.summary_line()}"
    record_property("outage", line)
    note(line)


@pytest.mark.skipif(not ALL, reason="part of `make drills`")
@pytest.mark.xdist_group("drills-takeover")
def test_takeover_beside_dummies(record_property):
    """A power cut, until mail flows: at most 1.5 times what Dummies need, plus the daemons' own start times."""
    line, good = beside_dummies(QUICK)
    record_property("outage", line)
    note(line)
    assert good, line


def test_the_administrators_drills_are_those_of_the_catalogue():
    with open(docs.PATH) as file:
        assert file.read() == docs.text(), "docs/drills.md: renew it with tests/cluster/drills/run.py --write"


def test_every_drill_of_make_test_is_in_the_catalogue():
    for deployment, names in SELECTED.items():
        assert all(deployment in DRILLS[name].deployments for name in names)
