# SPDX-License-Identifier: GPL-2.0-or-later
"""One node of the lab, seen from outside: power, commands, network cables, processes."""
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field

from namespaces import ENVIRONMENT, LabError, children, namespace, shut_down_filesystem, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
UNSHARE = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork",
           "--kill-child=SIGKILL"]
NSENTER = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"]


@dataclass(frozen=True)
class Process:
    """A process of a node. Pids are the lab's numbers (not the node's); `started` in clock ticks."""
    node: str
    name: str
    pid: int
    parent: int
    started: int
    state: str = field(compare=False)


class Node:
    """A machine of the lab: lab["bob"]. Its disk is a directory that outlives it: `path("/var/log/...")`."""

    def __init__(self, lab, name, number):
        self.lab, self.name, self.number = lab, name, number
        self.directory = f"{lab.directory}/{name}"
        self.pid = None                     # of its PID 1, as seen from the lab
        self.disks = {}                     # path in the node -> LoopDevice
        self.unplugged = set()              # cables that stay out, across reboots too
        self.dies_with_it = []              # called when its power goes: what its kernel held, and this one has
        self._process = None
        self._dismantled = False
        self._power = threading.Lock()      # the BMC and a drill may both be at the switch
        for name in ("upper", "work", "root"):
            os.makedirs(f"{self.directory}/{name}")

    def __repr__(self):
        return f"<node {self.name}>"

    def path(self, path):
        """Where a file of the node's disk lies here, if the node has written it; also while it is off."""
        return f"{self.directory}/upper{path}"

    def address(self, device="eth0"):
        """The node's own address on one of its networks."""
        return f"{self.lab.NETWORKS[device]}.{self.number}"

    # ---- power -----------------------------------------------------------------------------------------

    def alive(self):
        """Whether the power is on."""
        return self._process is not None and self._process.poll() is None

    def powered(self):
        """Whether the power is on, after a switch that is under way: "off" means that all disks are free."""
        with self._power:
            return self.alive()

    def power_on(self, start_cluster=True):
        """Boot; returns when the node is up (its cluster software is then starting)."""
        with self._power:
            if not self.alive() and not self._dismantled:
                self._boot(start_cluster)

    def _boot(self, start_cluster):
        self._bury()                        # it may have switched itself off
        shutil.rmtree(f"{self.directory}/work")
        os.makedirs(f"{self.directory}/work")
        config = {
            "name": self.name, "root": f"{self.directory}/root", "image": self.lab.image,
            "upper": f"{self.directory}/upper", "work": f"{self.directory}/work", "shared": self.lab.shared,
            "visible": self.lab.visible, "start": start_cluster, "init": self.lab.init, "environment": ENVIRONMENT,
            "disks": {path: (loop.major, loop.minor) for path, loop in self.disks.items()},
            "addresses": {device: f"{self.address(device)}/24" for device in self.lab.NETWORKS},
            "files": self.lab.node_files(self),
        }
        config_file = f"{self.directory}/config.json"
        with open(config_file, "w") as file:
            json.dump(config, file)
        with open(f"{self.directory}/console.log", "ab") as console:
            self._process = subprocess.Popen(
                [*UNSHARE, "/usr/bin/python3", "-Iu", f"{HERE}/node_init.py", config_file],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=console, env=ENVIRONMENT, cwd="/",
                start_new_session=True)                 # Ctrl-C is for the lab, not for its machines
        self.pid = wait_for(lambda: children(self._process.pid), 10, f"{self.name}: PID 1", every=0.005)[0]
        for device in self.lab.NETWORKS:
            self.lab.connect(self, device)
        if self.lab.control_groups:
            self.lab.control_groups.make(self.name, self.pid)
            self.dies_with_it.append(lambda: self.lab.control_groups.remove(self.name))
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != b"booted\n":
            raise LabError(f"{self.name} did not boot:\n" + self.console())

    def console(self):
        """What the node's PID 1 had to say."""
        with open(f"{self.directory}/console.log") as file:
            return file.read()

    def power_off(self):
        """Pull the plug: everything stops at once, and what was not synced to a shared disk is lost."""
        with self._power:
            if self.alive():
                for mount_point in self.mounts():
                    try:
                        shut_down_filesystem(f"/proc/{self.pid}/root{mount_point}")
                    except OSError as error:
                        print(f"{self.name}: {mount_point} was not cut off: {error}", file=sys.stderr)
                self._die()
            # "Off" means that nothing of the node can write to a shared disk any more.
            for loop in self.disks.values():
                wait_for(lambda: not loop.mounted(), 10, f"{self.name}: {loop.path} released", every=0.01)

    def dismantle(self):
        """The end of the lab: no need to be gentle or to look real."""
        with self._power:
            self._dismantled = True         # a boot that is waiting for the switch comes too late
            if self.alive():
                self._die()
            self._bury()
            for loop in self.disks.values():
                loop.close()

    def _die(self):
        try:
            os.kill(self.pid, signal.SIGKILL)           # the kernel ends its whole pid namespace
        except ProcessLookupError:
            pass
        self._process.wait()
        self._bury()

    def _bury(self):
        """Let go of what a dead node has left."""
        while self.dies_with_it:
            self.dies_with_it.pop()()
        if self._process:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None

    def mounts(self):
        """Mount points of the shared disks in the node."""
        numbers = {f"{loop.major}:{loop.minor}" for loop in self.disks.values()}
        try:
            with open(f"/proc/{self.pid}/mountinfo") as file:
                return [fields[4] for fields in map(str.split, file) if fields[2] in numbers]
        except OSError:
            return []

    # ---- commands --------------------------------------------------------------------------------------

    def run(self, command, check=True, timeout=60, **options):
        """Run a command in the node as root: words, or a line for the shell. CompletedProcess with text
        (stdout and stderr together); LabError with the output when `check` and it failed."""
        words = ["sh", "-c", command] if isinstance(command, str) else list(command)
        options.setdefault("stdin", subprocess.DEVNULL if "input" not in options else None)
        result = subprocess.run(["nsenter", "--target", str(self.pid)] + NSENTER + ["--"] + words, text=True,
                                env=ENVIRONMENT, timeout=timeout, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, **options)
        if check and result.returncode:
            raise LabError(f"{self.name}: {command}: exit code {result.returncode}\n{result.stdout}")
        return result

    def out(self, command, **options):
        """Output of a command in the node, stripped."""
        return self.run(command, **options).stdout.strip()

    def put(self, path, text, mode=0o644):
        """Write a file in the running node."""
        script = 'mkdir -p "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"'
        self.run(["sh", "-c", script, "put", path, f"{mode:o}"], input=text)

    def processes(self, *names):
        """The node's processes with one of these names (all without names), eldest first, no zombies."""
        return processes([self], *names)

    # ---- network faults --------------------------------------------------------------------------------

    def unplug(self, *devices):
        """Pull network cables (all without names); they stay out across reboots."""
        for device in devices or self.lab.NETWORKS:
            self.unplugged.add(device)
            self.lab.link(self, device, "down")

    def plug(self, *devices):
        """Put network cables back (all without names)."""
        for device in devices or self.lab.NETWORKS:
            self.unplugged.discard(device)
            self.lab.link(self, device, "up")


def processes(nodes, *names):
    """Processes of several nodes with one of these names (all without names), eldest first, no zombies."""
    homes = {namespace(node.pid, "pid"): node.name for node in nodes if node.alive()}
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                stat = file.read()
        except OSError:
            continue                                    # it ended while we looked
        name = stat[stat.index("(") + 1:stat.rindex(")")]
        state, parent, *fields = stat[stat.rindex(")") + 2:].split()
        if names and name not in names or state in "ZX":
            continue
        home = homes.get(namespace(entry, "pid"))
        if home:
            found.append(Process(home, name, int(entry), int(parent), int(fields[17]), state))
    return sorted(found, key=lambda process: (process.started, process.pid))
