# SPDX-License-Identifier: GPL-2.0-or-later
"""One virtual machine of the lab, seen from outside: power, commands, network cables (like tests/cluster/node.py).

QEMU emulates it (TCG: no KVM is needed), with Debian's kernel and two disks: sda is the system, sdb the manual's
"RAID10 device". Both files take what the machine writes at once, so what is on its disks survives a power cut
(kill -9 of QEMU), and what is only in its memory doesn't.
"""
import concurrent.futures
import itertools
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from types import SimpleNamespace

from namespaces import ENVIRONMENT, LabError

MEMORY = 1024                       # MiB
BOOT = 240                          # seconds: enough on a busy machine
ACCELERATOR = os.environ.get("QEMU_ACCEL", "tcg,thread=multi,tb-size=256")
KERNEL_WORDS = "console=ttyS0 quiet mitigations=off tsc=reliable no_timer_check panic=1 net.ifnames=0"


class Machine:
    """A machine of the lab: lab["bob"]."""

    def __init__(self, lab, name, number):
        self.lab, self.name, self.number = lab, name, number
        self.directory = f"{lab.directory}/{name}"
        self._process = self._agent = None
        self._up = threading.Event()
        self._power = threading.RLock()     # the BMC and a test may both be at the switch
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting = {}                  # id of a command -> Future of its answer
        os.mkdir(self.directory)
        shutil.copyfile(f"{lab.image}/root.img", f"{self.directory}/sda")
        with open(f"{self.directory}/sdb", "wb") as disk:
            disk.truncate(lab.disk_size)

    def address(self, device="eth0"):
        """The machine's own address on one of its networks."""
        return f"{self.lab.NETWORKS[device]}.{self.number}"

    # ---- power -----------------------------------------------------------------------------------------

    def alive(self):
        """Whether the power is on."""
        return self._process is not None and self._process.poll() is None

    powered = alive                         # there is no time between power and life, as seen from here

    def power_on(self, start_cluster=True):
        """Boot; returns when the machine obeys (its cluster software is then starting)."""
        with self._power:
            if self.alive() or self.lab.closed:
                return
            ours, theirs = socket.socketpair()
            with theirs, open(f"{self.directory}/qemu.log", "ab") as log:
                self._process = subprocess.Popen(self.lab.in_hub(self._qemu(theirs.fileno(), start_cluster)),
                                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRONMENT,
                                                 pass_fds=[theirs.fileno()], start_new_session=True)
            self._agent = ours
            threading.Thread(target=self._listen, args=(ours,), name=self.name, daemon=True).start()
            deadline = time.monotonic() + BOOT
            while not self._up.wait(0.2) and self.alive() and time.monotonic() < deadline:
                pass
            if not self._up.is_set():
                self.power_off()
                raise LabError(f"{self.name} did not boot, see {self.directory}/console.log and qemu.log")

    def _qemu(self, agent, start_cluster):
        here = self.directory
        words = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                 "-machine", "q35", "-accel", ACCELERATOR, "-cpu", "max", "-smp", "1", "-m", str(MEMORY),
                 "-kernel", f"{self.lab.image}/vmlinuz", "-initrd", f"{self.lab.image}/initrd.gz",
                 "-append", f"{KERNEL_WORDS} lab.name={self.name} lab.number={self.number} "
                            f"lab.cluster={int(start_cluster)}",
                 "-serial", f"file:{here}/console.log",
                 "-drive", f"file={self.lab.directory}/site.tar,if=virtio,format=raw,readonly=on",
                 "-device", "virtio-rng-pci,romfile=", "-device", "virtio-serial-pci,romfile=",
                 "-chardev", f"socket,id=agent,fd={agent}", "-device", "virtserialport,chardev=agent,name=agent"]
        words += ["-device", "virtio-scsi-pci,id=scsi,romfile="]
        for target, disk in enumerate(("sda", "sdb")):
            words += ["-drive", f"file={here}/{disk},if=none,id={disk},format=raw,cache=unsafe",
                      "-device", f"scsi-hd,bus=scsi.0,scsi-id={target},drive={disk}"]
        for device in self.lab.NETWORKS:
            words += ["-netdev", f"tap,id={device},ifname={self.name}-{device},script=no,downscript=no",
                      "-device", f"virtio-net-pci,netdev={device},romfile=,"
                                 f"mac=52:54:00:00:0{device[-1]}:{self.number:02x}"]
        return words

    def power_off(self):
        """Pull the plug."""
        with self._power:
            if self.alive():
                self._process.kill()
                self._process.wait()        # which ends _listen() too
            self._up.clear()

    # ---- commands --------------------------------------------------------------------------------------

    def run(self, command, check=True, timeout=120, input=""):
        """Run a command in the machine as root: words, or a line for the shell. Its `returncode` and `stdout`
        (stderr with it); LabError with the output when `check` and it failed, or when the power goes meanwhile."""
        if not self._up.wait(BOOT):
            raise LabError(f"{self.name} is not up")
        answer, number = concurrent.futures.Future(), next(self._numbers)
        self._waiting[number] = answer
        self._send({"id": number, "command": command, "input": input, "timeout": timeout})
        try:
            done = answer.result(timeout + 30)
        except concurrent.futures.TimeoutError:
            raise LabError(f"{self.name}: {command}: no answer") from None
        if check and done["code"]:
            raise LabError(f"{self.name}: {command}: exit code {done['code']}\n{done['output']}")
        return SimpleNamespace(returncode=done["code"], stdout=done["output"])

    def out(self, command, **options):
        """Output of a command in the machine, stripped."""
        return self.run(command, **options).stdout.strip()

    def _send(self, message):
        with self._sending:
            try:
                self._agent.sendall(json.dumps(message).encode() + b"\n")
            except OSError as error:
                raise LabError(f"{self.name}: {error}") from None

    def _listen(self, agent):
        """Take what the machine says, until its power goes."""
        with agent.makefile(encoding="utf-8", errors="replace") as lines:
            try:
                for line in lines:
                    message = json.loads(line)
                    if "order" in message:
                        threading.Thread(target=self._ask_bmc, args=(message,), daemon=True).start()
                    elif message["id"] == 0:
                        self._up.set()
                    else:
                        self._waiting.pop(message["id"]).set_result(message)
            except (OSError, ValueError):
                pass                        # cut off in the middle of a word
        for number in list(self._waiting):
            self._waiting.pop(number).set_exception(LabError(f"{self.name}: power cut"))
        agent.close()

    def _ask_bmc(self, message):
        """Hand an order of the machine's fence agent to the BMC, and the answer back."""
        with socket.socket(socket.AF_UNIX) as bmc:
            bmc.connect(self.lab.bmc_socket)
            bmc.sendall(message["order"].encode() + b"\n")
            answer = bmc.makefile().readline().strip()
        try:
            self._send({"id": message["id"], "answer": answer})
        except LabError:
            pass                            # its own power was cut

    # ---- network faults --------------------------------------------------------------------------------

    def unplug(self, device):
        """Pull a network cable; it stays out across reboots."""
        self.lab.ip(f"link set {self.name}-{device} nomaster")

    def plug(self, device):
        """Put it back."""
        self.lab.ip(f"link set {self.name}-{device} master br-{device}")
