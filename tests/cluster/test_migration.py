# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/migration.md on the manual's own cluster: what it says is typed, and no client notices.

The tests are steps of one story, in this order.
"""
import os
import signal

import pytest

from installed import PYTHON
from kopano_site import DAEMONS, ROOT
from migration import NEW, Clients, agents, forget_check, planned, steps, wait_planned
from namespaces import wait_for
from timeline import Timeline

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("practice"), pytest.mark.timeout(400)]

# The manual's own lsb:kopano-ical as another administrator may have called it.
OTHER_NAME = """\
primitive kopano-gateway ocf:kopano:gateway op monitor interval=2s timeout=30s
primitive calendar ocf:kopano:ical op monitor interval=2s timeout=30s
colocation calendar_with_kopano inf: calendar kopano
"""

# forty times pcs would be a minute of Python's starts
QUICK_PCS = f"""
import signal, sys
sys.path.insert(0, "{ROOT}/tests/crm")
from quick_pcs import Server
with Server("/run/quick"):
    signal.pause()
"""


def quick_pcs(node):
    """Lines before a block of commands, that make its `pcs` quick. It is the node's own, see tests/crm/quick_pcs.py."""
    node.run(["sh", "-c", 'setsid "$@" >/run/quick.log 2>&1 </dev/null &', "sh", PYTHON, "-c", QUICK_PCS])
    wait_for(lambda: node.run("test -S /run/quick/pcs.socket", check=False).returncode == 0, 20, "pcs is imported")
    return "PATH=/run/quick/bin:$PATH\n"


def test_the_manuals_cluster(practice):
    practice.manual()
    practice.site.deliver("from the manual's time")
    of = agents(practice)
    assert {of[f"kopano-{name}"] for name in DAEMONS} == {f"lsb:kopano-{name}" for name in DAEMONS}
    assert of["mysqld"] == "lsb:mysqld"
    for node in practice.lab:
        for line in practice.follow(steps("Before")[0], node).splitlines():
            assert not line.startswith("ERROR"), line


@pytest.mark.long
def test_harm_with_the_history_left_in_place(practice):
    """Both ways: the same name with another agent, and another name. The procedure's way back heals it."""
    before = practice.site.snapshot()
    practice.follow(steps("1.")[0])
    practice.home.put("/root/other.crm", OTHER_NAME)
    practice.follow("(echo delete kopano-ical; echo load update /root/other.crm; echo commit) | crm configure")
    plan = planned(practice)
    assert plan["kopano-gateway"] == "Restart" and plan["kopano-ical"] == "Stop"
    assert practice.site.snapshot() == before
    with Clients(practice.site, "harm") as clients:
        practice.follow(steps("5.")[0])
        wait_for(lambda: practice.site.instances()["gateway"] not in ([], [before["gateway"]]), 30, "another gateway")
        wait_for(lambda: practice.site.instances()["ical"] not in ([], [before["ical"]]), 30, "another ical")
    missed = {words.split(":")[0] for words in clients.misses()}
    assert missed and missed <= {"gateway", "ical"}
    practice.site.wait_serving()
    practice.settle()
    again = practice.site.snapshot()
    practice.follow(steps("The way back")[0])
    wait_planned(practice, {})
    practice.follow(steps("5.")[0])
    practice.settle()
    assert practice.site.snapshot() == again
    assert agents(practice)["kopano-ical"] == "lsb:kopano-ical" and "calendar" not in agents(practice)


