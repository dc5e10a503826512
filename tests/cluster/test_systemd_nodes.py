# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's nodes whose init is systemd: what runs on them, what they can't touch, that nothing of them is left."""
import json
import os
import sys

import pytest

import systemd_image
from lab import Lab
from namespaces import command, wait_for

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("systemd")]

HERE = os.path.dirname(os.path.abspath(__file__))
# A lab that ends as a killed one does: nothing of its own code runs any more.
KILLED = f"""
import json, os, sys
sys.path.insert(0, "{HERE}")
from lab import Lab
lab = Lab(names=("carol",), init="systemd").up()
print(json.dumps([lab["carol"].pid, lab.directory]), flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def lab():
    if systemd_image.missing() and not os.environ.get("CI"):
        pytest.skip(systemd_image.missing())
    with Lab(names=("bob",), init="systemd") as lab:
        yield lab


def test_units_are_those_of_a_cluster_and_none_of_the_machines(lab):
    bob = lab["bob"]
    assert bob.out("systemctl is-system-running") == "running"
    services = {line.split()[0] for line in bob.out(
        "systemctl list-units --plain --no-legend --type=service,socket,timer,path,automount,swap").splitlines()}
    assert services == {"corosync.service", "dbus.service", "dbus.socket", "pacemaker.service",
                        "systemd-tmpfiles-setup.service"}
    assert lab.control_groups.processes("bob") > 4


@pytest.mark.parametrize("attempt", ["test -w /proc/sys/fs/nr_open", "test -w /sys/kernel",
                                     "setpriv --dump | grep -q sys_module"])
def test_nothing_of_the_machine_can_be_changed(lab, attempt):
    """What systemd starts is held; an administrator of the lab, who comes from outside, isn't."""
    said = lab["bob"].run(["systemd-run", "--wait", "--quiet", "sh", "-c", f"{attempt} || exit 9"], check=False)
    assert said.returncode == 9, said.stdout


def test_power_off_and_on(lab):
    bob = lab["bob"]
    bob.power_off()
    assert lab.control_groups.processes("bob") == 0
    bob.power_on()
    bob.run("systemctl poweroff", check=False)
    wait_for(lambda: not bob.alive(), 30, "bob is off")
    bob.power_on()
    lab.wait_online()


def test_a_killed_lab_ends_and_is_swept(lab):
    pid, directory = json.loads(command([sys.executable, "-c", KILLED], timeout=60).stdout)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 10, "carol has ended")
    name = os.path.basename(directory)
    assert name in lab.control_groups.labs()
    with Lab(init="systemd") as another:
        assert name not in another.control_groups.labs() and not os.path.exists(directory)
        assert os.path.basename(lab.directory) in another.control_groups.labs()
        names = os.path.basename(another.directory)
    assert names not in lab.control_groups.labs()
