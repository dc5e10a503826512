# SPDX-License-Identifier: GPL-2.0-or-later
"""What a fault hits: the nodes, processes and disks meant, as they are at that moment."""
import os
import signal

from node import processes

DISKS = ("/var/lib/kopano", "/var/lib/mysql")


class Skip(Exception):
    """It can't be done at this moment."""


def node_of(run, role):
    """The node meant by "active" or "idle", now. Skip when there is none."""
    active = next((node for node in run.lab if node.alive() and DISKS[0] in node.mounts()), run.lab["bob"])
    node = active if role == "active" else next(node for node in run.lab if node is not active)
    if not node.alive():
        raise Skip(f"{node.name} is off")
    return node


def living(run):
    """A node that can be asked to do something. Skip when there is none."""
    for node in run.lab:
        if node.alive() and node.name not in run.guard.frozen and run.lab.status(node):
            return node
    raise Skip("no node is up")


def send(number, process):
    """Send a signal to the very process that was seen; whether it was still there."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{process.pid}/stat") as file:
            stat = file.read()
        if int(stat[stat.rindex(")") + 2:].split()[19]) != process.started:
            return False
        signal.pidfd_send_signal(handle, number)
    except (ProcessLookupError, FileNotFoundError):
        return False
    finally:
        os.close(handle)
    return True


def daemons(run, names):
    """Main processes of Kopano's daemons. Skip when none is there."""
    instances = run.site.instances()
    found = [process for name in names for process in instances[name]]
    if not found:
        raise Skip("not running")
    return found


def database(run):
    """mariadbd's process. Skip when it isn't there."""
    for process in processes(run.lab, "mariadbd"):
        return process
    raise Skip("MariaDB is not running")


def mounted(run, path):
    """The node that has a disk mounted. Skip when none has."""
    for node in run.lab:
        if node.alive() and node.name not in run.guard.frozen and path in node.mounts():
            return node
    raise Skip(f"{path} is not mounted")


def listed(found):
    """Processes, for people."""
    return ", ".join(f"{process.name} on {process.node}" for process in found)
