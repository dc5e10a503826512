# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemons' log: a file, syslog or stderr, as log_method and log_file say."""

import os
import sys
import time

from .generation import DAEMONIZES as _OLD

_NAMES = {0: "=======", 1: "crit   ", 2: "error  ", 3: "warning", 4: "notice ", 5: "info   ", 6: "debug  "}
ALWAYS, CRIT, ERROR, WARNING, INFO, DEBUG = 0, 1, 2, 3, 5, 6
REOPEN = b"\0reopen\0\n"  # to the logger process, among the lines
_SYSLOG = {0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7}


class Log:
    """Until open() is called: stderr, at level info, without times."""

    def __init__(self, program):
        self.program, self.level = program, INFO
        self._fd, self._syslog, self._times, self._path = 2, None, False, None
        self._pipe = None

    def open(self, config, user=None):
        """Follow the configuration. user: (uid, gid) that must be able to write once privileges "
        "are dropped."""
        self.level = config.number("log_level")
        method, path = config["log_method"], config["log_file"]
        self._times = config["log_timestamp"].lower() in ("1", "yes", "true")
        if method == "auto":
            method = "file" if path else "syslog"
            if method == "syslog" and (sys.stderr is None or os.isatty(2) or not os.path.exists("/dev/log")):
                method, path = "file", "-"
        if method == "syslog" and self._open_syslog():
            return
        if path in ("", "-"):
            return
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            self(ERROR, "Unable to open logfile %s: %s. Logging to stderr." % (path, error.strerror))
            return
        if user and os.fstat(fd).st_size == 0:
            os.fchown(fd, *user)
        self._fd, self._path = fd, path

    def _open_syslog(self):
        import socket

        try:
            self._syslog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._syslog.connect("/dev/log")
            return True
        except OSError:
            self._syslog = None
            return False

    def reopen(self):
        """As HUP does: the file may have been rotated away."""
        if self._pipe is not None:
            self.write(REOPEN)
            return
        if self._path is None:
            return
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError:
            return
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)

    def through(self, pipe):
        """Hand all lines to the logger process behind this pipe (fork model)."""
        self._pipe = pipe

    def __call__(self, level, text):
        if level > self.level:
            return
        line = "[%s] %s" % (_NAMES[level], text)
        if self._syslog is not None and self._pipe is None:
            stamp = time.strftime("%b %e %H:%M:%S")
            try:
                self._syslog.send(("<%d>%s %s[%d]: %s" %
                                   (2 * 8 + _SYSLOG[level], stamp, self.program, os.getpid(), text)).encode())
            except OSError:
                pass
            return
        if self._times:
            now = time.time()
            stamp = (time.ctime(now) if _OLD else time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now))
                     + ".%06d" % (now % 1 * 1000000))
            line = "%s: %s" % (stamp, line)
        self.write((line + "\n").encode("utf-8", "surrogateescape"))

    def write(self, data):
        """Write a finished line."""
        try:
            os.write(self._fd if self._pipe is None else self._pipe, data)
        except OSError:
            pass
