# SPDX-License-Identifier: GPL-2.0-or-later
"""Innocent processes on every node, which look like Kopano's daemons, and the guard over them.

On each node: programs of other makers with a daemon's name and command line, whose pids stand in the daemons' pid
files; and a real kopano-dagent with a configuration of its own, as a second instance that somebody runs by hand.
These are all that is watched: a signal for any other process of a node (sshd, Apache) would be seen only if a service
suffered from it.
"""
import os
import signal
import subprocess
import threading
import time
from collections import Counter

from chaos.targets import send
from namespaces import LabError, command, wait_for
from node import processes

HERE = os.path.dirname(os.path.abspath(__file__))
DIRECTORY = "/opt/decoys"               # in the nodes
LOG = "/var/log/decoys"
WORDS = {"kopano-server": "-F -c /etc/kopano/server.cfg", "kopano-dagent": "-l -c /etc/kopano/dagent.cfg",
         "kopano-spooler": "-F -c /etc/kopano/spooler.cfg", "kopano-gateway": "-F -c /etc/kopano/gateway.cfg",
         "kopano-ical": "-F -c /etc/kopano/ical.cfg", "kopano-monitor": "-F -c /etc/kopano/monitor.cfg"}
NAMES = ("kopano-server", "kopano-dagent", "kopano-spooler")        # on every node from the beginning
DAGENT = f"""\
lmtp_listen = 127.0.0.1:2004
server_socket = file:///var/run/kopano/server.sock
log_method = file
log_file = {LOG}/dagent.log
"""
# NAME, its words; PID when it is to have that very one: the last one that the kernel gave is set to the one
# before.
START = f"""\
name=$1 words=$2 pid=$3
for try in 1 2 3 4 5 6 7 8 9 10; do
    [ -z "$pid" ] || echo $((pid - 1)) >/proc/sys/kernel/ns_last_pid
    (cd / && exec setsid bash -c 'exec -a "$0" "$@"' "/usr/sbin/$name" {DIRECTORY}/$name $words) \\
        </dev/null >>{LOG}/signals 2>&1 &
    if [ -z "$pid" ] || [ $! = "$pid" ] || [ $try = 10 ]; then break; fi
    kill -KILL $!
done
mkdir -p /run/kopano
echo $! >/run/kopano/${{name#kopano-}}.pid
echo $!
"""
OTHER_INSTANCE = f"""\
setsid /usr/sbin/kopano-dagent -l -c {DIRECTORY}/dagent.cfg </dev/null >>{LOG}/dagent.out 2>&1 &
echo $!
"""


def install(image):
    """Put the decoys into the nodes' image."""
    os.makedirs(image + DIRECTORY)
    os.makedirs(image + LOG)
    os.chmod(image + LOG, 0o1777)
    for name in WORDS:
        command(["gcc", "-O", "-Wall", "-o", f"{image}{DIRECTORY}/{name}", f"{HERE}/decoy.c"])
    with open(f"{image}{DIRECTORY}/dagent.cfg", "w") as file:
        file.write(DAGENT)


def innocent(pid):
    """Whether a process is a decoy."""
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return f"{DIRECTORY}/" in file.read() or os.readlink(f"/proc/{pid}/exe").startswith(f"{DIRECTORY}/")
    except OSError:
        return False


