# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults that can be switched on from outside while a daemon runs: the file faults/NAME of the install tree.

One fault a line: WORD [ARGUMENT...] [@ENDPOINT] [pid=PID]. The words and what they do: README.md.
@ENDPOINT (a port, a setting such as imaps_listen, or a socket's path) narrows a fault to one listener,
pid=PID to one process and its children: a restart cures it.
"""

import os
import time

import _launcher

from . import generation

FOLDER = os.path.join(generation.HOME, "faults")
_cache = (None, [])


def _read(name):
    """All faults of a daemon: (word, arguments, endpoint). Cheap: reads the file only when it has changed."""
    global _cache
    path = os.path.join(FOLDER, name)
    try:
        stat = os.stat(path)
    except OSError:
        return []
    mark = (path, stat.st_mtime_ns, stat.st_ino, stat.st_size, os.getpid())
    if _cache[0] != mark:
        found = []
        mine = ("pid=%d" % os.getpid(), "pid=%d" % os.getppid())
        with open(path) as file:
            for line in file:
                words = line.split()
                if words and words[-1].startswith("pid=") and words.pop() not in mine:
                    continue
                endpoint = words.pop()[1:] if len(words) > 1 and words[-1].startswith("@") else None
                if words:
                    found.append((words[0], words[1:], endpoint))
        _cache = (mark, found)
    return _cache[1]


class Faults:
    """The faults of one daemon."""

    def __init__(self, name):
        self.name = name

    def get(self, word, listener=None):
        """Arguments of a fault that is on (a list, possibly empty), else None."""
        for found, arguments, endpoint in _read(self.name):
            if found == word and (endpoint is None or listener is not None and listener.called(endpoint)):
                return arguments
        return None

    def value(self, word, default):
        """First argument of a fault as a number; default when the fault is off or has none."""
        arguments = self.get(word)
        return float(arguments[0]) if arguments else default

    def stall(self, word, listener=None):
        """Return once the fault is off."""
        while self.get(word, listener) is not None:
            time.sleep(0.05)

    def deadlock(self):
        """For any thread: never return when the daemon is wedged, which cannot be undone; `spin`: wait for its end."""
        self._wedge("wedge")
        while self.get("spin") is not None:
            time.sleep(1)

    def only_here(self):
        """For the one thread that a livelock is about: `spin` keeps it busy until it is off, `wedge-main` for good."""
        self._wedge("wedge-main")
        while self.get("spin") is not None:
            _launcher.busy(os.path.join(FOLDER, self.name))

    def wedged(self):
        """For a thread that a livelock elsewhere leaves alone."""
        self._wedge("wedge")

    def _wedge(self, word):
        while self.get(word) is not None:
            import threading

            threading.Event().wait()
