# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes: which one is the daemon, what belongs to it, signals, waiting.

A process is identified by its pid and start time, and known to be a daemon of
ours by executable, role, configuration and pid namespace - never by a number
or a name alone.
"""
import os
import time

PROC = "/proc"
USUAL_DIRECTORIES = ("/usr/sbin", "/usr/local/sbin")
DUMP = "--dump-config"
_DELETED = " (deleted)"


def site_packages():
    """Make distribution packages (psutil, requests) importable; agents run without site for speed.

    site.main() would also run the code in .pth files, and take 5 ms.
    """
    import site
    import sys
    sys.path.extend(path for path in site.getsitepackages() if path not in sys.path and os.path.isdir(path))


def _slurp(path, limit=65536):
    # type: (str, int) -> bytes
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)


class Process:
    """One look at a process.

    pid, ppid, session   numbers
    start                start time as the kernel counts it, in clock ticks since boot
    state                one letter as in /proc/PID/stat: R S D T t Z X I
    exe                  executable, without " (deleted)"; "" for a kernel thread, a zombie, or another user's
    argv                 list of str
    """

    __slots__ = ("pid", "ppid", "session", "start", "state", "comm", "exe", "argv", "_threads", "_namespace")

    def __init__(self, pid):
        """Raises OSError when there is no such process."""
        raw = _slurp("%s/%d/stat" % (PROC, pid), 4096).decode("utf-8", "surrogateescape")
        # the name may hold blanks and parentheses: the last one ends it
        self.comm = raw[raw.index("(") + 1:raw.rindex(")")]
        fields = raw[raw.rindex(")") + 2:].split()
        self.pid, self.state = pid, fields[0]
        self.ppid, self.session = int(fields[1]), int(fields[3])
        self.start, self._threads = int(fields[19]), int(fields[17])
        self.exe = ""           # type: str
        self.argv = []          # type: list
        self._namespace = None

    def identify(self):
        """Fill in exe and argv; self, for chaining."""
        try:
            self.exe = os.readlink("%s/%d/exe" % (PROC, self.pid))
            if self.exe.endswith(_DELETED):
                self.exe = self.exe[:-len(_DELETED)]
        except OSError:
            self.exe = ""
        if self.exe:
            try:
                raw = _slurp("%s/%d/cmdline" % (PROC, self.pid))
            except OSError:
                raw = b""
            self.argv = [word.decode("utf-8", "surrogateescape") for word in raw.split(b"\0")[:-1]]
        return self

    @property
    def dead(self):
        """A zombie: it holds nothing and serves nothing, it only waits for its parent.

        While other threads of it are still ending, they hold its sockets.
        """
        return self.state in "ZXx" and self._threads <= 1

    @property
    def frozen(self):
        """Stopped by SIGSTOP or a debugger."""
        return self.state in "Tt"

    @property
    def same_namespace(self):
        """Whether it lives in our pid namespace (a container's daemon does not)."""
        if self._namespace is None:
            try:
                self._namespace = (os.readlink("%s/%d/ns/pid" % (PROC, self.pid))
                                   == os.readlink(PROC + "/self/ns/pid"))
            except OSError:
                self._namespace = False
        return self._namespace

    def again(self):
        """A fresh look at the same process; None when it is gone or its pid has another owner."""
        found = look(self.pid)
        return found if found and found.start == self.start else None

    @property
    def alive(self):
        """Whether it still exists and is no zombie."""
        found = self.again()
        return found is not None and not found.dead

    def age(self):
        """Seconds since it was started."""
        return max(0.0, _since_boot() - self.start / os.sysconf("SC_CLK_TCK"))

    def environ(self, name):
        """A variable of the environment it was started with, or None."""
        try:
            raw = _slurp("%s/%d/environ" % (PROC, self.pid), 1 << 20)
        except OSError:
            return None
        for entry in raw.split(b"\0"):
            key, _, value = entry.partition(b"=")
            if key == name.encode():
                return value.decode("utf-8", "surrogateescape")
        return None

    def descriptors(self):
        """What its descriptors point to (link texts); [] when that can't be read."""
        found = []      # type: list
        folder = "%s/%d/fd" % (PROC, self.pid)
        try:
            numbers = os.listdir(folder)
        except OSError:
            return found
        for number in numbers:
            try:
                found.append(os.readlink("%s/%s" % (folder, number)))
            except OSError:
                pass
        return found

    def catches(self, number):
        """Whether it has a handler for this signal; before, most signals just kill it."""
        return self._has(number, b"SigCgt:")

    def ignores(self, number):
        """Whether this signal does nothing to it."""
        return self._has(number, b"SigIgn:")

    def _has(self, number, field):
        try:
            for line in _slurp("%s/%d/status" % (PROC, self.pid)).split(b"\n"):
                if line.startswith(field):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
        except (OSError, ValueError, IndexError):
            pass
        return False

    def threads(self):
        """Number of its threads; 0 when it is gone."""
        try:
            return len(os.listdir("%s/%d/task" % (PROC, self.pid)))
        except OSError:
            return 0

    def __repr__(self):
        return "Process(%d %s)" % (self.pid, self.comm)


def look(pid):
    # type: (int) -> Optional[Process]
    """A look at the process; None when there is none (or it goes while we look)."""
    try:
        return Process(pid)
    except (OSError, ValueError, IndexError):
        return None


def _since_boot():
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", 7))


def own_age():
    """Seconds since this very process was started (0 when /proc can't tell)."""
    own = look(os.getpid())
    return own.age() if own else 0.0


def pids():
    """All pids of this namespace."""
    try:
        site_packages()
        import psutil
        return psutil.pids()
    except Exception:                       # pylint: disable=broad-except
        # stop must work on a node without (or with a broken) psutil
        return [int(name) for name in os.listdir(PROC) if name.isdigit()]


class Identity:
    """What makes a process this instance's daemon.

    binary     parameter: a path, or a name to look up
    config     configuration file it is started with
    role       words of which one must stand in the command line (dagent: -l, --listen, -d), or ()
    fallback   the configuration file it reads when its command line names none
    """

    def __init__(self, binary, config, role=(), fallback=""):
        self.binary, self.config, self.role, self.fallback = binary, config, tuple(role), fallback
        self._executables = None

    def executable(self):
        """The path to execute, or None when there is none."""
        if "/" in self.binary:
            return self.binary if _runnable(self.binary) else None
        for folder in os.environ.get("PATH", "").split(":") + list(USUAL_DIRECTORIES):
            path = os.path.join(folder, self.binary)
            if folder.startswith("/") and _runnable(path):
                return path
        return None

    def executables(self):
        """Paths that /proc/PID/exe may show for this daemon, also when the file is gone."""
        if self._executables is None:
            if "/" in self.binary:
                paths = [self.binary]
            else:
                folders = os.environ.get("PATH", "").split(":") + list(USUAL_DIRECTORIES)
                paths = [os.path.join(folder, self.binary) for folder in folders if folder.startswith("/")]
            self._executables = set(paths) | set(os.path.realpath(path) for path in paths)
        return self._executables

    def is_ours(self, process):
        # type: (Process) -> bool
        """Executable, role, configuration and pid namespace are those of this instance."""
        if process.exe in self.executables() and not process.argv:
            time.sleep(0.01)        # it is just executing itself anew, as the daemons do to drop privileges
            process.identify()
        return (process.exe in self.executables() and self._in_role(process.argv)
                and self._reads(process) and process.same_namespace)

    def _in_role(self, argv):
        # one that is asked for its configuration is no daemon, though all the rest is the same
        return DUMP not in argv and (not self.role or any(word in self.role for word in argv[1:]))

    def _reads(self, process):
        named = config_word(process.argv)
        if named is None:
            folder = process.environ("KOPANO_CONFIG_PATH")
            named = os.path.join(folder, os.path.basename(self.fallback)) if folder else self.fallback
        # daemons change to /, so that is what a relative name is seen from
        path = os.path.join("/", named)
        return (os.path.normpath(path) == os.path.normpath(self.config)
                or os.path.realpath(path) == os.path.realpath(self.config))


def _runnable(path):
    try:
        return os.path.isfile(path) and os.access(path, os.X_OK)
    except ValueError:
        return False


def config_word(argv):
    # type: (list) -> Optional[str]
    """The configuration file that a command line names, or None."""
    named = None
    words = argv[1:]
    for place, word in enumerate(words):
        if word == "--":
            break
        if word in ("-c", "--config"):
            named = words[place + 1] if place + 1 < len(words) else ""
        elif word.startswith("--config="):
            named = word[len("--config="):]
        elif word.startswith("-c") and len(word) > 2:
            named = word[2:]
    return named


# A spooler child that is handing a mail to the MTA; it ignores SIGTERM, and killing it may send the mail twice.
SENDING = "--send-message-entryid"


def is_sending(process):
    """Whether this is a spooler's child in the middle of a mail."""
    return any(word.startswith(SENDING) for word in process.argv)


def scan(identity):
    # type: (Identity) -> list
    """All living processes of this instance, oldest first: the daemon itself, its children of the same kind."""
    found = []
    for pid in pids():
        process = look(pid)
        if process is None or process.dead:
            continue
        process.identify()
        if process.exe and identity.is_ours(process):
            found.append(process)
    found.sort(key=lambda entry: (entry.start, entry.pid))
    return found


def leads(process):
    # type: (Process) -> bool
    """Whether this is a daemon, not a child of one: it listens, or takes HUP and TERM.

    Children that serve a client take no HUP, the one that writes the log ignores TERM, and both have closed the
    daemon's listeners (kopano-core, UnixUtil.cpp and ECLogger.cpp).
    """
    import signal
    tcp, unix = listening(process)
    return bool(tcp or unix) or process.catches(signal.SIGHUP) and not process.ignores(signal.SIGTERM)


def main_and_orphans(found, known_pid=0):
    # type: (list, int) -> tuple
    """Split a scan into (the daemon itself or None, processes whose daemon is dead)."""
    mains, orphans = mains_and_orphans(found, known_pid)
    return (mains[0] if mains else None), orphans


def mains_and_orphans(found, known_pid=0):
    # type: (list, int) -> tuple
    """Split a scan into ([daemons, the oldest first], processes whose daemon is dead).

    A daemon is the topmost process of its kind.  What a dead one leaves behind still carries its session, whose
    leader is gone then; but so does an 8.x that has put itself into the background.
    known_pid: pid that the daemon is known to have had, or 0.
    """
    by_pid = dict((entry.pid, entry) for entry in found)
    tops = [entry for entry in found if entry.ppid not in by_pid]
    mains, orphans = [], []
    for entry in tops:
        if is_sending(entry):
            orphans.append(entry)
        elif entry.pid in (entry.session, known_pid):
            mains.append(entry)
        elif entry.session and (entry.session == known_pid or _is_gone(entry.session) and not leads(entry)):
            orphans.append(entry)           # session 0: its leader is outside our pid namespace
        else:
            mains.append(entry)
    return mains, orphans


def _is_gone(pid):
    found = look(pid)
    return found is None or found.dead


def family(process):
    # type: (Process) -> list
    """Everything below a process and in the session that it leads, itself excluded."""
    parents, looks = {}, {}
    for pid in pids():
        entry = look(pid)
        if entry is not None and not entry.dead:
            looks[pid] = entry
            parents[pid] = entry.ppid
    if process.pid in looks and looks[process.pid].start != process.start:
        return []               # its pid is somebody else's by now, and so is what is below that
    members = []
    for pid, entry in looks.items():
        if pid == process.pid:
            continue
        above, hops = pid, 0
        while above in parents and above != process.pid and hops < 1000:
            above, hops = parents[above], hops + 1
        leads = process.session == process.pid and entry.session == process.pid
        if (above == process.pid or leads) and entry.start >= process.start:
            members.append(entry.identify())
    return members


def send(process, number):
    # type: (Process, int) -> bool
    """Signal exactly this process; False when it is gone (or its pid is somebody else's by now).

    Raises PermissionError.
    """
    if hasattr(os, "pidfd_open"):
        try:
            fd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return False
        except OSError:
            fd = -1                         # a kernel before 5.3
        if fd >= 0:
            import signal
            try:
                # what the descriptor holds is ours only if the start time still is: a reused pid shows here
                if process.again() is None:
                    return False
                signal.pidfd_send_signal(fd, number)
                return True
            except ProcessLookupError:
                return False
            finally:
                os.close(fd)
    if process.again() is None:
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def read_pid(path):
    # type: (str) -> int
    """The number in a pid file; 0 for anything else than one plain number in a regular file.

    The daemon's user owns that directory: a link could lead to a device that does something when opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError):
        return 0
    try:
        if os.fstat(fd).st_mode & 0o170000 != 0o100000:
            return 0
        text = os.read(fd, 64).strip()
    except OSError:
        return 0
    finally:
        os.close(fd)
    if not text.isdigit() or len(text) > 10:
        return 0
    return int(text)


# ---- sockets of a process ------------------------------------------------------------------------------------------

def _address(raw):
    """An address as /proc/net/tcp{,6} writes it (words of host byte order), as text."""
    import _socket
    import sys
    data = bytes.fromhex(raw)
    if sys.byteorder == "little":
        data = b"".join(data[i:i + 4][::-1] for i in range(0, len(data), 4))
    return _socket.inet_ntop(_socket.AF_INET if len(data) == 4 else _socket.AF_INET6, data)


def sockets_of(process):
    """Inodes (str) of its sockets."""
    return set(link[8:-1] for link in process.descriptors() if link.startswith("socket:["))


def listeners():
    """All listening stream sockets of our network namespace: [(inode, host, port)] and [(inode, path)]."""
    tcp, unix = [], []
    for name in ("tcp", "tcp6"):
        try:
            with open("%s/net/%s" % (PROC, name)) as table:
                next(table, None)
                for line in table:
                    words = line.split()
                    if len(words) > 9 and words[3] == "0A":
                        host, _, port = words[1].rpartition(":")
                        tcp.append((words[9], _address(host), int(port, 16)))
        except (OSError, ValueError):
            pass
    try:
        with open(PROC + "/net/unix", errors="surrogateescape") as table:
            next(table, None)
            for line in table:
                words = line.rstrip("\n").split(None, 7)
                # flag 00010000: it accepts connections
                if len(words) == 8 and words[3] == "00010000" and words[4] == "0001":
                    unix.append((words[6], words[7]))
    except OSError:
        pass
    return tcp, unix


def listening(process):
    # type: (Process) -> tuple
    """Where the process listens: ([(host, port)], [path])."""
    own = sockets_of(process)
    tcp, unix = listeners()
    return ([(host, port) for inode, host, port in tcp if inode in own],
            [path for inode, path in unix if inode in own])


def clients(process, ports, gone=True):
    # type: (Process, set, bool) -> int
    """How many connections the process has accepted on these TCP ports and not closed yet.

    gone: count those too whose client has closed its end.
    What waits in a listener's queue belongs to no process and does not count. Raises OSError when the process is
    gone or its descriptors can't be read.
    """
    own = sockets_of(process)
    if not own and not process.descriptors():
        raise OSError("the descriptors of process %d can't be read" % process.pid)
    count = 0
    for table in ("tcp", "tcp6"):
        try:
            with open("%s/%d/net/%s" % (PROC, process.pid, table)) as lines:
                for line in lines:
                    words = line.split()
                    # sl local_address rem_address st ... inode; 0A listens, 08: the client has closed its end
                    if len(words) > 9 and words[3] not in ("0A", "0A" if gone else "08") and words[9] in own \
                            and int(words[1].rpartition(":")[2], 16) in ports:
                        count += 1
        except FileNotFoundError:
            # a kernel without IPv6
            continue
    return count


def listener_of(host, port, path):
    # type: (str, int, str) -> tuple
    """Who listens where a daemon would: at the unix path, or at the port on this or any address.

    (whether anybody does, [Process]): the list is empty for a process that is just dying, or that is not in
    our pid namespace.
    """
    tcp, unix = listeners()
    anywhere = ("0.0.0.0", "::")
    if path:
        inodes = set(inode for inode, name in unix if name == path)
    else:
        inodes = set(inode for inode, where, number in tcp if number == port
                     and (where == host or where in anywhere or host in ("", "*") + anywhere))
    owners = []
    if inodes:
        for pid in pids():
            process = look(pid)
            if process is not None and inodes & sockets_of(process):
                owners.append(process.identify())
    return bool(inodes), owners


def holds(process, path):
    """Whether one of its descriptors is this very file (deleted or not)."""
    return any(link in (path, path + _DELETED) for link in process.descriptors())


MYPY = False
if MYPY:
    from typing import Optional  # noqa: F401
