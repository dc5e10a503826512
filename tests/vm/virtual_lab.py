# SPDX-License-Identifier: GPL-2.0-or-later
"""Two virtual machines, bob and alice, in a LAN and with a replication link of their own.

The networks are bridges in a network namespace (the hub): no packet leaves the lab, and nothing is added to the
machine's own network. The hub is also the lab's client: outside() runs a function with its sockets there. STONITH
is real: the fence agent asks the lab's BMC (tests/cluster/bmc.py), by a way apart from every network.
"""
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time

import crm_status
from bmc import BMC
from machine import Machine
from namespaces import ENVIRONMENT, LabError, children, command, in_network_of, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = f"{ROOT}/build/vm"
NEEDS = ("qemu-system-x86_64", "ip", "unshare", "nsenter", "tar")
LOOK = 2.0          # seconds between two looks: each runs crm_mon on the machine's only, emulated processor


def missing():
    """Why no virtual machines can run here; "" when they can."""
    if os.geteuid() != 0:
        return "the virtual machines need root"
    if not os.path.exists(f"{BUILD}/image/fingerprint"):
        return "the virtual machines have no image yet: tests/vm/build-image"
    if not os.path.exists("/dev/net/tun"):
        return "the virtual machines need /dev/net/tun"
    absent = [name for name in NEEDS if not shutil.which(name, path=ENVIRONMENT["PATH"])]
    return "the virtual machines need " + ", ".join(absent) if absent else ""


class PowerControl(BMC):
    """The lab's BMC. `stay_off`: a machine that was fenced has a broken mains plug, and doesn't come back."""
    stay_off = False

    def _boot(self, node):
        if not self.stay_off:
            super()._boot(node)


