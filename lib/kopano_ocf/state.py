# SPDX-License-Identifier: GPL-2.0-or-later
"""Small files that agents remember things in between two calls.

Each is text, `name value` a line below a version line, replaced by rename.
Everything works when they are lost: reading never fails, it finds nothing;
writing tells whether it worked.
"""
import errno
import fcntl
import os
import time

_HEADER = "kopano-ocf-state 1"
_LIMIT = 65536
DIRECTORY = "/run/resource-agents"


def directory(env):
    """HA_RSCTMP, where resource agents keep what a reboot may take away."""
    path = env.get("HA_RSCTMP", "")
    return path if path.startswith("/") and "\0" not in path else DIRECTORY


def safe_name(text):
    """A file name for any text: readable where that is possible, never leaving the directory."""
    name = "".join(c if c.isalnum() and c < "\x7f" or c in "-_:" else "_" for c in text)
    if name != text or len(name) > 100:
        import binascii
        name = "%s-%08x" % (name[:100], binascii.crc32(text.encode("utf-8", "surrogateescape")) & 0xffffffff)
    return name


def trusted(path):
    # type: (str) -> bool
    """Whether nobody but us (or root) can exchange a file of ours in this directory, or anything on the way to it."""
    place, rest, links = "/", path.split("/")[::-1], 0
    try:
        while True:
            seen = os.lstat(place)
            kind = seen.st_mode & 0o170000
            if seen.st_uid not in (0, os.geteuid()):
                return False
            if kind == 0o120000:
                target, links = os.readlink(place), links + 1
                rest += target.split("/")[::-1]
                place = "/" if target.startswith("/") else os.path.dirname(place)
            elif kind != 0o040000 or links > 40 or seen.st_mode & 0o1022 in (0o020, 0o002, 0o022):
                return False
            while rest and rest[-1] in ("", "."):
                rest.pop()
            if not rest:
                return kind != 0o120000
            part = rest.pop()
            place = os.path.dirname(place) if part == ".." else os.path.join(place, part)
    except (OSError, ValueError):
        return False


def _there(folder):
    """Whether the directory can be used; one that a reboot took away is made."""
    if trusted(folder):
        return True
    if os.path.lexists(folder) or not trusted(os.path.dirname(folder)):
        return False
    try:
        os.mkdir(folder, 0o755)
    except FileExistsError:
        return trusted(folder)      # by another agent, at the same moment
    except (OSError, ValueError):
        return False
    return True


def read(path):
    # type: (str) -> dict
    """What the file says; {} for a file that is missing, foreign, damaged or of another version."""
    if not trusted(os.path.dirname(path)):
        return {}
    try:
        # O_NONBLOCK: a FIFO in its place must not hang us
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return {}
    try:
        seen = os.fstat(fd)
        if seen.st_uid != os.geteuid() or seen.st_mode & 0o170000 != 0o100000 or seen.st_size > _LIMIT:
            return {}
        lines = os.read(fd, _LIMIT).decode("utf-8", "surrogateescape").split("\n")
    except OSError:
        return {}
    finally:
        os.close(fd)
    # a file cut short by a full disk lacks its last line
    if lines[0] != _HEADER or len(lines) < 3 or lines[-2] != "end":
        return {}
    found = {}
    for line in lines[1:-2]:
        name, blank, value = line.partition(" ")
        if blank:
            found[name] = value
    return found


def write(path, values):
    # type: (str, dict) -> bool
    """Replace the file in one step; False when that is not possible (no space, no directory)."""
    if not _there(os.path.dirname(path)):
        return False
    lines = [_HEADER] + ["%s %s" % (name, str(value).replace("\n", " ")) for name, value in sorted(values.items())]
    try:
        data = ("\n".join(lines) + "\nend\n").encode("utf-8", "surrogateescape")
    except UnicodeError:
        return False
    temporary = "%s.%d.tmp" % (path, os.getpid())
    remove(temporary)           # of an agent that was killed and had our pid
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        done = os.write(fd, data) == len(data)
        os.close(fd)
        if done:
            os.rename(temporary, path)
            return True
    except OSError:
        pass
    remove(temporary)
    return False


def remove(path):
    """Delete the file if it is there; True when it is gone."""
    try:
        os.unlink(path)
    except OSError as err:
        return err.errno in (errno.ENOENT, errno.ENOTDIR)
    return True


class Lock:
    """An advisory lock, as a context manager; the kernel frees it when its holder is killed.

    .held says whether it was got by `deadline` (time.monotonic()).
    """

    def __init__(self, path, deadline):
        self.path, self.deadline = path, deadline
        self.fd, self.held = -1, False

    def __enter__(self):
        if not _there(os.path.dirname(self.path)):
            return self
        try:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError:
            return self         # a full disk or a foreign file: go on without a lock
        if os.fstat(self.fd).st_uid != os.geteuid():
            self.__exit__()     # who put it into a directory for all could hold it for ever
            return self
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.held = True
                return self
            except OSError as err:
                if err.errno not in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                    return self
            if time.monotonic() >= self.deadline:
                return self
            time.sleep(0.02)

    @property
    def busy(self):
        """True when somebody else holds it."""
        return self.fd >= 0 and not self.held

    def __exit__(self, *_ignored):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
