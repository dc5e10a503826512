# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/migration.md from `systemd:` resources, on nodes whose init is systemd: what it says is typed, and no client
notices. And crm/node's files for systemd, tried.

The tests are steps of one story, in this order.
"""
import os
import re
import signal

import pytest

import systemd_image
from installed import SHARE
from kopano_site import DAEMONS, QUICK, Site, Watch
from migration import NEW, Clients, agents, forget_check, planned, steps, wait_planned
from namespaces import wait_for
from practice import Practice
from timeline import Timeline

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.xdist_group("systemd"), pytest.mark.timeout(300)]

UNITS = {**{f"kopano-{name}": f"kopano-{name}" for name in DAEMONS}, "mysqld": "mariadb"}     # resource -> unit
ADOPTED = {unit: f"{unit}.service" for unit in UNITS.values()}
DROP_INS = ("/run/systemd/system/{}.service.d/50-pacemaker.conf", "/etc/systemd/system/{}.service.d/50-cluster.conf")
DEPENDENCIES = "/etc/systemd/system/resource-agents-deps.target.d"
PRESET = "/etc/systemd/system-preset"
POSTFIX = "[Service]\nExecStart=/bin/sleep infinity\n"      # as far as systemd is concerned


class Machines(Practice):
    """The cluster for practice, on nodes that have systemd, and no init scripts."""
    MANUAL = "systemd/manual.crm"

    def furnish(self, node):
        self.site.hasten(node)


@pytest.fixture(scope="module")
def practice_cluster():
    """The cluster for practice, online; nothing is loaded."""
    if systemd_image.missing() and not os.environ.get("CI"):
        pytest.skip(systemd_image.missing())
    with Site("shared-storage", interval=QUICK, init="systemd") as site:
        site.lab.wait_online()
        yield Machines(site)


@pytest.fixture
def migrated(practice):
    """The cluster after the migration, also where the tests before that are left out."""
    if not practice.configuration:
        practice.manual()
    if practice.configuration == "manual":
        for node in practice.lab:
            practice.follow(steps("systemd:")[1], node)
        exchange(practice)
        practice.configuration = "shipped"
    practice.site.forget_failures()
    return practice


# ---- what systemd says and does ----------------------------------------------------------------------------

def show(node, unit, *names):
    """Properties of a unit."""
    said = node.out(["systemctl", "show", "--property", ",".join(names), unit])
    found = dict(line.split("=", 1) for line in said.splitlines())
    return [found[name] for name in names]


def states(practice, heading, block=0):
    """What systemctl says of each of the document's seven units; it ends with 1 or 3 unless all are "on"."""
    return practice.follow(steps(heading)[block].rstrip() + " || true").split()


def processes(practice):
    """{unit: its one process}"""
    database, = practice.site.databases()
    return {"mariadb": database, **{f"kopano-{name}": main for name, main in practice.site.snapshot().items()}}


def homes(practice):
    """{unit: the unit in whose control group its process is}"""
    found = {}
    for unit, process in processes(practice).items():
        with open(f"/proc/{process.pid}/cgroup") as file:
            found[unit] = re.search(r"^0::.*/(.*)$", file.read(), re.MULTILINE)[1]
    return found


def shut_down(node):
    """Shut a node down; what its systemd says of that."""
    before = len(node.console())
    node.run("systemctl poweroff", check=False)
    wait_for(lambda: not node.alive(), 60, f"{node.name} is off")
    return node.console()[before:]


def ended(console):
    """Services, in the order in which they ended."""
    return re.findall(r"^(\S+)\.service: Deactivated successfully", console, re.MULTILINE)


# ---- the document's steps ----------------------------------------------------------------------------------

def exchange(practice):
    """Steps 1 to 5."""
    practice.follow(steps("1.")[0])
    practice.follow(steps("2.")[1])
    plan = planned(practice)
    assert {plan[name] for name in UNITS} == {"Restart"}
    practice.follow(steps("3.")[0])
    wait_planned(practice, dict.fromkeys(NEW, "Start"))
    practice.follow(steps("5.")[0])
    practice.site.wait_started()


def let_go(practice, expected):
    """Steps 4 and 5 on the way back. Everything is in its unit then."""
    wait_planned(practice, expected)
    practice.follow(steps("5.")[0])
    practice.wait_together()
    practice.site.wait_serving()
    forget_check(practice)
    of = agents(practice)
    assert {name: of[name] for name in UNITS} == {name: f"systemd:{unit}" for name, unit in UNITS.items()}
    assert homes(practice) == ADOPTED
    practice.configuration = "manual"


# ---- the story ---------------------------------------------------------------------------------------------