class VirtualLab:
    """The machines `names`; `furnish(directory)` makes the tree that is laid over their root at the first boot."""
    NETWORKS = {"eth0": "192.168.122", "eth1": "10.0.0"}     # the LAN, the replication link
    FIRST_NUMBER = 25                                       # bob is .25, alice .26

    def __init__(self, furnish, names=("bob", "alice"), disk_size=640 << 20):
        self.image, self.disk_size, self.closed = f"{BUILD}/image", disk_size, False
        self.directory = tempfile.mkdtemp(prefix="lab-", dir=BUILD)
        self.bmc_socket = f"{self.directory}/bmc.sock"
        self.bmc = self._hub = self.client = None
        self.machines = {}
        try:
            tree = f"{self.directory}/site"
            os.mkdir(tree)
            furnish(tree)
            command(["tar", "--create", "--file", f"{tree}.tar", "--directory", tree, "--owner=0", "--group=0",
                     "--numeric-owner", "."])
            for number, name in enumerate(names, self.FIRST_NUMBER):
                self.machines[name] = Machine(self, name, number)
        except BaseException:
            self.down()
            raise

    def __getitem__(self, name):
        return self.machines[name]

    def __iter__(self):
        return iter(self.machines.values())

    def other(self, machine):
        """The other one of the two."""
        return next(other for other in self if other is not machine)

    # ---- up and down -----------------------------------------------------------------------------------

    def up(self):
        """Build the networks and boot all machines, without their cluster software."""
        self._hub = subprocess.Popen(
            ["unshare", "--net", "--pid", "--fork", "--kill-child=SIGKILL", "cat"], env=ENVIRONMENT,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
        self.client = wait_for(lambda: children(self._hub.pid), 10, "the hub")[0]
        self.ip("link set lo up")
        for device, network in self.NETWORKS.items():
            self.ip(f"link add br-{device} type bridge forward_delay 0")
            self.ip(f"addr add {network}.1/24 dev br-{device}")
            self.ip(f"link set br-{device} up")
            for machine in self:
                self.ip(f"tuntap add dev {machine.name}-{device} mode tap")
                self.ip(f"link set {machine.name}-{device} master br-{device} up")
        addresses = {f"{self.NETWORKS['eth1']}.{100 + machine.number}": machine.name for machine in self}
        self.bmc = PowerControl(self.bmc_socket, self.machines, addresses)
        boots = [threading.Thread(target=machine.power_on, args=[False]) for machine in self]
        for boot in boots:
            boot.start()
        for boot in boots:
            boot.join()
        if not all(machine.alive() for machine in self):
            raise LabError(f"a machine did not boot, see {BUILD}/failed")

    def down(self):
        """End every process of the lab and forget its files."""
        self.closed = True                  # a boot that is waiting for the switch comes too late
        if self.bmc:
            self.bmc.close()
        for machine in self:
            machine.power_off()
        if self._hub:
            self._hub.kill()
            self._hub.wait()
            self._hub.stdin.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # ---- networks --------------------------------------------------------------------------------------

    def in_hub(self, words):
        """The command that runs `words` in the hub's network."""
        return ["nsenter", "--target", str(self.client), "--net", *words]

    def ip(self, words):
        """One command of ip(8) for the hub."""
        command(self.in_hub(["ip", *words.split()]))

    def outside(self, function):
        """Call `function()` with its sockets opened in the LAN, outside the machines; returns its result."""
        return in_network_of(self.client, function)

    # ---- what the cluster says -------------------------------------------------------------------------

    def status(self, machine=None):
        """crm_status.Status as a machine (or the first that has one) sees it, None while nobody knows of a DC."""
        for asked in [machine] if machine else self:
            if asked.alive():
                try:
                    status = crm_status.parse(asked.out("crm_mon -1 --output-as=xml", check=False))
                except LabError:
                    continue                # its power went
                if status:
                    return status
        return None

    def where(self, resource):
        """Names of the machines where a resource runs."""
        status = self.status()
        return status.running.get(resource, []) if status else []

    def wait(self, condition, timeout, what, machine=None):
        """Until `condition(status)` holds; seconds it took. TimeoutError with the cluster's own words."""
        begin = time.monotonic()

        def holds():
            status = self.status(machine)
            return status and condition(status)
        try:
            wait_for(holds, timeout, what, every=LOOK)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.report()}") from None
        return time.monotonic() - begin

    def wait_online(self, timeout=300):
        """Until every machine is a member."""
        return self.wait(lambda status: status.quorum and all(status.online.get(name) for name in self.machines),
                         timeout, "both machines online")

    def settle(self, machine, timeout=300):
        """Until the cluster, as `machine` sees it, has nothing more to do."""
        machine.run(["crm_resource", "--wait", f"--timeout={timeout}s"], timeout=timeout + 30)

    def report(self):
        """The cluster's state in words, as each machine sees it, and DRBD's."""
        words = []
        for machine in self:
            if machine.alive():
                try:
                    seen = machine.out("crm_mon -1rfA; cat /proc/drbd", check=False)
                except LabError as error:
                    seen = str(error)
                words.append(f"--- {machine.name}\n{seen}")
            else:
                words.append(f"--- {machine.name} is off")
        return "\n".join(words)

    def keep_logs(self, directory):
        """Copy the logs of the machines that run, and what all said on their consoles, to `directory`."""
        for machine in self:
            kept = f"{directory}/{machine.name}"
            os.makedirs(kept, exist_ok=True)
            for name in ("console.log", "qemu.log"):
                if os.path.exists(f"{machine.directory}/{name}"):
                    shutil.copy(f"{machine.directory}/{name}", kept)
            if machine.alive():
                for name in machine.out("dmesg >/var/log/dmesg; cd /var/log; find . -name '*.log' -o -name syslog "
                                        "-o -name dmesg").split():
                    text = machine.run(["cat", f"/var/log/{name}"], check=False).stdout
                    with open(f"{kept}/{re.sub('[^a-z.]+', '-', name.removeprefix('./'))}", "w") as file:
                        file.write(text)
