# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/procedures.md, typed on a running cluster."""
import os
import re
import shutil

import pytest

from drills.traffic import Traffic
from kopano_site import GROUPED, ROOT
from namespaces import wait_for
from practice import Document, packages_corosync_conf
from timeline import Timeline

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("practice"), pytest.mark.timeout(400)]

PROCEDURES = Document("procedures.md")
OUT_AND_BACK = "Take a node out and back"
UPGRADE = 8                 # seconds
FAULTS = "/usr/lib/kopano-standin/faults"


def steps(heading):
    return PROCEDURES.commands(heading)


def typed(practice, heading, number, node=None, **options):
    """What a block of a procedure says when it is typed on a node (bob)."""
    return practice.follow(steps(heading)[number], node, **options)


def update_packages(node, upgrade):
    """Other files in the place of the daemons, as a package manager has it; the new server upgrades the schema."""
    node.run("for file in /usr/sbin/kopano-*; do cp -p $file $file.new; mv $file.new $file; done")
    if upgrade:
        node.put(f"{FAULTS}/server", f"upgrade {UPGRADE}\n")


def disks(node):
    """What DRBD says of both resources: own disk, the other one's."""
    return node.out("drbdadm dstate mysql; drbdadm dstate kopano", check=False).split("\n")


def acted(timeline):
    """{(resource, node)} of what was started since the last look."""
    return {(event.subject, event.node) for event in timeline.news() if event.kind == "start"}


@pytest.mark.long
@pytest.mark.skipif("KOPANO_SBIN" in os.environ, reason="needs a server that upgrades its schema on request")
def test_update_with_a_schema_upgrade(practice):
    heading = "Update Kopano"
    practice.shipped()
    old, new = practice.home, practice.idle
    typed(practice, "Maintenance procedures", 0)
    practice.site.deliver("before the update")
    timeline = Timeline(practice.lab)
    timeline.news()
    with Traffic(practice.site, "update") as clients:
        typed(practice, heading, 0)
        practice.settle()
        update_packages(new, upgrade=True)
        for line in typed(practice, heading, 2, new).splitlines():
            assert not line.startswith("ERROR"), line
        assert not clients.outage("gateway")
        typed(practice, heading, 3, tool="pcs")
        typed(practice, OUT_AND_BACK, 4)
        typed(practice, heading, 4)

        def upgrading():
            said = practice.lab.report()
            return "is upgrading its database schema" in said and said
        assert re.search(rf"kopano-server\s+\(ocf:kopano:server\):\s+Started {new.name}",
                         wait_for(upgrading, 60, "the upgrade is seen"))
        server = practice.site.instances()["server"]
        typed(practice, heading, 5, new)
        practice.site.wait_serving()
        assert practice.site.instances()["server"] == server and len(server) == 1
        new.run(["rm", f"{FAULTS}/server"])
        practice.site.deliver("after the update")
    # nobody has tried the old version on the new schema
    assert ("kopano-server", old.name) not in acted(timeline)
    update_packages(old, upgrade=False)
    typed(practice, heading, 6)
    practice.site.wait_started(new.name)
    assert clients.lost_or_doubled() == []
    assert {"before the update", "after the update"} <= set(practice.site.subjects())
    assert practice.lab.bmc.fenced() == practice.site.fenced_before


@pytest.mark.long
def test_nodes_out_and_back(practice):
    """The idle node with pcs; then the node with everything, on which the cluster software is stopped at once."""
    heading = OUT_AND_BACK
    practice.shipped()
    home, idle = practice.home, practice.idle
    before = practice.site.snapshot()
    typed(practice, heading, 0, tool="pcs")
    practice.settle()
    typed(practice, heading, 1, idle)
    wait_for(lambda: not practice.lab.status(home).online[idle.name], 20, f"{idle} has left")
    assert not practice.lab.status(home).unclean
    typed(practice, heading, 2, idle)
    practice.lab.wait_online(node=home)
    typed(practice, heading, 3, tool="pcs")
    practice.site.wait_started(home.name)
    typed(practice, heading, 4)
    assert practice.site.snapshot() == before

    typed(practice, heading, 1, home)
    practice.site.wait_serving()
    typed(practice, heading, 2, home)
    practice.lab.wait_online(node=idle)
    practice.site.wait_started(idle.name)       # nothing has gone back
    assert practice.lab.bmc.fenced() == practice.site.fenced_before


