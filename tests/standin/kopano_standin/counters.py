# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures about a running daemon for tests: state/NAME.PID of the install tree, mapped into memory.

A mapping needs no thread and no system calls, so what probes see of the daemon (threads, sockets, context
switches) stays as it is without.
"""

import mmap
import os
import threading

from . import generation

FOLDER = os.path.join(generation.HOME, "state")
_WIDTH = 24


class Counters:
    """counters.add("sessions", 1); the file holds one "name value" line of fixed width for each."""

    def __init__(self, name, *names):
        self._lock = threading.Lock()
        self._values = dict.fromkeys(names, 0)
        self._places = {key: index * _WIDTH for index, key in enumerate(names)}
        self._name, self._map = name, None

    def publish(self):
        """Show the figures under this process's pid: to be called once it is in the background."""
        size = _WIDTH * len(self._places)
        path = os.path.join(FOLDER, "%s.%d" % (self._name, os.getpid()))
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            os.ftruncate(fd, size)
            self._map = mmap.mmap(fd, size)
            os.close(fd)
        except OSError:
            return
        for key in self._places:
            self._show(key)

    def _show(self, key):
        if self._map is not None:
            at = self._places[key]
            self._map[at:at + _WIDTH] = ("%-14s %8d\n" % (key, self._values[key])).encode()

    def add(self, key, step=1):
        with self._lock:
            self._values[key] += step
            self._show(key)

    def set(self, key, value):
        with self._lock:
            self._values[key] = value
            self._show(key)

    def __getitem__(self, key):
        return self._values[key]
