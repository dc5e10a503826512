# SPDX-License-Identifier: GPL-2.0-or-later
"""Daemons that serve one client per thread or per process: accepting, counting, draining."""

import os
import signal
import threading
import time

import _launcher

from . import soap
from .config import server_url
from .counters import Counters
from .log import DEBUG, WARNING
from .net import Disturbed, Line
from .process import Daemon, LogProcess


class Service(Daemon):
    """Base of dagent, gateway and ical."""

    drain = 0  # seconds that TERM waits for clients, thread model
    fork_drain = 30  # the same, fork model, after the children were told to go
    slots = None  # setting with the largest number of clients at a time
    idle = None  # seconds a client may be silent
    permanent_threads = 0  # besides main

    def serve(self):
        self.forking = self.config["process_model"] == "fork"
        self.running = 0
        self._changed = threading.Condition()
        self._children = set()
        self._leaked = 0
        if self.forking:
            LogProcess(self)
        self.counters = Counters(self.name, "clients", "accepted")
        self.counters.publish()
        self.load_tls()
        self.slow_start()
        self.catch_signals()
        if self.forking:
            _launcher.catch(signal.SIGCHLD, False)
        for _number in range(self.permanent_threads):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        limit = self.config.number(self.slots) if self.slots else None
        while not self.stopping:
            if limit is not None and self.running >= limit:
                self.wait((), 0.1)
                continue
            for listener in self.wait(self.listeners, 10):
                if not self.stopping:
                    self._accept(listener)
        return self._leave()

    def load_tls(self):
        """Certificates, where the daemon speaks TLS."""

    def faults_changed(self):
        wanted = int(self.faults.value("leak", 0))
        if wanted > self._leaked:
            self._count(wanted - self._leaked)
            self._leaked = wanted

    def _count(self, step):
        with self._changed:
            self.running += step
            self.counters.set("clients", self.running)
            self._changed.notify_all()

    def _accept(self, listener):
        try:
            sock, _address = listener.sock.accept()
        except OSError:
            return
        self.counters.add("accepted")
        self._count(1)
        if not self.forking:
            threading.Thread(target=self._thread, args=(sock, listener), daemon=True).start()
            return
        child = os.fork()
        if child:
            self._children.add(child)
            sock.close()
            return
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            _launcher.default(signum)
        _launcher.ignore(signal.SIGHUP)
        for other in self.listeners:
            other.close()
        try:
            self._converse(sock, listener)
        finally:
            os._exit(0)

    def _thread(self, sock, listener):
        if not self._converse(sock, listener):
            self._count(-1)

    def _converse(self, sock, listener):
        """One client from greeting to close. Returns whether its slot leaks."""
        line = Line(sock, listener, self.faults, self.idle)
        try:
            if listener.spec.tls:
                line.wrap(self.context)
            return self.talk(line) is not None
        except (OSError, EOFError, Disturbed, ValueError) as error:
            self.log(DEBUG, "client: %s" % (error,))
            return False
        finally:
            line.close()

    def talk(self, line):
        """Speak the protocol. Whatever is returned but None leaks the slot."""
        raise NotImplementedError

    def signalled(self, number):
        while True:
            try:
                pid, _status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self._children:
                self._children.remove(pid)
                self._count(-1)

    def _leave(self):
        if self.forking:
            _launcher.ignore(signal.SIGTERM)
            os.kill(0, signal.SIGTERM)
        until = time.monotonic() + self.faults.value("drain", self.fork_drain if self.forking else self.drain)
        while self.running > 0 and time.monotonic() < until:
            if self.forking:
                self.wait((), min(1, until - time.monotonic()))
            else:
                with self._changed:
                    if self.running > 0:
                        self._changed.wait(max(0, until - time.monotonic()))
        if self.running > 0:
            self.log(WARNING, "Forced shutdown with %d processes/threads left" % self.running)
        return 0

    def client(self):
        """A new connection to the server this daemon is configured for."""
        return soap.Client(server_url(self.config), self.program)
