# SPDX-License-Identifier: GPL-2.0-or-later
"""What chaos breaks in nodes, networks and storage, and what an administrator does meanwhile.

(services.py has what a fault is.)
"""
import os
import signal
import time

from chaos.targets import DISKS, Skip, living, mounted, node_of, send
from drills.scene import freeze
from namespaces import LabError, shut_down_filesystem
from node import processes


def cut_power(run, role):
    """A node loses its power; its BMC boots it when it is fenced."""
    node = node_of(run, role)
    run.guard.lost(node)
    run.broke(f"{node.name} ({role}) loses its power")
    node.power_off()
    yield


def cut_all_power(run, first):
    """Both nodes lose their power; one comes back, later the other."""
    run.broke("both nodes lose their power")
    for node in run.lab:
        node.power_off()
    run.lab.bmc.forget_boots()
    run.lab[first].power_on()
    run.say(f"{first} is back, alone")
    yield
    run.lab.boot()
    run.mended("both nodes have power")


def freeze_node(run, role):
    """No process of a node runs any more, until it is fenced."""
    node = node_of(run, role)
    run.guard.frozen.add(node.name)
    run.guard.lost(node)
    freeze(node)
    run.broke(f"{node.name} ({role}) hangs")
    boot = node.pid
    yield
    run.wait(lambda: node.pid != boot, 120, f"{node.name} is fenced")
    run.guard.frozen.discard(node.name)


def pause_node(run, role):
    """No process of a node runs for some seconds, as a virtual machine that is moved or starved."""
    node = node_of(run, role)
    run.guard.frozen.add(node.name)
    boot = node.pid
    freeze(node)
    run.broke(f"{node.name} ({role}) is asleep")
    yield
    if node.pid == boot:
        wake(run, node)
    run.guard.frozen.discard(node.name)         # also one that was fenced in its sleep


def wake(run, node):
    """All processes of a node run again."""
    woken = [process for process in processes([node]) if send(signal.SIGCONT, process)]
    run.guard.frozen.discard(node.name)
    run.mended(f"{node.name} wakes up: {len(woken)} processes")


def kill_corosync(run, role):
    """Corosync dies on a node."""
    node = node_of(run, role)
    found = node.processes("corosync")
    if not found:
        raise Skip(f"no corosync on {node.name}")
    run.guard.lost(node)
    if not send(signal.SIGKILL, found[0]):
        raise Skip("it ended just now")
    run.broke(f"corosync on {node.name} ({role}) gets SIGKILL")
    yield


def pull(run, role, *devices):
    """Network cables of a node are pulled."""
    node = node_of(run, role)
    node.unplug(*devices)
    run.broke(f"{node.name} ({role}): cable {' and '.join(devices)} is pulled")
    yield
    plug(run, node, *devices)
    run.mended(f"{node.name}: cable {' and '.join(devices)} is back")


def plug(run, node, *devices):
    """Put network cables back, whatever the node is doing."""
    def plugged():
        try:
            node.plug(*devices)
        except LabError:                # it is just booting, and has no network card yet
            return False
        return True
    run.wait(plugged, 30, f"cables of {node.name} are back")


def pull_lan(run, role):
    """A node's clients can't reach it."""
    return pull(run, role, "eth0")


def pull_replication(run, role):
    """The link between the nodes is cut."""
    return pull(run, role, "eth1")


def pull_both(run, role):
    """The nodes lose sight of each other."""
    return pull(run, role, "eth0", "eth1")


def break_bmc(run):
    """No BMC obeys."""
    run.lab.bmc.broken = True
    run.broke("the BMCs don't answer")
    yield
    run.lab.bmc.broken = False
    run.mended("the BMCs answer")


# ---- storage -------------------------------------------------------------------------------------------------

def make_readonly(run):
    """Kopano's file system becomes read-only; the cluster mounts it anew."""
    node = mounted(run, DISKS[0])
    if node.run(["mount", "-o", "remount,ro", DISKS[0]], check=False).returncode:
        raise Skip("somebody is just writing")
    run.broke(f"{DISKS[0]} on {node.name} is read-only")
    yield