@pytest.mark.long
def test_migration_with_pcs(practice):
    """And its way back, so that the next test finds the manual's cluster again."""
    if not practice.configuration:      # what isn't long is left out
        practice.manual()
    site = practice.site
    before, of = site.snapshot(), agents(practice)
    quick = quick_pcs(practice.home)

    def pcs(heading, block=0):
        practice.follow(quick + steps(heading)[block], tool="pcs")
    with Clients(site, "pcs") as clients:
        pcs("1.")
        pcs("2.", 2)
        pcs("3.")
        wait_planned(practice, dict.fromkeys(NEW, "Start"))
        pcs("5.")
        site.wait_started()
        wait_for(lambda: len(clients.acknowledged) > 50, 30, "more than a handful of mails")
        assert site.snapshot() == before and not practice.lab.status().failures
        new = agents(practice)
        assert not any(agent.startswith("lsb") for agent in new.values())
        assert {name: new[f"kopano-{name}"] for name in DAEMONS} == {name: f"ocf:kopano:{name}" for name in DAEMONS}
        pcs("The way back")
        wait_planned(practice, {})
        pcs("5.")
        practice.settle()
    forget_check(practice)
    assert clients.misses() == [] and clients.lost_or_doubled() == []
    assert site.snapshot() == before and agents(practice) == of


def test_migration(practice):
    site = practice.site
    before, timeline = site.snapshot(), Timeline(practice.lab)
    database = {node.name: node.processes("mariadbd") for node in practice.lab}
    timeline.news()
    with Clients(site, "migration") as clients:
        practice.follow(steps("1.")[0])
        practice.follow(steps("2.")[0])
        plan = planned(practice)
        assert {plan[f"kopano-{name}"] for name in DAEMONS} == {"Restart"} and plan["mysqld"] == "Restart"
        practice.follow(steps("3.")[0])
        wait_planned(practice, dict.fromkeys(NEW, "Start"))
        practice.follow(steps("5.")[0])
        site.wait_started()
        wait_for(lambda: len(clients.acknowledged) > 50, 30, "more than a handful of mails")
    practice.configuration = "shipped"
    assert clients.misses() == []
    assert min(len(looks) for looks in clients.looks.values()) > 50
    assert clients.lost_or_doubled() == []
    assert site.snapshot() == before
    assert {node.name: node.processes("mariadbd") for node in practice.lab} == database
    of = agents(practice)
    assert {name: of[f"kopano-{name}"] for name in DAEMONS} == {name: f"ocf:kopano:{name}" for name in DAEMONS}
    assert not any(agent.startswith("lsb") for agent in of.values())
    acted = {event.subject for event in timeline.news() if event.kind in ("start", "stop", "promote", "demote")}
    assert acted == {"fence_bob", "fence_alice", "webapp-health"}
    assert site.subjects()[0] == "from the manual's time"
    assert not practice.lab.status().failures


@pytest.mark.parametrize("daemon", ["server", "dagent"])
def test_an_adopted_daemon_is_restarted_when_it_is_killed(practice, daemon):
    site = practice.site
    before = site.snapshot()
    os.kill(before[daemon].pid, signal.SIGKILL)
    wait_for(lambda: site.instances()[daemon] not in ([], [before[daemon]]), 20, f"a new kopano-{daemon}")
    site.wait_serving()
    practice.settle()
    after = site.snapshot()
    assert {name: after[name] for name in DAEMONS if name != daemon} == \
        {name: before[name] for name in DAEMONS if name != daemon}
    site.deliver(f"after kopano-{daemon} was restarted")


@pytest.mark.long
def test_pcs_clears_the_ground(practice):
    """pcs has no "overwrite": what the document deletes in a file leaves nothing behind but properties."""
    delete = steps("2.")[2].split("\nfor step")[0]
    with open(f"{os.path.dirname(__file__)}/lsb/manual.crm") as file:
        practice.home.put("/root/crm/manual.crm", file.read())
    said = practice.follow(delete.replace(
        "pcs cluster cib old.xml",
        "cibadmin --empty >old.xml; CIB_file=old.xml crm configure load update manual.crm") +
        "\ncat new.xml; rm old.xml new.xml manual.crm")
    left = said[said.index("<cib "):]
    assert "<primitive" not in left and "<rsc_" not in left and "no-quorum-policy" in left
