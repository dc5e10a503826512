# SPDX-License-Identifier: GPL-2.0-or-later
"""The named drills (drills/catalogue.py) on real two-node clusters, with the shipped configuration.

Each is performed under mail that is delivered and read all the time, and under a watch for what must never be: see
drills/scene.py. The monitors' intervals are shorter than the shipped ones (QUICK), to save waiting. SELECTED are those
of `make test`; DRILLS=all, as `make drills` has it, takes all, and AT_LENGTH once more as shipped. The outages are
added to build/outages.txt.
"""
import contextlib
import fcntl
import os
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
    "shared-storage": ("kill-server",),
    "drbd": ("kill-node", "cut-replication-then-kill", "cut-both"),
}
# Also with intervals and timeouts as shipped, where the database is away for ten minutes: beside all the others.
AT_LENGTH = ("database-down", "foreign-database-hung", "database-hung")
# Drills after which a node boots, on a cluster of their own: it needn't wait for the others.
OF_NODES = ("kill-node", "kill-database-node", "node-rejoin", "freeze-node", "kill-corosync", "power-loss", "cut-lan",
            "cut-replication", "cut-replication-then-kill", "cut-both", "storage-lost", "stop-fails",
            "fence-device-broken", "standby", "switch-over")


def programme():
    """(cluster, drill) of this run, clusters one after the other: the one that takes longest first."""
    for name in AT_LENGTH if ALL else ():
        yield pytest.param("shared-storage-at-length", name, id=f"at-length-{name}",
                           marks=[pytest.mark.xdist_group("drills-at-length"), pytest.mark.timeout(1500)])
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
                deployment = cluster.removesuffix("-nodes").removesuffix("-at-length")
                interval = 1.0 if cluster.endswith("-at-length") else QUICK
                site = stack.enter_context(Site(deployment, interval=interval))
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
@pytest.mark.parametrize("begin, end, words", [
    ("setsid kopano-spooler -F -c /etc/kopano/spooler.cfg >/dev/null 2>&1 </dev/null & echo $! >/run/second",
     "kill -9 $(cat /run/second)", "kopano-spooler runs 2 times"),
    # what counts is its name
    ("cp /bin/sleep /run/mariadbd; setsid /run/mariadbd 60 >/dev/null 2>&1 </dev/null & echo $! >/run/second",
     "kill -9 $(cat /run/second); rm /run/mariadbd", "mariadbd runs 2 times"),
    ("ip addr add 192.168.122.101/32 dev eth0", "ip addr del 192.168.122.101/32 dev eth0",
     "192.168.122.101 is on two nodes"),
], ids=["daemon", "database", "address"])
def test_the_watch_sees_what_is_there_twice(theatre, begin, end, words):
    site = theatre("shared-storage")
    other = site.lab.others(site.active())[0]
    with Watch(site) as watch:
        wait_for(lambda: watch.looks > 2, 10, "a few looks")
        assert not watch.violations
        other.run(begin)
        wait_for(lambda: watch.violations, 10, "the watch notes it")
        other.run(end)
    assert words in watch.violations[0]


@pytest.mark.parametrize("cluster, name", programme())
def test_drill(theatre, cluster, name, record_property):
    site = theatre(cluster)
    scene = Scene(site, DRILLS[name])
    try:
        scene.perform()
    except BaseException:
        print("logs of the nodes:", keep_logs(site.lab, f"{site.deployment}-{name}"))
        raise
    line = f"{cluster.removesuffix('-nodes')}: {scene.summary_line()}"
    record_property("outage", line)
    note(line)


@pytest.mark.long       # of `make drills`: a timing, to be taken on a quiet machine
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
