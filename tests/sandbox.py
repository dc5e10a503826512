#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A private machine for the tests: `sandbox.py [COMMAND...]` (default: a shell), as root.

The command runs in Linux namespaces of its own (mount, network, pid, ipc, uts):

* default ports and paths are free: nothing of the host listens here, and two sandboxes never meet;
* /tmp, /run, /dev/shm and /usr/local/sbin are empty; /etc, /var and /usr/lib/ocf are the host's, but
  what is written to them is private; user and group `kopano` exist;
* /dev has the host's devices and nothing else: nobody reads /dev/log unless a test does. The devices are
  shared with the host, loop devices above all: touch only those that you have made;
* the network is the loopback alone (127.0.0.1, ::1): no packet gets out;
* PID 1 reaps at once, as a real init does: daemons under test are orphaned to it;
* when the command ends, or the thread that started the sandbox, every process in here dies too.

The checkout stays visible and writable at its path, wherever that is, and every user can read it.
Runs on Python 3.6 and later.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import signal
import socket
import stat
import struct
import sys
import traceback

INSIDE = "KOPANO_OCF_SANDBOX"
CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HOSTNAME = "sandbox"

EMPTY = {"/tmp": 0o1777, "/run": 0o755, "/dev/shm": 0o1777, "/usr/local/sbin": 0o755}
PRIVATE = ("/etc", "/var", "/usr/lib/ocf")
DIRECTORIES = {"/run/lock": 0o1777, "/run/resource-agents": 0o1755, "/etc/kopano": 0o755,
               "/var/lib/kopano": 0o755, "/var/log/kopano": 0o755}

# <sched.h>, <sys/mount.h>, <sys/prctl.h>, <linux/sockios.h>
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET

PASSED_ON = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
WATCHED = PASSED_ON | {signal.SIGCHLD}

libc = ctypes.CDLL(None, use_errno=True)


def inside():
    """True in a process that runs in a sandbox."""
    return os.environ.get(INSIDE) == "1"


def missing():
    """Why no sandbox can be made here; "" when one can."""
    if os.geteuid() != 0:
        return "needs root"
    pid = os.fork()
    if pid == 0:
        os._exit(libc.unshare(NAMESPACES) and ctypes.get_errno())
    code = os.WEXITSTATUS(os.waitpid(pid, 0)[1])
    return "namespaces can't be made here: %s" % os.strerror(code) if code else ""


