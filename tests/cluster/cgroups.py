# SPDX-License-Identifier: GPL-2.0-or-later
"""Control groups for nodes whose init is systemd: a directory of cgroup v2 for each node, and none left behind.

Every kernel has the one hierarchy of version 2, wherever this machine has mounted it, or not at all (beside those of
version 1): so it is mounted once more, where nobody sees it. A node's own namespace makes its directory the root of
what it sees. No controller is switched on in there: systemd keeps a service's processes together, and limits nothing.
"""
import fcntl
import os

from namespaces import LabError, in_mounts_of_its_own, mount, wait_for


class ControlGroups:
    """The directories of one lab, in the control group of this process. `lab`: a directory of the lab's own, whose name
    they bear."""

    def __init__(self, lab):
        self._tree = _tree(lab)
        self._above = f"/proc/self/fd/{self._tree}{_own()}"
        self._top = f"{self._above}/{os.path.basename(lab)}"
        # who looks for what is left of others must not find ours before it is held
        with _Locked(self._above):
            self._sweep()
            os.mkdir(self._top)
            self._held = _Locked(self._top)

    def _sweep(self):
        """Remove what labs whose process was killed have left."""
        for name in self.labs():
            try:
                with _Locked(f"{self._above}/{name}", wait=False):
                    _removed(f"{self._above}/{name}")
            except OSError:
                pass                                    # its lab is alive, or another has removed it

    def make(self, node, pid):
        """A node's directory, with its first process in it."""
        os.mkdir(f"{self._top}/{node}")
        with open(f"{self._top}/{node}/cgroup.procs", "w") as file:
            file.write(str(pid))

    def remove(self, node):
        """Remove a dead node's directory."""
        wait_for(lambda: _removed(f"{self._top}/{node}"), 10, f"{node}: its control groups are empty", every=0.01)

    def processes(self, node):
        """How many processes are in a node's directory and below."""
        count = 0
        for folder, _, _ in os.walk(f"{self._top}/{node}"):
            with open(f"{folder}/cgroup.procs") as file:
                count += len(file.readlines())
        return count

    def labs(self):
        """Names of all labs that have directories."""
        return [name for name in os.listdir(self._above) if name.startswith(_prefix(self._top))]

    def close(self):
        """Remove what is there; all nodes are dead."""
        self._held.close()
        _removed(self._top)
        os.close(self._tree)


class _Locked:
    """An exclusive lock on a directory. BlockingIOError without `wait` when somebody has it."""

    def __init__(self, path, wait=True):
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            self.close()
            raise

    def close(self):
        """Let go of it."""
        os.close(self._descriptor)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _tree(place):
    """A descriptor of the hierarchy's root as this process may see it; the mount goes with it. LabError."""
    def look():
        mount("cgroup2", place, "cgroup2")
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return in_mounts_of_its_own(look)
    except OSError as error:
        raise LabError(f"no control groups of version 2: {error}") from None


def _own():
    """This process's control group."""
    with open("/proc/self/cgroup") as file:
        return next(line[3:].strip() for line in file if line.startswith("0::")).rstrip("/")


def _removed(top):
    """Whether a directory and all below it could be removed."""
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            return False                                # somebody is still in there
    return True


def _prefix(path):
    """What the names of all labs begin with, by one of them."""
    return os.path.basename(path).rpartition("-")[0] + "-"
