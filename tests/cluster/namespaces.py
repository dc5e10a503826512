# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lab needs of Linux: namespaces, bridges, loop devices, waiting.

Everything here works on objects that one process holds (a pipe, an open file), so that nothing outlives a
lab whose process was killed: its nodes see their stdin close, its loop devices detach themselves.
"""
import ctypes
import fcntl
import os
import subprocess
import threading
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_REC, MS_PRIVATE = 16384, 1 << 18
FS_IOC_SHUTDOWN = 0x8004587D        # ext4 and xfs: write nothing more (linux/fs.h)
CROWDED = os.environ.get("CROWDED") == "1"      # clusters share the machine with other tests, and nothing is measured
NO_LOG_FLUSH = 2                    # its argument for "as if the power went"

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root", "LANG": "C.UTF-8", "USER": "root", "LOGNAME": "root", "TERM": "dumb",
}


class LabError(Exception):
    """The lab itself (not what is tested in it) doesn't work."""


def wait_for(condition, timeout, what, every=0.05):
    """Poll `condition` until it is true; return its value. TimeoutError after `timeout` seconds.

    every: seconds between two looks, at least; more when a look takes long, so that waiting costs others no more than a
    quarter of a processor, where it is CROWDED a seventh.
    """
    deadline = time.monotonic() + timeout
    while True:
        asked = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s")
        time.sleep(max(every, (6 if CROWDED else 3) * (now - asked)))


def command(argv, check=True, **options):
    """Run a command of this machine; CompletedProcess with text. LabError with its output on failure."""
    result = subprocess.run(argv, env=ENVIRONMENT, text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if check and result.returncode:
        raise LabError(f"{' '.join(argv)}: exit code {result.returncode}\n{result.stdout}")
    return result


def children(pid):
    """Pids of the children of a process, [] when it is gone."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def namespace(pid, kind):
    """Identity of a process's namespace ("pid:[4026531836]"), None when the process is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return None


def in_network_of(pid, function):
    """Call `function()` in a thread that has moved to the network of `pid`; returns or raises what it does.

    Sockets opened there stay there: a client outside the cluster's nodes needs no process of its own.
    """
    def visit():
        with open(f"/proc/{pid}/ns/net") as file:
            if LIBC.setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        return function()
    return _in_a_thread(visit)


def in_mounts_of_its_own(function):
    """Call `function()` in a thread whose mounts nobody else sees, and which end with it (and with the last file that
    is open there); returns or raises what it does."""
    def apart():
        if LIBC.unshare(CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        return function()
    return _in_a_thread(apart)


def mount(source, target, kind=None, flags=0, data=None):
    """mount(2); OSError names what was tried."""
    words = [word.encode() if word is not None else None for word in (source, target, kind, data)]
    if LIBC.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]) != 0:
        raise OSError(ctypes.get_errno(), f"mount {source} {target} {kind} {data}")


def _in_a_thread(function):
    """Call `function()` in a thread, for what it changes is the thread's; returns or raises what it does."""
    outcome = {}

    def visit():
        try:
            outcome["result"] = function()
        except BaseException as error:      # handed to the caller whatever it is
            outcome["error"] = error

    thread = threading.Thread(target=visit, name="visit")
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def shut_down_filesystem(mount_point):
    """Stop ext4 or xfs from writing anything more, unwritten journal included.

    When a mount namespace dies the kernel unmounts cleanly, which no power cut does: unsynced data would
    survive. OSError when the file system can't do it.
    """
    descriptor = os.open(mount_point, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, ctypes.c_uint32(NO_LOG_FLUSH))
    finally:
        os.close(descriptor)


class LoopDevice:
    """A block device over a file, which goes away with the last process that has it open."""

    def __init__(self, image):
        self.path = command(["losetup", "--find", "--show", image]).stdout.strip()
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        # Detaching a device that is open only marks it: the kernel detaches it at the last close.
        command(["losetup", "--detach", self.path])
        number = os.fstat(self.descriptor).st_rdev
        self.major, self.minor = os.major(number), os.minor(number)

    def mounted(self):
        """Whether some mount namespace still has it mounted (an exclusive open is refused then)."""
        try:
            os.close(os.open(self.path, os.O_RDONLY | os.O_EXCL))
        except OSError:
            return True
        return False

    def close(self):
        """Let go of it; the kernel detaches it when nothing has it mounted any more."""
        if self.descriptor is not None:
            command(["losetup", "--detach", self.path], check=False)    # in case the mark was lost
            os.close(self.descriptor)
            self.descriptor = None