@pytest.mark.long
def test_apart_and_together(practice):
    """The database goes and comes; Kopano's daemons stay the same processes."""
    heading = "Database and Kopano apart, or together"
    practice.shipped()
    home, idle = practice.home, practice.idle
    practice.site.deliver("before the database moved")
    before = practice.site.snapshot()
    typed(practice, heading, 0)
    typed(practice, heading, 1)
    practice.site.wait_started()
    assert practice.site.active("mysqld") is idle and practice.site.active() is home
    wait_for(practice.site.mails, 20, "mail is read")
    typed(practice, heading, 0, instead=[("mysql alice", "mysql bob")])
    typed(practice, heading, 1)
    practice.site.wait_started(home.name)
    wait_for(practice.site.mails, 20, "mail is read")
    assert practice.site.snapshot() == before
    assert "cli-" not in home.out("cibadmin --query --scope constraints")


@pytest.mark.long
def test_power_loss_and_a_new_machine(practice):
    """A node comes back alone, and is told to go on; a new machine takes the other one's place, and takes over."""
    heading = "Both nodes lost power, one comes back"
    practice.shipped()
    home, idle, lab = practice.home, practice.idle, practice.lab
    practice.site.deliver("before the power went")
    for node in lab:
        node.power_off()
    lab.bmc.broken = True               # no power there either
    try:
        home.power_on()
        wait_for(lambda: (status := lab.status(home)) and status.unclean == [idle.name], 30, f"{home} is up")
        said = typed(practice, heading, 0)
        assert "Activity blocked" in said and "UNCLEAN" in said
        assert not any(lab.status(home).running[resource] for resource in GROUPED)
        typed(practice, heading, 1)
        wait_for(lambda: disks(home) == ["Consistent/DUnknown"] * 2, 40, "DRBD is up, and no more than consistent")
        practice.settle()
        assert not lab.status(home).running["mysql_fs"]
        typed(practice, heading, 2)
        practice.wait_together(home)
        practice.site.wait_serving()
    finally:
        lab.bmc.broken = False
    assert lab.bmc.fenced() == practice.site.fenced_before
    assert "before the power went" in practice.site.subjects()

    shutil.rmtree(idle.path(""))
    os.makedirs(idle.path(""))
    typed(practice, "Replace a node", 0)
    assert f'uname="{idle.name}"' not in home.out("cibadmin --query --scope nodes; cibadmin --query --scope status")
    idle.power_on(start_cluster=False)
    practice.furnish(idle)
    packages_start_a_cluster(idle)
    typed(practice, "Replace a node", 2, idle)
    lab.wait_online(node=home)
    home.run("crm resource cleanup")            # the other one's fence device couldn't be started
    practice.site.wait_started(home.name)
    typed(practice, OUT_AND_BACK, 4)

    typed(practice, "Planned switch-over", 0)
    typed(practice, "Planned switch-over", 1)
    practice.site.wait_started(idle.name)
    practice.site.wait_serving()
    assert "before the power went" in practice.site.subjects()
    assert lab.bmc.fenced() == practice.site.fenced_before


def packages_start_a_cluster(node):
    """As Debian's packages do it when they are installed; then the administrator puts the right file in place."""
    right = node.out("cat /etc/corosync/corosync.conf")
    node.put("/etc/corosync/corosync.conf", packages_corosync_conf())
    node.run("lab-cluster start")
    wait_for(lambda: node.run("cibadmin --query", check=False).returncode == 0, 30, f"{node} is a cluster of its own")
    node.put("/etc/corosync/corosync.conf", right + "\n")