def inner_pid(pid):
    """The pid that a process has in its own namespace, None when it is gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next(int(line.split()[-1]) for line in file if line.startswith("NSpid:"))
    except (OSError, StopIteration):
        return None


class Guard(threading.Thread):
    """Keeps the decoys of every node alive across its boots, and notes what must never be: a decoy that was
    signalled; a disk mounted elsewhere though the node that had it went away and was not fenced.

    `with Guard(site) as guard: ...; assert not guard.violations`.
    """
    INTERVAL = 0.25
    DYING = 2.0                 # seconds in which a node dies, once its processes do

    def __init__(self, site):
        super().__init__(name="guard", daemon=True)
        self.site, self.lab = site, site.lab
        self.violations = []
        self.looks = 0
        self.kept = 0           # decoys, all boots and nodes together
        self.frozen = set()     # names of nodes whose processes are stopped by the run itself
        self._decoys = {}       # node -> (its PID 1, [Process])
        self._lost = {}         # node that went away -> (its mounts then, how often it had been fenced)
        self._read = {}         # node -> bytes of its decoys' notes that were read
        self._lock = threading.RLock()
        self._end = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join()
        for _, decoys in self._decoys.values():
            for decoy in decoys:
                send(signal.SIGKILL, decoy)

    def run(self):
        while not self.looks or not self._end.wait(self.INTERVAL):
            for node in self.lab:
                with self._lock:
                    self._keep(node)
                    self._look(node)
            self._look_at_disks()
            self.looks += 1

    # ---- decoys ----------------------------------------------------------------------------------------

    def _keep(self, node):
        """Start a node's decoys when it has booted."""
        boot, _ = self._decoys.get(node.name, (None, []))
        if node.alive() and node.pid != boot and node.name not in self.frozen:
            self._decoys[node.name] = (node.pid, [])
            try:
                for name in NAMES:
                    self.add(node, name)
                self._enter(node, int(node.out(["bash", "-c", OTHER_INSTANCE], timeout=20)))
            except (LabError, OSError, ValueError, TimeoutError, subprocess.TimeoutExpired):
                self._decoys.pop(node.name, None)       # it went away again; the next look tells

    def add(self, node, name, pid=""):
        """Start one more, with that very pid (of the node) if the kernel lets it; whether it has it."""
        with self._lock:
            if self._decoys.get(node.name, (None,))[0] != node.pid:
                raise LabError(f"{node.name} has just booted")
            got = int(node.out(["bash", "-c", START, "start", name, WORDS[name], str(pid)], timeout=20))
            self._enter(node, got)
            return got == pid

    def _enter(self, node, pid):
        def there():
            return [process for process in processes([node], *WORDS) if inner_pid(process.pid) == pid]
        self._decoys[node.name][1].extend(wait_for(there, 5, f"decoy {pid} on {node.name}", every=0.01))
        self.kept += 1

    def _look(self, node):
        boot, decoys = self._decoys.get(node.name, (None, []))
        paused = node.name in self.frozen       # the node may wake up between this and the question below
        there = {process.pid: process for process in processes([node], *WORDS)}
        for decoy in list(decoys):
            now = there.get(decoy.pid)
            if (now is None or now.started != decoy.started) and self._outlived(node, boot):
                self.note(f"{node.name}: an innocent process was killed: {decoy}")
                decoys.remove(decoy)
            elif now is not None and now.state in "Tt" and not paused and node.name not in self.frozen:
                self.note(f"{node.name}: an innocent process was stopped: {decoy}")
                os.kill(decoy.pid, signal.SIGCONT)
        try:
            with open(node.path(f"{LOG}/signals")) as file:
                file.seek(self._read.get(node.name, 0))
                for line in file.read().splitlines():
                    self.note(f"{node.name}: an innocent process was signalled: {line}")
                self._read[node.name] = file.tell()
        except OSError:
            pass

    def _outlived(self, node, boot):
        """Whether the node goes on living: with its power its processes end a moment before itself."""
        end = time.monotonic() + self.DYING
        while time.monotonic() < end:
            if not node.alive() or node.pid != boot:
                return False
            time.sleep(0.05)
        return True

    # ---- fencing ---------------------------------------------------------------------------------------

    def lost(self, node):
        """The node is about to go away: what it has mounted belongs to it until it is fenced."""
        self._lost[node.name] = (node.mounts(), Counter(self.lab.bmc.fenced())[node.name])

    def found(self, node):
        """It isn't away: it was asleep, and was not fenced; or all nodes are gone, and boot together."""
        self._lost.pop(node.name, None)

    def _look_at_disks(self):
        for name, (paths, fenced) in list(self._lost.items()):
            elsewhere = [(node.name, path) for node in self.lab if node.name != name for path in node.mounts()
                         if path in paths]
            # in this order: it may be fenced, and the disk mounted, while we look
            if Counter(self.lab.bmc.fenced())[name] > fenced:
                self.found(self.lab[name])
            elif elsewhere and name in self._lost:
                self.note(f"{name} went away and was not fenced, yet mounted are {elsewhere}")
                self.found(self.lab[name])

    def note(self, words):
        """Something that must never be."""
        self.violations.append(f"{time.strftime('%H:%M:%S')} {words}")
