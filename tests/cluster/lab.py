# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Pacemaker and Corosync cluster on one machine, in Linux namespaces, at native speed.

    with Lab() as lab:
        lab.wait_online()
        lab["bob"].run("crm configure primitive d ocf:pacemaker:Dummy op monitor interval=1s")
        lab["bob"].power_off()                          # the plug
        lab.wait_started("d", on="alice")

A node is a process tree in namespaces of its own (node.py, node_init.py). A hub process owns one more
network namespace, with a bridge per network: no packet leaves the lab, and nothing is added to the
machine's own network. The hub is also the lab's client: outside() runs a function with its sockets there.
STONITH is real: fence_lab, or the real fence_ipmilan by way of the lab's ipmitool, asks the BMC (bmc.py), a
thread of this process, to cut a node's power.
A shared disk is one file with one loop device per node, each with a page cache of its own: mounting it
twice is possible, and as wrong, as on a SAN.

Several labs run side by side: all names and devices are a lab's own. Needs root.
"""
import fcntl
import glob
import grp
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time

import crm_status
import systemd_image
from bmc import BMC
from cgroups import ControlGroups
from namespaces import ENVIRONMENT, LoopDevice, children, command, in_network_of, wait_for
from node import Node

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = ["corosync", "pacemakerd", "crm", "crm_mon", "unshare", "nsenter", "losetup", "mkfs.ext4", "ip",
            "arping"]
MEMORY = "/dev/shm"                 # a tmpfs: the nodes' own disks needn't survive anything
PREFIX = "kopano-lab-"
ROOM = 256 << 20                    # bytes that a site takes of it, and some more

COROSYNC_CONF = """\
totem {{
    version: 2
    cluster_name: lab
    transport: knet
    crypto_cipher: none
    crypto_hash: none
    token: {token}
}}
nodelist {{
{nodes}}}
quorum {{
    provider: corosync_votequorum
    two_node: {two_node}
}}
system {{
    # Neither realtime scheduling nor control groups: the machine under the lab may forbid both.
    sched_rr: no
    move_to_root_cgroup: no
}}
logging {{
    to_stderr: no
    to_syslog: no
    to_logfile: yes
    logfile: /var/log/corosync/corosync.log
    timestamp: hires
}}
"""
COROSYNC_NODE = """\
    node {{
        nodeid: {node.number}
        name: {node.name}
        ring0_addr: {lan}
        ring1_addr: {replication}
    }}
