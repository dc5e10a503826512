#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""PID 1 of one node of the lab: `unshare ... node_init.py CONFIG.json`, started by node.Node.

It waits on its standard input for "go" (the lab first puts the network cards eth0 and eth1 in), then gives
the node a private view of the whole machine:

    /           overlay: on top the node's own directory, its "disk" (it outlives the node: the CIB and the
                logs survive a power cut); below it the image common to all nodes; below that the machine's /
    /proc /sys  of the node's own pid and network namespaces
    /dev        a few devices of its own, and the shared disks under any name
    /dev/shm    private, for libqb names its ring buffers by pid
    /run /tmp   private and empty at every boot
    /lab        a directory common to all nodes: the BMC's socket

It collects orphans and writes /dev/log to /var/log/syslog, as init and syslogd would. When it dies (the
power is cut) the kernel kills every process of the node; so it does when the lab dies, for then its
standard input closes. In a lab whose nodes have systemd it hands over to that: node_systemd.py.
"""
import ctypes
import grp
import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import node_systemd  # noqa: E402
from namespaces import MS_PRIVATE, MS_REC, mount  # noqa: E402

LIBC = ctypes.CDLL(None, use_errno=True)
MS_NOSUID, MS_NODEV, MS_BIND = 2, 4, 4096
MNT_DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "ppc64le": 203, "s390x": 217, "riscv64": 41}    # system call

CHARACTER_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9),
                     "tty": (5, 0)}
DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
                "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}
# What systemd-tmpfiles would create at boot: path -> (mode, owner, group).
RUN_DIRECTORIES = {
    "/run/lock": (0o1777, "root", "root"),
    "/run/lock/apache2": (0o755, "www-data", "root"),
    "/run/crm": (0o750, "hacluster", "haclient"),
    "/run/mysqld": (0o755, "mysql", "mysql"),
    "/run/resource-agents": (0o1755, "root", "root"),
}


def build_root(config):
    """Mount the node's file systems under config["root"] and make that the root directory."""
    root = config["root"]
    mount(None, "/", None, MS_REC | MS_PRIVATE)         # what is mounted here stays here
    mount("overlay", root, "overlay", 0,
          "lowerdir={image}:/,upperdir={upper},workdir={work},index=off,xino=off".format(**config))
    for name in ("proc", "sys", "dev", "run", "tmp", "lab", "oldroot"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV)
    mount("sysfs", f"{root}/sys", "sysfs", MS_NOSUID | MS_NODEV)
    mount("run", f"{root}/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    mount("tmp", f"{root}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount(config["shared"], f"{root}/lab", None, MS_BIND)
    build_dev(f"{root}/dev", config["disks"])
    for path in config["visible"]:
        os.makedirs(root + path, exist_ok=True)
        mount(path, root + path, None, MS_BIND | MS_REC)
    if LIBC.syscall(PIVOT_ROOT[os.uname().machine], root.encode(), f"{root}/oldroot".encode()) != 0:
        raise OSError(ctypes.get_errno(), "pivot_root")
    os.chdir("/")
    if LIBC.umount2(b"/oldroot", MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), "umount /oldroot")


def build_dev(dev, disks):
    """Fill /dev: the usual few devices, and the shared disks {path: (major, minor)}."""
    mount("dev", dev, "tmpfs", MS_NOSUID, "mode=755,size=1m")
    for name, number in CHARACTER_DEVICES.items():
        os.mknod(f"{dev}/{name}", 0o020666, os.makedev(*number))
        os.chmod(f"{dev}/{name}", 0o666)
    for name, target in DEVICE_LINKS.items():
        os.symlink(target, f"{dev}/{name}")
    for path, number in disks.items():
        disk = dev + path.removeprefix("/dev")
        os.makedirs(os.path.dirname(disk), exist_ok=True)
        os.mknod(disk, 0o060660, os.makedev(*number))
    for name in ("shm", "pts", "mqueue"):
        os.mkdir(f"{dev}/{name}")
    mount("shm", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID, "newinstance,ptmxmode=0666,mode=620")
    mount("mqueue", f"{dev}/mqueue", "mqueue", MS_NOSUID | MS_NODEV)


def build_system(config):
    """Name the node, create what a boot creates, write the files that differ between nodes."""
    name = config["name"]
    LIBC.sethostname(name.encode(), len(name))
    for path, (mode, owner, group) in RUN_DIRECTORIES.items():
        os.makedirs(path, exist_ok=True)
        os.chmod(path, mode)
        try:
            os.chown(path, pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid)
        except KeyError:
            pass                                        # that software isn't installed: its tests will say so
    for path, text in config["files"].items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)


def build_network(addresses):
    """Set up lo and the network cards {device: "address/bits"}."""
    lines = ["link set lo up"]
    for device, address in addresses.items():
        lines += [f"addr add {address} brd + dev {device}", f"link set {device} up"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)


def keep_syslog():
    """Write what arrives at /dev/log to /var/log/syslog, for ever."""
    receiver = node_systemd.receiver("/dev/log")
    with open("/var/log/syslog", "ab", buffering=0) as log:
        while True:
            log.write(receiver.recv(65536).rstrip(b"\0\n") + b"\n")


def die_with_lab():
    """Cut the power when the lab's end of our standard input closes."""
    sys.stdin.read()
    os._exit(1)


def reap():
    """Collect what init collects: orphans, as soon as they end."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.2)                             # no child at the moment


def main():
    """Boot the node."""
    with open(sys.argv[1]) as file:
        config = json.load(file)
    if sys.stdin.readline().strip() != "go":
        sys.exit("the lab went away")
    os.umask(0o022)
    build_root(config)
    build_system(config)
    build_network(config["addresses"])
    if config["init"] == "systemd":
        node_systemd.become(config["environment"], config["start"])
    os.environ.clear()
    os.environ.update(config["environment"])
    threading.Thread(target=keep_syslog, daemon=True).start()
    threading.Thread(target=die_with_lab, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print("booted", flush=True)
    if config["start"]:
        subprocess.Popen(["/usr/local/sbin/lab-cluster", "start"], stdin=subprocess.DEVNULL)
    reap()


if __name__ == "__main__":
    main()