def test_the_manuals_cluster_of_units(practice):
    practice.manual()
    practice.site.deliver("from the manual's time")
    of = agents(practice)
    assert {name: of[name] for name in UNITS} == {name: f"systemd:{unit}" for name, unit in UNITS.items()}
    assert homes(practice) == ADOPTED
    for node in practice.lab:
        for line in practice.follow(steps("Before")[0], node).splitlines():
            assert not line.startswith("ERROR"), line


def test_before(practice):
    """Pacemaker has told systemd to keep its hands off what Pacemaker has started; the document's drop-in, of all."""
    home, idle = practice.home, practice.idle
    assert states(practice, "systemd:") == 7 * ["disabled"]
    assert show(home, "mariadb", "Restart", "DropInPaths") == ["no", DROP_INS[0].format("mariadb")]
    assert show(idle, "mariadb", "Restart", "DropInPaths") == ["on-abnormal", ""]
    for node in (home, idle):
        practice.follow(steps("systemd:")[1], node)
        for unit in UNITS.values():
            restart, before = show(node, unit, "Restart", "Before")
            assert restart == "no" and "pacemaker.service" in before.split()


def test_preset(practice):
    """After it systemd starts the cluster at boot, and nothing that the cluster starts."""
    node = practice.idle
    node.run(f"mkdir -p {PRESET} && cp {SHARE}/crm/node{PRESET}/00-kopano-cluster.preset {PRESET}")
    node.run(["systemctl", "enable", *UNITS.values()])
    node.run(["systemctl", "disable", "corosync", "pacemaker"])
    node.run(["systemctl", "preset", "corosync", "pacemaker", *UNITS.values()])
    said = node.out(["systemctl", "is-enabled", "corosync", "pacemaker", *UNITS.values()], check=False)
    assert said.split() == 2 * ["enabled"] + 7 * ["disabled"]


def test_migration(practice):
    site = practice.site
    before, timeline = processes(practice), Timeline(practice.lab)
    timeline.news()
    with Clients(site, "migration") as clients:
        exchange(practice)
        wait_for(lambda: len(clients.acknowledged) > 50, 30, "more than a handful of mails")
    practice.configuration = "shipped"
    assert clients.misses() == []
    assert min(len(looks) for looks in clients.looks.values()) > 50
    assert clients.lost_or_doubled() == []
    assert processes(practice) == before and homes(practice) == ADOPTED
    of = agents(practice)
    assert {name: of[f"kopano-{name}"] for name in DAEMONS} == {name: f"ocf:kopano:{name}" for name in DAEMONS}
    assert not any(agent.startswith("systemd") for agent in of.values())
    acted = {event.subject for event in timeline.news() if event.kind in ("start", "stop", "promote", "demote")}
    assert acted == {"fence_bob", "fence_alice", "webapp-health"}
    assert not practice.lab.status().failures
    assert states(practice, "The way back to systemd:") == 7 * ["active"]


@pytest.mark.parametrize("unit, end, state", [
    pytest.param("mariadb", lambda node, process: os.kill(process.pid, signal.SIGKILL), "failed", id="killed"),
    pytest.param("kopano-ical", lambda node, process: node.run("systemctl stop kopano-ical"), "inactive",
                 marks=pytest.mark.long, id="stopped")])
def test_an_adopted_daemon_that_ends_is_started_once(migrated, unit, end, state):
    practice, before = migrated, processes(migrated)
    with Watch(practice.site) as watch:
        end(practice.home, before[unit])
        wait_for(lambda: show(practice.home, unit, "ActiveState") == [state], 10, f"{unit} is {state}")
        wait_for(lambda: unit in started(practice, before), 30, f"a new {unit}")
        practice.site.wait_started()
    assert not watch.violations
    practice.site.wait_serving()
    after = processes(practice)
    assert {name for name in after if after[name] != before[name]} == {unit}
    assert homes(practice)[unit] == "pacemaker.service"
    assert show(practice.home, unit, "ActiveState", "NRestarts") == [state, "0"]
    practice.site.deliver(f"after {unit} was started again")


def started(practice, before):
    """Units of which another process runs than before."""
    now = {"mariadb": practice.site.databases(),
           **{f"kopano-{name}": mains for name, mains in practice.site.instances().items()}}
    return {unit for unit, found in now.items() if found and before[unit] not in found}