def main(command, session=True):
    """Runs `command` (a list of words) in a new sandbox and returns its exit code.

    session  whether it leads a session of its own, as on a real machine. A shell at a terminal can't: it
             would lose its job control. (A session led from outside has no number in here: getsid() says 0.)
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    # no sandbox outlives the one who asked for it, however that one ended
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _check(libc.unshare(NAMESPACES), "unshare")
    parent = os.getpid()
    init = os.fork()
    if init:
        return _wait_for(init, session)
    code = 1
    try:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if _parent_is_gone(parent):
            os._exit(1)
        if session:
            os.setsid()
        _furnish()
        child = os.fork()
        if child == 0:
            if session:
                os.setsid()
            _become(command, before)
        code = _wait_for(child, session)
    except OSError as err:
        sys.stderr.write("sandbox: %s\n" % err)
    except BaseException:       # not a word of it would be seen otherwise
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)      # the kernel ends what is left in the pid namespace


def _parent_is_gone(parent):
    # /proc is still the outer one: its "self" is the number seen from there
    with open("/proc/self/stat") as line:
        return int(line.read().rpartition(")")[2].split()[1]) != parent


def _wait_for(child, session):
    """Reaps whatever ends and passes signals on, until `child` has ended; returns its exit code."""
    while True:
        info = signal.sigwaitinfo(WATCHED)
        if info.si_signo == signal.SIGCHLD:
            for pid, status in iter(_reap, (0, 0)):
                if pid == child:
                    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        elif session or info.si_code <= 0:
            # what the terminal sends (Ctrl-C) reaches a child of the same session by itself
            os.kill(child, info.si_signo)


def _reap():
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return 0, 0


def _become(command, mask):
    for number in (signal.SIGPIPE, signal.SIGXFSZ):     # Python ignores these, other programs shouldn't
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    environment = dict(os.environ, **{INSIDE: "1"})
    environment.pop("TMPDIR", None)
    try:
        os.execvpe(command[0], command, environment)
    except OSError as err:
        sys.stderr.write("sandbox: %s: %s\n" % (command[0], err.strerror))
        sys.stderr.flush()
        os._exit(127 if err.errno == errno.ENOENT else 126)


# ---- furniture -------------------------------------------------------------------------------------------

def _furnish():
    os.umask(0o022)
    here = os.getcwd()
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    kept = _keep()
    _loopback_up()
    socket.sethostname(HOSTNAME)
    # the upper directories live on a tmpfs that is reachable through the overlays only
    store = "/run"
    _mount("tmpfs", store, "tmpfs", 0, "mode=0755")
    for top in PRIVATE:
        if os.path.isdir(top):
            place = "%s/%s" % (store, top.strip("/").replace("/", "-"))
            os.makedirs(place + "/upper")
            os.makedirs(place + "/work")
            shutil.copystat(top, place + "/upper")
            _mount("overlay", top, "overlay", 0,
                   "lowerdir=%s,upperdir=%s/upper,workdir=%s/work" % (top, place, place))
    _devices()
    for top, mode in EMPTY.items():
        if os.path.isdir(top):
            _mount("tmpfs", top, "tmpfs", MS_NOSUID, "mode=%o" % mode)
    for path, descriptor in kept:
        os.makedirs(path, exist_ok=True)
        _mount("/proc/self/fd/%d" % descriptor, path, None, MS_BIND | MS_REC)
        os.close(descriptor)
    _let_in(CHECKOUT)
    for path, mode in DIRECTORIES.items():
        os.makedirs(path, exist_ok=True)
        os.chmod(path, mode)
    _hosts()
    _account("kopano")
    os.chown("/var/lib/kopano", *_ids("kopano"))
    os.chown("/var/log/kopano", *_ids("kopano"))
    os.chdir(here)


def _devices():
    """A /dev of its own: the host's may have a /dev/log, and every devtmpfs is the same one."""
    host = os.open("/dev", os.O_RDONLY | os.O_DIRECTORY)
    names = os.listdir(host)
    _mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=0755")
    for name in names:
        entry, path = os.stat(name, dir_fd=host, follow_symlinks=False), "/dev/" + name
        kind = stat.S_IFMT(entry.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(path)
            _mount("/proc/self/fd/%d/%s" % (host, name), path, None, MS_BIND | MS_REC)
        elif kind == stat.S_IFLNK and name != "log":
            os.symlink(os.readlink(name, dir_fd=host), path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            _device(path, entry.st_mode, entry.st_rdev, entry.st_gid)
    # more loop devices than the host had use for until now; the kernel makes them when they are opened
    loop = os.stat("loop0", dir_fd=host) if "loop0" in names else None
    for number in range(64 if loop else 0):
        if "loop%d" % number not in names:
            device = os.makedev(os.major(loop.st_rdev), number)
            _device("/dev/loop%d" % number, loop.st_mode, device, loop.st_gid)
    os.close(host)


def _device(path, mode, number, group):
    os.mknod(path, mode, number)
    os.chmod(path, stat.S_IMODE(mode))
    os.chown(path, 0, group)


def _keep():
    """(path, descriptor) of what must stay visible though it lies in a tree that is about to be covered."""
    kept = []
    for path in sorted({CHECKOUT, os.getcwd(), os.path.realpath(sys.prefix)}):
        covered = any(path.startswith(top + "/") for top in list(EMPTY) + list(PRIVATE))
        if covered and not any(path == done or path.startswith(done + "/") for done, _ in kept):
            kept.append((path, os.open(path, os.O_RDONLY | os.O_DIRECTORY)))
    return kept


def _let_in(path):
    """Lets every user reach `path`, whatever the modes on the way: agents and daemons also run as others than root.

    A directory that only its owner may enter is covered by an open one with the same entries.
    """
    way = path.strip("/").split("/")
    for top in ["/" + "/".join(way[:count]) for count in range(1, len(way) + 1)]:
        if os.stat(top).st_mode & 0o5 == 0o5:
            continue
        closed = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        _mount("tmpfs", top, "tmpfs", MS_NOSUID, "mode=0755")
        for name in os.listdir(closed):
            source, target = "/proc/self/fd/%d/%s" % (closed, name), "%s/%s" % (top, name)
            if os.path.islink(source):
                os.symlink(os.readlink(source), target)
                continue
            if os.path.isdir(source):
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            _mount(source, target, None, MS_BIND | MS_REC)
        os.close(closed)


def _loopback_up():
    # a host may have IPv6 switched off for new interfaces; ::1 is wanted here
    for scope in ("all", "lo"):
        try:
            with open("/proc/sys/net/ipv6/conf/%s/disable_ipv6" % scope, "w") as switch:
                switch.write("0")
        except OSError:
            pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = bytearray(struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(control, SIOCGIFFLAGS, request)
        name, flags = struct.unpack("16sh22x", bytes(request))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", name, flags | IFF_UP))


def _hosts():
    with open("/etc/hosts", "w") as hosts:
        hosts.write("127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 %s\n" % HOSTNAME)


def _account(name):
    """A system user and group called `name`, unless the host has them already."""
    def taken(path):
        with open(path) as table:
            return {line.split(":")[0]: int(line.split(":")[2]) for line in table if line.count(":") > 2}

    groups, users = taken("/etc/group"), taken("/etc/passwd")
    free = next(n for n in range(999, 100, -1) if n not in groups.values() and n not in users.values())
    if name not in groups:
        _append("/etc/group", "%s:x:%d:" % (name, free))
        groups[name] = free
    if name not in users:
        _append("/etc/passwd", "%s:x:%d:%d::/var/lib/%s:/usr/sbin/nologin" % (name, free, groups[name], name))
        _append("/etc/shadow", "%s:!:19000::::::" % name)


def _append(path, line):
    with open(path, "a") as table:
        table.write(line + "\n")


def _ids(name):
    with open("/etc/passwd") as table:
        for line in table:
            fields = line.split(":")
            if fields[0] == name:
                return int(fields[2]), int(fields[3])
    raise OSError(errno.ENOENT, "no user called %s" % name)


def _mount(source, target, kind, flags, data=""):
    _check(libc.mount(source.encode(), target.encode(), kind.encode() if kind else None,
                      ctypes.c_ulong(flags), data.encode()), "mount %s" % target)


def _check(result, what):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (what, os.strerror(number)))


if __name__ == "__main__":
    try:
        if sys.argv[1:]:
            sys.exit(main(sys.argv[1:]))
        sys.exit(main([os.environ.get("SHELL") or "/bin/sh"], session=False))
    except OSError as problem:
        sys.exit("sandbox: %s" % problem)