def lose_storage(run, path):
    """A node loses its path to a disk: the device is gone, what is mounted from it fails."""
    node = mounted(run, path)
    boot = node.pid
    excuse = [node.name, time.time(), float("inf")]
    run.unstoppable.append(excuse)
    device = next(device for device in node.disks if os.path.basename(device) == os.path.basename(path))
    node.run(["rm", device])
    shut_down_filesystem(f"/proc/{node.pid}/root{path}")
    run.broke(f"{node.name} has lost the disk of {path}")
    yield
    run.wait(lambda: node.pid != boot or path not in node.mounts(), 120,
             f"{node.name} is fenced, or {path} was given up there in order")
    excuse[2] = time.time()
    loop = node.disks[device]

    def repaired():
        try:
            return node.run(["sh", "-c", f"test -e {device} || mknod -m 660 {device} b {loop.major} {loop.minor}"],
                            check=False).returncode == 0
        except LabError:
            # it is just being fenced after all, and finds the disk when it boots
            return node.pid != boot
    run.wait(repaired, 60, f"{node.name} has a path to {device} again")
    until_done(run, ["crm_resource", "--cleanup", "--node", node.name], f"{node.name} may have {path} again")


# All that a user may take; as good as nothing of it is really written. What we are in can't be unmounted any more.
FILL = """\
cd "$1" && mountpoint -q . || exit 1
owner=$(stat -c %u:%g .) room=$(df --block-size=1 --output=avail . | tail -1)
fill() { setpriv --reuid ${owner%:*} --regid ${owner#*:} --clear-groups "$@"; }
fill fallocate --length $((room - 2097152)) chaos-full
fill sh -c 'head -c 8M /dev/zero >chaos-rest' 2>/dev/null && exit 1
df --block-size=1K --output=avail . | tail -1
"""


def fill_disk(run, path):
    """A file system is full, but for what root may take."""
    filling = [f"{path}/chaos-{name}" for name in ("full", "rest")]
    node = mounted(run, path)
    said = node.run(["sh", "-c", FILL, "fill", path], check=False)
    if said.returncode:
        node.run(["rm", "-f", *filling], check=False)
        raise Skip(said.stdout.strip())
    run.broke(f"{path} on {node.name} is full: {said.stdout.split()[-1]} KiB left")
    yield
    # the file is on a disk that may just be on its way to the other node

    def removed():
        try:
            node = mounted(run, path)
        except Skip:
            return False
        return node.run(["rm", "-f", *filling], check=False).returncode == 0
    run.wait(removed, 300, f"{path} is mounted somewhere, to be emptied")
    run.mended(f"{path} has room again")


# ---- an administrator ----------------------------------------------------------------------------------------

def standby(run, role):
    """A node is put on standby, and online again."""
    node = node_of(run, role)
    living(run).run(["crm_standby", "--node", node.name, "--update", "on"], timeout=30)
    run.broke(f"{node.name} ({role}) is on standby")
    yield
    until_done(run, ["crm_standby", "--node", node.name, "--delete"], f"{node.name} is to be online")
    run.mended(f"{node.name} is online")


def move(run, group):
    """A group is moved, and may stay there."""
    places = run.lab.where(f"{group}_fs", living(run))
    others = [node for node in run.lab if node.alive() and [node.name] != places]
    if len(places) != 1 or not others:
        raise Skip(f"it runs on {places or 'no node'}, up are {[node.name for node in run.lab if node.alive()]}")
    target = others[0]
    said = living(run).run(["crm_resource", "--move", "--resource", group, "--node", target.name], check=False,
                           timeout=30)
    if said.returncode:
        raise Skip(said.stdout.strip())
    run.broke(f"{group} is moved to {target.name}")
    yield
    until_done(run, ["crm_resource", "--clear", "--resource", group], f"{group} may go where it wants")
    run.mended(f"{group} may go where it wants")


def until_done(run, words, what):
    """Give an administrator's command until a node takes it."""
    def done():
        try:
            return living(run).run(words, check=False, timeout=30).returncode == 0
        except Skip:
            return False
    run.wait(done, 120, what)
