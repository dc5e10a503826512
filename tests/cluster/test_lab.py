# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab itself: what the drills rest on. Power cuts lose what a real one loses, and STONITH decides."""
import os

import pytest

from lab import Lab
from namespaces import LabError, command, wait_for
from timeline import Timeline

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("lab")]

CONFIGURATION = """
primitive fencing stonith:fence_lab params pcmk_delay_base="bob:1s" op monitor interval=60s timeout=20s
primitive disk ocf:heartbeat:Filesystem params device=/dev/mapper/data directory=/srv fstype=ext4 \
    op start interval=0 timeout=60s op stop interval=0 timeout=60s op monitor interval=20s timeout=40s
primitive dummy ocf:pacemaker:Dummy op start interval=0 timeout=20s op stop interval=0 timeout=20s \
    op monitor interval=10s timeout=20s
group service disk dummy
property stonith-enabled=true
rsc_defaults resource-stickiness=100
"""


def empty_disk(path):
    command(["truncate", "--size", "32M", path])
    command(["mkfs.ext4", "-q", path])


@pytest.fixture(scope="module")
def cluster():
    with Lab(disks={"/dev/mapper/data": empty_disk}) as lab:
        lab.wait_online()
        lab["bob"].run("crm configure load update -", input=CONFIGURATION)
        yield lab


@pytest.fixture
def lab(cluster):
    cluster.bmc.broken = False
    for node in cluster:
        node.plug()
    cluster.boot()
    cluster.wait_online()
    cluster.wait_started("dummy")
    cluster.settle()
    cluster.bmc.forget()
    return cluster


def active(lab):
    return lab[lab.where("dummy")[0]]


def test_power_cut_loses_what_was_not_synced(lab):
    victim = active(lab)
    survivor = lab.others(victim)[0]
    victim.run("echo kept >/srv/synced; sync /srv/synced; sync -f /srv; echo gone >/srv/unsynced")
    victim.power_off()
    lab.wait_started("dummy", on=survivor.name)
    assert survivor.out("cat /srv/synced") == "kept"
    assert "unsynced" not in survivor.out("ls /srv")
    assert lab.bmc.fenced() == [victim.name]


def test_without_fencing_nothing_is_started_elsewhere(lab):
    victim = active(lab)
    survivor = lab.others(victim)[0]
    timeline, failed = Timeline(lab), []
    timeline.news()
    lab.bmc.broken = True
    victim.power_off()

    def tried_twice():
        failed.extend(event for event in timeline.news() if event.kind == "fence" and not event.good)
        return len(failed) > 1
    wait_for(tried_twice, 30, "two tries to fence")
    assert lab.status(survivor).unclean == [victim.name]
    assert survivor.mounts() == []
    lab.bmc.broken = False
    lab.wait_started("dummy", on=survivor.name)


def test_of_two_halves_one_survives(lab):
    lab["alice"].unplug()
    wait_for(lab.bmc.fenced, 30, "a fencing")
    survivor = next(node for node in lab if node.name not in lab.bmc.fenced())
    lab.wait_started("dummy", on=survivor.name)
    assert len(lab.bmc.fenced()) == 1 and survivor.alive()


def test_what_fails_in_a_node_says_so(lab):
    with pytest.raises(LabError, match="bob: ls /nowhere: exit code 2\nls: cannot access '/nowhere'"):
        lab["bob"].run("ls /nowhere")


def test_nothing_outlives_the_lab():
    with Lab(disks={"/dev/mapper/data": empty_disk}) as lab:
        pids = [lab.client] + [node.pid for node in lab]
        loops = [loop.path for node in lab for loop in node.disks.values()]
        directory = lab.directory
    for pid in pids:
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 5, f"process {pid} has ended")

    def detached():
        in_use = command(["losetup", "--list"]).stdout.split()
        return not any(path in in_use for path in loops)
    wait_for(detached, 5, "the loop devices are free")
    assert not os.path.exists(directory)