"""
# dc-deadtime: how long a first node waits for others before it elects itself; the default is 20 s.
FIRST_CIB = """\
<cib validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="0"><configuration>
<crm_config><cluster_property_set id="cib-bootstrap-options">
<nvpair id="cib-bootstrap-options-dc-deadtime" name="dc-deadtime" value="1s"/>
</cluster_property_set></crm_config><nodes/><resources/><constraints/></configuration><status/></cib>
"""


def missing():
    """Why no lab can be built here; "" when one can."""
    if os.geteuid() != 0:
        return "the cluster lab needs root"
    if os.path.isdir(MEMORY) and os.statvfs(MEMORY).f_bavail * os.statvfs(MEMORY).f_frsize < ROOM:
        return f"the cluster lab needs {ROOM >> 20} MiB in {MEMORY}: mount -o remount,size=1G {MEMORY}"
    absent = [name for name in PROGRAMS if not shutil.which(name, path=ENVIRONMENT["PATH"])]
    return "the cluster lab needs " + ", ".join(absent) if absent else ""


class Lab:
    """A cluster of the nodes `names`.

    `furnish(directory)` fills the image that is laid over the machine's root directory in every node.
    `disks`: {device path in the nodes: function(path) that makes the disk as a file}, shared by all nodes.
    `token` (milliseconds) is corosync's: for how long a silent node counts as alive.
    `init`: what the nodes have as PID 1, "lab" (node_init.py: ready at once) or "systemd".
    """
    NETWORKS = {"eth0": "192.168.122", "eth1": "10.0.0"}     # the LAN, the replication link
    FIRST_NUMBER = 25                                       # bob is .25, alice .26

    def __init__(self, names=("bob", "alice"), furnish=None, disks=None, token=1000, init="lab"):
        os.makedirs(MEMORY, exist_ok=True)
        sweep()
        self.directory = tempfile.mkdtemp(prefix=PREFIX, dir=MEMORY)
        os.chmod(self.directory, 0o711)     # mysqld makes its data directory in here, as itself
        self._held = open(f"{self.directory}/held", "w")
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self.shared = f"{self.directory}/shared"
        self.image = f"{self.directory}/image"
        self.visible = _beside_root(HERE)
        self.token = token
        self.init = init
        self.bmc = self._hub = self.client = self.control_groups = None
        self.nodes = {}
        try:
            if init == "systemd":
                self.control_groups = ControlGroups(self.directory)
            os.mkdir(self.shared)
            os.mkdir(self.image)
            self._install("lab-cluster", "/usr/local/sbin/lab-cluster")
            self._install("fence_lab", "/usr/sbin/fence_lab")
            self._install("ipmitool", "/usr/bin/ipmitool")
            # ocf:heartbeat:Filesystem wants a modprobe; a node must not load anything into the kernel.
            os.symlink("/bin/true", f"{self.image}/usr/sbin/modprobe")
            if init == "systemd":
                systemd_image.furnish(self.image)
            if furnish:
                furnish(self.image)
            for number, name in enumerate(names, self.FIRST_NUMBER):
                self.nodes[name] = Node(self, name, number)
            for path, make in (disks or {}).items():
                file = f"{self.directory}/{os.path.basename(path)}.disk"
                make(file)
                for node in self:
                    node.disks[path] = LoopDevice(file)
        except BaseException:
            self.down()
            raise

    def __getitem__(self, name):
        return self.nodes[name]

    def __iter__(self):
        return iter(self.nodes.values())

    def __enter__(self):
        return self.up()

    def __exit__(self, *_):
        self.down()

    def _install(self, name, path):
        target = self.image + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(f"{HERE}/{name}", target)

    def others(self, node):
        """The living nodes but this one."""
        return [other for other in self if other is not node and other.alive()]

    # ---- up and down -----------------------------------------------------------------------------------

    def up(self):
        """Build the networks and boot all nodes; their cluster software is starting on return."""
        try:
            self._hub = subprocess.Popen(
                ["unshare", "--net", "--pid", "--fork", "--kill-child=SIGKILL", "cat"], env=ENVIRONMENT,
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
            self.client = wait_for(lambda: children(self._hub.pid), 10, "the hub", every=0.005)[0]
            self._ip("link set lo up")
            for device, network in self.NETWORKS.items():
                self._ip(f"link add br-{device} type bridge forward_delay 0")
                self._ip(f"addr add {network}.1/24 dev br-{device}")
                self._ip(f"link set br-{device} up")
            self.bmc = BMC(f"{self.shared}/bmc.sock", self.nodes,
                           {f"{self.NETWORKS['eth1']}.{100 + node.number}": node.name for node in self})
            for node in self:
                self._first_cib(node)
                node.power_on()
        except BaseException:
            self.down()
            raise
        return self

    def boot(self):
        """Switch on what is off, and start the cluster software where it was stopped; now."""
        self.bmc.forget_boots()
        for node in self:
            if node.alive():
                node.run(["lab-cluster", "start"])
            else:
                node.power_on()

    def down(self):
        """End every process of the lab and forget its files."""
        if self.bmc:
            self.bmc.close()            # before the nodes end: nobody may switch one on again
        for node in self:
            node.dismantle()
        if self._hub:
            self._hub.kill()
            self._hub.wait()
            self._hub.stdin.close()
        if self.control_groups:
            self.control_groups.close()
            self.control_groups = None
        self._held.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _first_cib(self, node):
        """Put the first CIB on a node's disk, owned as Pacemaker keeps it."""
        directory = node.path("/var/lib/pacemaker/cib")
        os.makedirs(directory)
        shutil.copystat("/var/lib/pacemaker", os.path.dirname(directory))
        with open(f"{directory}/cib.xml", "w") as file:
            file.write(FIRST_CIB)
        owner, group = pwd.getpwnam("hacluster").pw_uid, grp.getgrnam("haclient").gr_gid
        for path, mode in ((os.path.dirname(directory), 0o750), (directory, 0o750),
                           (f"{directory}/cib.xml", 0o600)):
            os.chown(path, owner, group)
            os.chmod(path, mode)

    def node_files(self, node):
        """{path: text} of what differs from node to node."""
        members = "".join(COROSYNC_NODE.format(node=member, lan=member.address("eth0"),
                                               replication=member.address("eth1")) for member in self)
        return {
            "/etc/hostname": f"{node.name}\n",
            "/etc/machine-id": f"{node.number:032x}\n",
            "/etc/hosts": "".join(["127.0.0.1 localhost\n"] +
                                  [f"{member.address()} {member.name}\n" for member in self]),
            "/etc/resolv.conf": "",                     # no name server: look-ups fail at once
            "/etc/corosync/corosync.conf": COROSYNC_CONF.format(token=self.token, nodes=members,
                                                                two_node=int(len(self.nodes) == 2)),
            "/etc/default/pacemaker": "PCMK_logfile=/var/log/pacemaker/pacemaker.log\n",
        }

    # ---- networks --------------------------------------------------------------------------------------

    def _ip(self, words, check=True):
        return command(["nsenter", "--target", str(self.client), "--net", "ip"] + words.split(), check=check)

    def connect(self, node, device):
        """Give a booting node its network card."""
        port = f"{node.name}-{device}"
        # A dead node's network namespace is freed after it, when the last of its connections has given up: minutes,
        # if that has unsent words. Its cable is pulled first.
        self._ip(f"link delete {port}", check=False)
        wait_for(lambda: self._ip(f"link show {port}", check=False).returncode != 0, 30, f"old {port} gone",
                 every=0.02)
        self._ip(f"link add {port} type veth peer name {device} netns {node.pid}")
        self._ip(f"link set {port} master br-{device} {'down' if device in node.unplugged else 'up'}")

    def link(self, node, device, state):
        """Set a node's cable "up" or "down"; a node that is off has none before it boots."""
        if node.alive():
            self._ip(f"link set {node.name}-{device} {state}")

    def outside(self, function):
        """Call `function()` with its sockets opened in the LAN, outside all nodes; returns its result."""
        return in_network_of(self.client, function)

    # ---- what the cluster says -------------------------------------------------------------------------

    def status(self, node=None):
        """crm_status.Status as `node` (or the first that has one) sees it, None while nobody knows of a DC."""
        for asked in [node] if node else self:
            if asked.alive():
                words = asked.run(["crm_mon", "-1", "--output-as=xml"], check=False, timeout=20).stdout
                status = crm_status.parse(words)
                if status:
                    return status
        return None

    def wait_online(self, timeout=90, node=None):
        """Until every node is a member, and the partition has quorum."""
        def online():
            status = self.status(node)
            return status and status.quorum and all(status.online.get(name) for name in self.nodes)
        wait_for(online, timeout, "all nodes online", every=0.1)

    def where(self, resource, node=None):
        """Names of the nodes where a resource runs."""
        status = self.status(node)
        return status.running.get(resource, []) if status else []

    def wait_started(self, resource, on=None, timeout=60):
        """Until a resource runs (there, when `on` names a node); seconds it took."""
        begin = time.monotonic()
        # A node that was just fenced has no word from a DC: ask the one that matters.
        asked = self.nodes[on] if on else None
        try:
            wait_for(lambda: on in self.where(resource, asked) if on else self.where(resource), timeout,
                     f"{resource} started" + (f" on {on}" if on else ""), every=0.1)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.report()}") from None
        return time.monotonic() - begin

    def settle(self, timeout=60, node=None):
        """Until the cluster has nothing more to do. (`crm_resource --wait` looks every two seconds only.)"""
        looks = []

        def idle():
            status = self.status(node)
            looks.append(bool(status) and not status.unclean and self[status.dc].alive() and
                         "S_IDLE" in self[status.dc].run(["crmadmin", "--status", status.dc], check=False).stdout)
            return looks[-2:] == [True, True]
        wait_for(idle, timeout, "the cluster is idle", every=0.25)

    def report(self):
        """The cluster's state in words, for a failure's message; of each node that sees it differently."""
        seen = {}
        for node in self:
            if node.alive():
                lines = node.out("crm_mon -1rf", check=False).splitlines()
                words = "\n".join(line for line in lines if not re.search("[Ll]ast (updated|change)", line))
                seen.setdefault(words, []).append(node.name)
        return "\n".join(f"--- seen by {', '.join(names)}\n{words}" for words, names in seen.items())

    def keep_logs(self, directory):
        """Copy the nodes' logs and the CIB's history to `directory`; returns it."""
        for node in self:
            for path in ("/var/log", "/var/lib/pacemaker/pengine"):
                if os.path.isdir(node.path(path)):
                    shutil.copytree(node.path(path), f"{directory}/{node.name}{path}", dirs_exist_ok=True,
                                    ignore_dangling_symlinks=True)
            if os.path.exists(f"{node.directory}/console.log"):
                shutil.copy(f"{node.directory}/console.log", f"{directory}/{node.name}")
        with open(f"{directory}/power.log", "w") as file:
            for event in self.bmc.events if self.bmc else []:
                clock = time.strftime("%H:%M:%S", time.localtime(event.at))
                file.write(f"{clock} {event.order}: {event.answer}\n")
        return directory


def _beside_root(path):
    """[the file system that `path` is on], [] when it is the root's: the nodes' overlay has only that one."""
    top = path
    while not os.path.ismount(top):
        top = os.path.dirname(top)
    return [] if top == "/" else [top]


def sweep():
    """Remove what labs whose process was killed have left: their directories, and loop devices over them."""
    for name in os.listdir(MEMORY):
        held = f"{MEMORY}/{name}/held"
        if name.startswith(PREFIX) and os.path.exists(held):
            with open(held) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue                            # its lab is alive
            shutil.rmtree(f"{MEMORY}/{name}", ignore_errors=True)
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        try:
            with open(path) as file:
                backing = file.read().strip()
        except OSError:
            continue                                    # detached this moment
        if backing.startswith(f"{MEMORY}/{PREFIX}") and backing.endswith("(deleted)"):
            command(["losetup", "--detach", f"/dev/{path.split('/')[3]}"], check=False)
