# SPDX-License-Identifier: GPL-2.0-or-later
"""A running system that one fault is about to hit: what is started before, what clients see, what was harmed."""
import contextlib
import http.client
import threading
import time

from contract.looks import SOCKET
from world import DAEMONS, PORTS, World, wait_for

from .fault import RESTART

USER, PASSWORD = "alice", "secret"


class Scene:
    """One fault at one daemon, looked after in one way.

    environment  variables for whoever looks (a clock that jumps)
    said         what agents said of starts and stops
    harms        functions that say, when all is over, what harm was done, or ""
    clients      a lock: held while a client is served, and while something is broken
    sick         pid of a process that can't work whatever it looks like from outside; None: ask it
    """

    def __init__(self, fault, name, way=None):
        self.fault, self.name = fault, name
        self.environment, self.said, self.harms, self.sick = {}, [], [], None
        self.clients = threading.Lock()
        self.world = World.shared(fault.generation, tls=True)
        self.world.reset()
        self.world.database.start()
        self._stack = contextlib.ExitStack()
        self._timers = []
        self.way = way(self.world, name, self) if way else None
        self._acting = None

    # ---- before and after

    def prepare(self):
        """Everything runs that the daemon needs, and the daemon, started in the way's own manner."""
        self.world.write_config("ical", server_socket="file://" + SOCKET)
        for name, changes in self.fault.settings.items():
            self.world.write_config(name, **changes)
        if self.fault.prepares:
            self.fault.prepares(self)
        if self.name != "server":
            self.world.up("server")
        code = self.way.start()
        assert code == 0, "%s: start of a sound kopano-%s: %s, %s" % (self.way.name, self.name, code, self.said)
        self.world.wait_ready(self.name)
        for name in self.fault.needs:
            self.world.up(name)
        if USER not in self.world.users:
            if self.world.main_pid("server") is None:
                self.world.up("server")
            self.world.add_user(USER, PASSWORD)
        wait_for(self.serves, 10, "kopano-%s does not serve before the fault" % self.name)
        if self.name == "dagent" and not self.fault.costs_slots and self.fault.cured("dagent") != RESTART:
            self.harms.append(self._slots)
        self.pid = self.world.main_pid(self.name)
        self.others = {name: self.world.main_pid(name) for name in DAEMONS
                       if name != self.name and name not in self.fault.touches}

    def breaks(self):
        """Break it."""
        # a client that is being served just then could cost a slot of dagent's, which would be nobody's fault
        with self.clients:
            self._acting = self.fault.act(self)
            next(self._acting)

    def mends(self):
        """Mend it, as far as a restart hasn't."""
        if self._acting is not None:
            acting, self._acting = self._acting, None
            for _ in acting:
                raise AssertionError("%s: more than one yield" % self.fault.name)
            self.world.clear_faults(self.name)

    def close(self):
        """Undo all of it."""
        with contextlib.suppress(Exception):
            self.mends()
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self._stack.close()
        self.world.release()

    def enter(self, context):
        """A context manager that is left at the end."""
        return self._stack.enter_context(context)

    def later(self, seconds, call):
        """Do something meanwhile."""
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def fault_of(self, what, *arguments, endpoint=None):
        """Switch on a stand-in's fault that the present process has, and no later one."""
        self.world.fault(self.name, what, *arguments, endpoint=endpoint, pid=self.world.main_pid(self.name))

    # ---- what clients see

    def serves(self):
        """Whether the daemon does its work, as a client sees it."""
        try:
            return self._serves()
        except (OSError, http.client.HTTPException, AssertionError, AttributeError, ValueError):
            return False
        except Exception as error:              # imaplib's own
            if type(error).__module__ == "imaplib":
                return False
            raise

    def _serves(self):
        world, name = self.world, self.name
        if name == "server":
            with world.soap(timeout=2) as client:
                return client.er("getStore") == 0
        if name == "dagent":
            # a 421 would cost a slot
            with world.soap(timeout=2) as client:
                if client.er("getStore") != 0:
                    return False
            return world.ready("dagent")
        if name == "gateway":
            imap = world.imap(timeout=2)
            try:
                imap.login(USER, PASSWORD)
            finally:
                imap.logout()
            return True
        if name == "ical":
            connection = http.client.HTTPConnection("127.0.0.1", PORTS["caldav"], timeout=2)
            connection.request("GET", "/ical/%s/" % USER, headers={"Authorization": "Basic YWxpY2U6c2VjcmV0"})
            status = connection.getresponse().status
            connection.close()
            return status == 200
        pid = world.main_pid(name)
        return pid != self.sick and _moves(pid) and world.ready(name)

    # ---- harm

    def harm(self):
        """What else was hurt, in words."""
        found = [words for words in (check() for check in self.harms) if words]
        for name, pid in self.others.items():
            if pid is not None and self.world.main_pid(name) != pid:
                found.append("kopano-%s was ended" % name)
        return found

    def _slots(self):
        try:
            lost = self.world.counters("dagent")["clients"]
        except (OSError, KeyError):
            return ""
        if self.world.main_pid("dagent") != self.pid:
            return ""
        deadline = time.monotonic() + 3
        while lost and time.monotonic() < deadline:
            time.sleep(0.1)
            lost = self.world.counters("dagent")["clients"]
        return "%d of dagent's 20 slots lost" % lost if lost else ""


def _moves(pid):
    """Whether the process may run at all."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "TtZX"
    except (OSError, TypeError):
        return False
