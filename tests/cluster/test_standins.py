# SPDX-License-Identifier: GPL-2.0-or-later
"""The stand-ins of the nodes: they refuse what the real ones refuse, for the drills rest on that."""
import os
import re
import subprocess

import pytest

from kopano_site import HERE, furnish
from lab import Lab
from namespaces import command, wait_for

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("lab")]

AGENT = "/usr/lib/ocf/resource.d/linbit/drbd"
CLONE = """
primitive drbd_mysql ocf:linbit:drbd params drbd_resource=mysql \
    op start interval=0 timeout=240s op stop interval=0 timeout=100s op promote interval=0 timeout=90s \
    op demote interval=0 timeout=90s op notify interval=0 timeout=90s \
    op monitor role=Promoted interval=2s timeout=20s op monitor role=Unpromoted interval=3s timeout=20s
clone drbd_mysql_clone drbd_mysql \
    meta promotable=true promoted-max=1 promoted-node-max=1 clone-max=2 clone-node-max=1 notify=true interleave=true
property stonith-enabled=false
"""


def disk(path):
    command(["truncate", "--size", "16M", path])
    command(["mkfs.ext4", "-q", path])


@pytest.fixture(scope="module")
def lab():
    with Lab(furnish=lambda image: furnish(image, "drbd"), disks={"/dev/sdb1": disk}) as running:
        running.wait_online()
        running["bob"].run("crm configure load update -", input=CLONE)
        wait_for(lambda: roles(running) == {"Primary/Secondary", "Secondary/Primary"}, 60, "one is promoted")
        running.settle()
        yield running


def roles(lab):
    return {node.out("drbdadm role mysql", check=False) for node in lab}


def by_role(lab):
    """(Primary, Secondary)"""
    primary = next(node for node in lab if node.out("drbdadm role mysql").startswith("Primary"))
    return primary, lab.others(primary)[0]


def test_only_one_is_primary(lab):
    primary, secondary = by_role(lab)
    refused = secondary.run("drbdadm primary mysql", check=False)
    assert refused.returncode and "Multiple primaries not allowed" in refused.stdout
    assert primary.out("test -b /dev/drbd0 && echo there") == "there"
    assert secondary.run("test -e /dev/drbd0", check=False).returncode


def test_what_is_in_use_is_not_demoted(lab):
    primary, _ = by_role(lab)
    primary.run("mount /dev/drbd0 /srv")
    refused = primary.run("drbdadm secondary mysql", check=False)
    primary.run("umount /srv")
    assert refused.returncode and "held open" in refused.stdout


def test_whoever_missed_writes_is_not_promoted(lab):
    primary, secondary = by_role(lab)

    def forbidden():
        return "drbd-fence-by-handler-mysql" in primary.out("cibadmin --query --scope constraints")
    primary.unplug("eth1")
    wait_for(forbidden, 30, "the handler has forbidden the other's promotion")
    refused = secondary.run("drbdadm primary mysql", check=False)
    assert refused.returncode and "has forbidden our promotion" in refused.stdout
    primary.plug("eth1")
    wait_for(lambda: not forbidden(), 30, "the other is up to date")
    assert secondary.out("drbdadm dstate mysql") == "UpToDate/UpToDate"


@pytest.mark.parametrize("password, answer", [("secret", "Status: ON"), ("wrong", "Failed")])
def test_fence_ipmilan_asks_the_bmc(lab, password, answer):
    words = ["fence_ipmilan", "-P", "-a", "10.0.0.126", "-l", "fencing", "-p", password, "-o", "status"]
    said = lab["bob"].run(words, check=False)
    assert answer in said.stdout and (said.returncode == 0) == (password == "secret")


@pytest.mark.skipif(not os.path.exists(AGENT), reason="drbd-utils isn't installed")
def test_the_agents_interface_is_the_real_ones():
    def interface(agent):
        text = subprocess.run([agent, "meta-data"], env={**os.environ, "OCF_ROOT": "/usr/lib/ocf"}, text=True,
                              stdout=subprocess.PIPE, check=True).stdout
        return (set(re.findall(r'<parameter name="(\w+)"', text)),
                set(re.findall(r'<action name="([\w-]+)"', text)))
    assert interface(f"{HERE}/drbd") == interface(AGENT)
