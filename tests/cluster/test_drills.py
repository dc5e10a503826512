# SPDX-License-Identifier: GPL-2.0-or-later
"""Drills on a real two-node cluster, with the shipped configuration (crm/shared-storage).

The monitors' intervals are a fifth of the shipped ones, to save waiting. During every drill a watch makes
sure that nothing runs twice and no disk is mounted twice (the fixture `drill`).
"""
import imaplib
import os
import signal
import smtplib
import time

import pytest

from kopano_site import ADDRESS, DAEMONS, GROUPED, PORTS, Watch
from namespaces import wait_for
from timeline import Timeline

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("drills")]

DETECTION = 4               # seconds: the longest interval of a daemon's monitor in the drills
RESTART = 15                # seconds: more than the stop and start of any daemon takes here, beside a busy neighbour


def acted_on(timeline):
    """Resources that Pacemaker started or stopped since the last look."""
    return {event.subject for event in timeline.news() if event.kind in ("start", "stop")}


def wait_replaced(site, daemon, before, timeout):
    """Until another process does the daemon's work; returns it."""
    def replaced():
        now = site.instances()[daemon]
        return len(now) == 1 and now[0].pid != before[daemon].pid and now[0]
    return wait_for(replaced, timeout, f"a new kopano-{daemon}")


def assert_only_this_one_was_restarted(site, daemon, before, timeline):
    """On the same node; every other daemon is the very process it was; nobody was fenced."""
    after = site.snapshot()
    assert after[daemon].node == before[daemon].node
    assert {name: after[name] for name in DAEMONS if name != daemon} == \
        {name: before[name] for name in DAEMONS if name != daemon}
    assert acted_on(timeline) == {f"kopano-{daemon}"}
    assert site.lab.bmc.fenced() == site.fenced_before


@pytest.mark.parametrize("daemon", DAEMONS)
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_daemon_comes_back(drill, daemon, fault):
    before, timeline = drill.snapshot(), Timeline(drill.lab)
    timeline.news()
    os.kill(before[daemon].pid, fault)
    wait_replaced(drill, daemon, before, DETECTION + RESTART)
    if daemon in PORTS:
        wait_for(lambda: drill.answers(daemon), 5, f"kopano-{daemon} answers")
    drill.lab.settle()
    assert_only_this_one_was_restarted(drill, daemon, before, timeline)
    mail = f"after kopano-{daemon} was restarted"
    drill.deliver(mail)
    assert drill.subjects()[-1] == mail


def test_server_killed_under_idle_clients(drill):
    """Connected clients hold dagent's and gateway's stop up for 30 and 10 s, so these must not be stopped."""
    def connect():
        return (smtplib.LMTP(ADDRESS, PORTS["dagent"], timeout=5),
                imaplib.IMAP4(ADDRESS, PORTS["gateway"], timeout=5))
    lmtp, imap = drill.lab.outside(connect)
    before, timeline = drill.snapshot(), Timeline(drill.lab)
    timeline.news()
    begin = time.monotonic()
    os.kill(before["server"].pid, signal.SIGKILL)
    wait_replaced(drill, "server", before, DETECTION + 3)
    wait_for(lambda: drill.answers("server"), 3, "kopano-server answers")
    assert time.monotonic() - begin < DETECTION + 3
    drill.lab.settle()
    assert_only_this_one_was_restarted(drill, "server", before, timeline)
    lmtp.quit()
    imap.logout()


def test_the_watch_sees_a_daemon_that_runs_twice(site):
    other = site.lab.others(site.active())[0]
    with Watch(site) as watch:
        other.run("setsid kopano-spooler -F -c /etc/kopano/spooler.cfg >/dev/null 2>&1 </dev/null &")
        wait_for(lambda: watch.violations, 10, "the watch notes it")
    os.kill(other.processes("kopano-spooler")[0].pid, signal.SIGKILL)
    assert "kopano-spooler runs 2 times" in watch.violations[0]


def test_power_cut_of_the_database_node(drill):
    """MariaDB moves to the node of Kopano, whose daemons just wait for it."""
    drill.separate()
    victim, survivor = drill.active("mysqld"), drill.active("kopano-server")
    before, timeline = drill.snapshot(), Timeline(drill.lab)
    drill.deliver("before the database's node lost power")
    timeline.news()
    victim.power_off()
    drill.lab.wait_started("mysqld", on=survivor.name)
    wait_for(lambda: "before the database's node lost power" in drill.mails(), 20, "the mail is read")
    drill.deliver("after the database's node lost power")
    assert drill.subjects()[-1] == "after the database's node lost power"
    assert drill.snapshot() == before
    assert not acted_on(timeline) & {f"kopano-{name}" for name in DAEMONS}
    assert drill.lab.bmc.fenced() == drill.fenced_before + [victim.name]


def test_power_cut_of_the_node_with_everything(drill):
    drill.gather()
    victim = drill.active()
    survivor = drill.lab.others(victim)[0]
    drill.deliver("before the power cut")
    earlier = drill.subjects()
    victim.power_off()
    drill.wait_started(on=survivor.name)
    drill.wait_serving(timeout=10)
    drill.deliver("after the power cut")
    assert drill.subjects() == earlier + ["after the power cut"]
    assert drill.lab.bmc.fenced() == drill.fenced_before + [victim.name]
    # the node comes back, and takes nothing back
    drill.lab.boot()
    drill.lab.wait_online(node=survivor)
    drill.lab.settle(node=survivor)
    assert {drill.active(resource) for resource in GROUPED} == {survivor}