@pytest.mark.long
def test_shutdown(migrated):
    """Pacemaker comes first, then what crm/node's drop-in names. Most of the daemons are adopted ones: systemd leaves
    them to Pacemaker."""
    practice, site, home, idle = migrated, migrated.site, migrated.home, migrated.idle
    for node in (home, idle):
        node.put("/etc/systemd/system/postfix.service", POSTFIX)
        node.run("systemctl daemon-reload && systemctl start postfix")
    order = ended(shut_down(idle))
    assert order.index("postfix") < order.index("pacemaker"), "needs no drop-in"
    idle.power_on()
    practice.lab.wait_online()
    site.wait_started()
    home.run(f"mkdir -p {DEPENDENCIES} && cp {SHARE}/crm/node{DEPENDENCIES}/kopano.conf {DEPENDENCIES} && "
             "systemctl daemon-reload")
    adopted = {unit for unit, group in homes(practice).items() if group == f"{unit}.service"}
    assert {"kopano-server", "kopano-dagent", "kopano-gateway", "kopano-spooler", "kopano-monitor"} <= adopted
    timeline = Timeline(practice.lab)
    timeline.news()
    said = shut_down(home)
    order = ended(said)
    assert order.index("pacemaker") < min(order.index(unit) for unit in ("postfix", "dbus", "corosync"))
    assert adopted <= set(order[:order.index("pacemaker")])
    assert not re.search("Stopping (kopano|mariadb)", said)
    practice.wait_together(idle)
    stops = {event.subject: event.text for event in timeline.news() if event.kind == "stop"}
    assert set(UNITS) <= set(stops) and set(stops.values()) == {"ok"}
    assert not practice.lab.bmc.fenced()
    home.power_on()
    practice.lab.wait_online()
    site.wait_started()
    site.wait_serving()
    assert {unit: show(home, unit, "ActiveState") for unit in ("pacemaker", *ADOPTED)} == {
        "pacemaker": ["active"], **dict.fromkeys(ADOPTED, ["inactive"])}, "systemd started nothing else at boot"
    assert set(homes(practice).values()) == {"pacemaker.service"}
    assert states(practice, "The way back to systemd:") == 7 * ["inactive"]


@pytest.mark.long
def test_harm_without_a_drop_in(migrated):
    """MariaDB was started by hand and found running: Pacemaker has written nothing for its unit. It is killed, and
    there are two."""
    practice, site, node = migrated, migrated.site, migrated.home
    node.run("crm_attribute --name maintenance-mode --update true")
    node.run(["rm", "-f", *(path.format("mariadb") for path in DROP_INS)])
    node.run("systemctl daemon-reload")
    os.kill(processes(practice)["mariadb"].pid, signal.SIGTERM)
    wait_for(lambda: not site.databases(), 20, "MariaDB has stopped")
    node.run("systemctl start mariadb")
    practice.follow(steps("3.")[0])
    wait_planned(practice, {"fence_bob": "Start", "fence_alice": "Start"})      # the history was their only memory
    practice.follow(steps("5.")[0])
    site.wait_started()
    before = processes(practice)
    assert homes(practice)["mariadb"] == "mariadb.service"
    os.kill(before["mariadb"].pid, signal.SIGKILL)
    two = wait_for(lambda: len(site.databases()) > 1 and site.databases(), 30, "a second MariaDB")
    assert before["mariadb"] not in two
    node.run("systemctl kill --signal=KILL mariadb && systemctl stop mariadb")
    site.wait_started()
    practice.follow(steps("systemd:")[1], node)


@pytest.mark.long
def test_way_back_after_a_switch_over(migrated):
    """Nothing of the daemons is in its unit: what runs would be started, so it takes an outage."""
    practice, site, file = migrated, migrated.site, "/root/before.xml"
    mails = site.subjects()
    assert "active" not in states(practice, "The way back to systemd:")
    if practice.home.run(["test", "-e", file], check=False).returncode:
        practice.home.put(file, practice.idle.out(["cat", file]))       # step 1 was typed there
    elsewhere = [("before.xml", "after.xml")]
    practice.follow(steps("1.")[0], instead=elsewhere)
    practice.follow(steps("The way back")[0])
    wait_for(lambda: {planned(practice).get(name) for name in UNITS} == {"Start"}, 20, "all are to be started")
    practice.follow(steps("The way back")[0], instead=elsewhere)
    wait_planned(practice, {"fence_bob": "Start", "fence_alice": "Start"})
    practice.follow(steps("5.")[0])
    site.wait_started()
    practice.follow(steps("The way back to systemd:")[1])
    apache = {"apache:0": "Start", "apache:1": "Start"}
    groups = dict.fromkeys(("mysql_fs", "mysql_ip", "kopano_fs", "kopano_ip", *UNITS), "Start")
    let_go(practice, {**groups, **apache})
    assert site.subjects() == mails


@pytest.mark.long
def test_way_back_at_once(practice):
    if not practice.configuration:
        practice.manual()
    before = processes(practice)
    with Clients(practice.site, "back") as clients:
        exchange(practice)
        practice.follow(steps("The way back")[0])
        let_go(practice, {})
    assert clients.misses() == [] and clients.lost_or_doubled() == []
    assert processes(practice) == before