# from, to; and of both procedures the blocks which stop what writes, stop the rest, load
MOVES = [("drbd", "shared-storage"), ("shared-storage", "drbd")]
WRITERS, REST, LOAD = 1, 3, 4


def from_to(old, new):
    """The heading of a procedure."""
    names = {"drbd": "DRBD", "shared-storage": "shared storage"}
    return f"From {names[old]} to {names[new]}"


def put_deployments(practice):
    """Copies of two folders, as the procedures have them in /root."""
    for deployment in ("shared-storage", "drbd"):
        for step in sorted(os.listdir(f"{ROOT}/crm/{deployment}")):
            with open(f"{ROOT}/crm/{deployment}/{step}") as file:
                practice.home.put(f"/root/{deployment}/{step}", practice.site.adapted(file.read()))


@pytest.mark.long
def test_from_drbd_to_shared_storage(practice):
    """On the cluster that runs. The lab's disks below DRBD are the same for both nodes: there is nothing to copy."""
    practice.shipped()
    put_deployments(practice)
    practice.site.deliver("before the move")
    for node in practice.lab:
        node.run("mkdir -p /dev/mapper; ln -sf ../sdb1 /dev/mapper/mysql; ln -sf ../sdb2 /dev/mapper/kopano")
    heading = from_to("drbd", "shared-storage")
    typed(practice, heading, WRITERS)
    running = practice.lab.status().running
    assert not running["mysqld"] and not any(practice.site.instances().values())
    assert running["mysql_fs"] and running["kopano_fs"], "there is nothing to copy from"
    typed(practice, heading, REST)
    typed(practice, heading, LOAD)
    practice.wait_together()
    practice.site.wait_serving()
    assert practice.home.out('readlink -f "$(findmnt -no SOURCE /var/lib/kopano)"') == "/dev/sdb2"
    assert "before the move" in practice.site.subjects()
    # webapp-health has looked while there was no server
    assert {failure[3] for failure in practice.lab.status().failures} <= {"OCF_DEGRADED"}
    assert practice.lab.bmc.fenced() == practice.site.fenced_before


@pytest.mark.long
@pytest.mark.parametrize("old, new", MOVES)
def test_a_moved_cib_is_that_of_a_new_cluster(practice, old, new):
    """In a file."""
    practice.lab.boot()
    node = practice.home
    put_deployments(practice)
    heading = from_to(old, new)
    load = steps(heading)[LOAD]
    stops = [re.search(r"crm resource stop .*?(?=  |$)", steps(heading)[number], re.MULTILINE)[0]
             for number in (WRITERS, REST)]
    nodes = '<nodes><node id="25" uname="bob"/><node id="26" uname="alice"/></nodes>'
    node.run(f"cibadmin --empty | sed 's#<nodes/>#{nodes}#; s#<cib #<cib have-quorum=\"1\" #' |"
             " tee /root/fresh.xml >/root/moved.xml")

    def on(file, words):
        return practice.follow(f"export CIB_file=/root/{file}\n{words}")
    everything = "(for step in 0*.crm; do echo load update $step; done; echo commit) | crm configure"
    on("fresh.xml", f"cd /root/{new}\n{everything}")
    on("moved.xml", f"cd /root/{old}\n{everything}")
    for stop in stops:
        on("moved.xml", stop)
    stopped = node.out("CIB_file=/root/moved.xml cibadmin --query --scope resources")
    assert stopped.count('name="target-role" value="Stopped"') == (6 if old == "drbd" else 4)
    on("moved.xml", load)
    for scope in ("resources", "constraints", "crm_config", "rsc_defaults"):
        fresh, moved = (sorted(node.out(f"CIB_file=/root/{file} cibadmin --query --scope {scope}").splitlines())
                        for file in ("fresh.xml", "moved.xml"))
        assert moved == fresh
