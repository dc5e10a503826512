# SPDX-License-Identifier: GPL-2.0-or-later
"""PID 1 of a lab's node becomes systemd: the last of what node_init.py does where the lab wants that.

systemd is told that it runs in a container. So that it can't change the machine under the lab, it may neither load
modules nor set the clock, and of /proc/sys it can write the network's part only. What it could start are the units that
the node has: systemd_image.py.

A process beside it, the keeper, does what the lab's own PID 1 does else: it writes /dev/log to /var/log/syslog and the
console to the lab's log, tells the lab when all that boots has booted, and when the lab ends it switches the node off.
"""
import ctypes
import os
import select
import signal
import socket
import tty

from namespaces import LIBC, MS_REC, mount

CLONE_NEWCGROUP = 0x02000000                                # <sched.h>
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_SHARED = 1, 32, 4096, 1 << 20
PR_CAPBSET_DROP, CAP_SYS_MODULE, CAP_SYS_TIME = 24, 16, 25
RB_POWER_OFF = 0x4321FEDC       # in a pid namespace: the kernel kills its PID 1, and so everything in it
NOTIFY = "/run/lab/notify"
SYSTEMD = "/lib/systemd/systemd"


def become(environment, start):
    """Execute systemd. `start`: the cluster software with it."""
    if os.getpid() != 1:
        raise OSError("only a node's PID 1 becomes its init")
    _control_groups()
    _protect_the_machine()
    mount(None, "/", None, MS_REC | MS_SHARED)      # units with mounts of their own see those that come later
    console, terminal = os.openpty()
    tty.setraw(terminal)
    with open("/dev/console", "w"):
        mount(os.ttyname(terminal), "/dev/console", None, MS_BIND)
    os.makedirs(os.path.dirname(NOTIFY), exist_ok=True)
    ready, log = receiver(NOTIFY), receiver("/dev/log")
    if os.fork() == 0:
        os.setsid()
        _keep(console, ready, log)
    for standard in (0, 1, 2):
        os.dup2(terminal, standard)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):         # Python ignores these, other programs shouldn't
        signal.signal(number, signal.SIG_DFL)
    os.execve(SYSTEMD, [SYSTEMD, "--system", f"--unit={'multi-user' if start else 'basic'}.target", "--log-level=info",
                        "--log-target=console", "--show-status=no"],
              {"container": "lab", "NOTIFY_SOCKET": NOTIFY, "SYSTEMD_COLORS": "0", "PATH": environment["PATH"],
               "LANG": environment["LANG"]})


def receiver(path):
    """A socket at `path` to which everybody may send."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(path)
    os.chmod(path, 0o666)
    return made


def _control_groups():
    """The control group that the lab has put us in is the root of what the node sees."""
    if LIBC.unshare(CLONE_NEWCGROUP) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2")


def _protect_the_machine():
    mount(None, "/sys", None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    mount("/proc/sys/net", "/proc/sys/net", None, MS_BIND)  # the node's own, as its network is
    for path in filter(os.path.exists, ("/proc/sys", "/proc/sysrq-trigger")):
        mount(path, path, None, MS_BIND | MS_REC)
        mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    for capability in (CAP_SYS_MODULE, CAP_SYS_TIME):
        if LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def _keep(console, ready, log):
    """The keeper. It never returns: the node ends with it, or before it."""
    try:
        with open("/var/log/syslog", "ab", buffering=0) as syslog:
            while True:
                for source in select.select([0, console, ready, log], [], [])[0]:
                    if source == console:
                        os.write(2, os.read(console, 65536).replace(b"\r", b""))
                    elif source == ready:
                        if b"READY=1" in ready.recv(65536).split(b"\n"):
                            os.write(1, b"booted\n")
                    elif source == log:
                        syslog.write(log.recv(65536).rstrip(b"\0\n") + b"\n")
                    elif not os.read(0, 4096):
                        return                              # the lab has ended
    finally:
        LIBC.reboot(RB_POWER_OFF)
        os._exit(1)
