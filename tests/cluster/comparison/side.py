# SPDX-License-Identifier: GPL-2.0-or-later
"""One of the two clusters that are compared, under clients: what is broken there, what they see, what is restarted."""
import imaplib
import os
import re
import signal
import smtplib
import threading
import time
from dataclasses import dataclass, field

from drills.traffic import SERVICES, Look, Traffic
from kopano_site import ADDRESS, DAEMONS, PORTS, Site
from namespaces import wait_for
from node import processes
from practice import Practice

DATABASE_FILE = "/etc/mysql/mariadb.conf.d/99-broken.cnf"
SLOW_DATABASE = """\
#!/bin/sh
# a database that needs long before it starts: as long as this file is there
while [ -e /run/slow-database ]; do sleep 0.2; done
exec /usr/lib/moved/mariadbd "$@" --basedir=/usr
"""


class Clients(Traffic):
    """They try LMTP only while the rest is well, so that it isn't their own 421s that cost dagent its slots."""
    PATIENCE = 2.0

    def __init__(self, site, name):
        super().__init__(site, name)
        self.broken_at = self.broken = time.monotonic()     # when the breaking began, and was done
        self._delivering = threading.Lock()

    def _look(self, service, talk):
        if service != "dagent":
            return super()._look(service, talk)
        with self._delivering:
            now = time.monotonic()
            if not all(self.good(other, since=max(now - 2, self.broken)) for other in ("server", "gateway")):
                self.looks[service].append(Look(now, now, False, "not tried: the rest is not well"))
                return ""
            return super()._look(service, talk)

    def between_two_mails(self, act):
        """Do it while no mail is on its way; what is seen counts from then on."""
        with self._delivering:
            self.broken_at = time.monotonic()
            act()
            self.broken = time.monotonic()

    def good_since(self, service, since):
        """When the service's last bad look after `since` was followed by a good one (time.monotonic()); `since` if
        none was bad; None when it is bad now."""
        back = since
        for look in list(self.looks[service]):
            if look.end < since:
                continue
            if not look.good:
                back = None
            elif back is None or look.end - look.begin > self.SLOW:
                back = look.end
        return back


@dataclass
class Outcome:
    """What came of a fault, on one side."""
    good_after: float = None            # seconds from the fault until all was good; None: not while watched
    watched: float = 0.0                # seconds
    away: dict = field(default_factory=dict)            # service -> seconds, those that were away
    down: list = field(default_factory=list)            # in words, at the end
    restarted: list = field(default_factory=list)       # what was: daemons, "mysqld"
    fenced: list = field(default_factory=list)
    moved_back: bool = False
    wrong: list = field(default_factory=list)           # mails lost or doubled

    def words(self):
        """A cell of the table."""
        text = (f"good after **{self.good_after:.1f} s**" if self.good_after is not None else
                f"**never** ({self.watched:.0f} s watched): {', '.join(self.down)}")
        text += f"; restarted: {', '.join(self.restarted) or 'nothing'}"
        if self.fenced:
            text += f"; fenced: {', '.join(self.fenced)}"
        if self.moved_back:
            text += "; moves again when the node is back"
        if self.wrong:
            text += f"; **mail: {'; '.join(self.wrong)}**"
        return text


class Side:
    """A cluster with everything on one node: `with Side("manual") as side: side.ready(); fault.act(side); ...`."""

    def __init__(self, name):
        self.name = name                # "manual" or "shipped"
        self.site = Site("drbd")
        self.lab = self.site.lab
        self.home = self.peer = self.clients = self.before = None
        self.since = 0.0                # time.monotonic() of the fault
        self._open = []                 # connections that do nothing

    def __enter__(self):
        self.site.__enter__()
        return self

    def __exit__(self, *what):
        for client in self._open:
            client.close()
        self.site.__exit__(*what)

    def ready(self):
        """From nothing to a site that serves."""
        self.lab.wait_online()
        practice = Practice(self.site)
        getattr(practice, self.name)()
        self.home, self.peer = practice.home, practice.idle

    # ---- what faults are made of -----------------------------------------------------------------------

    def breaks(self, act, *arguments):
        """Break something; all is counted from now on."""
        self.clients.between_two_mails(lambda: act(*arguments))
        self.since = self.clients.broken_at

    def kill(self, *daemons, number=signal.SIGKILL):
        """Send Kopano's daemons a signal: those that were there before the fault."""
        for daemon in daemons:
            try:
                os.kill(self.before[daemon].pid, number)
            except ProcessLookupError:
                pass                    # the cluster was faster

    def database(self):
        """Processes of MariaDB, in the cluster."""
        return processes(self.lab, "mariadbd")

    def kill_database(self, number=signal.SIGKILL):
        """Send MariaDB a signal."""
        for process in self.database():
            os.kill(process.pid, number)

    def crm(self, *words):
        """A command of the cluster's, on the node that stays."""
        return self.peer.run(list(words), timeout=150)

    def standby(self, state, *nodes):
        """Put nodes on standby ("on") or back ("off")."""
        for node in nodes or (self.home,):
            self.crm("crm_standby", "--node", node.name, "--update", state)

    def unmanage_database(self):
        """Take MariaDB out of the cluster's hands and sight: as a database on a host of its own."""
        self.crm("crm_resource", "--meta", "--set-parameter", "maintenance", "--parameter-value", "true",
                 "--resource", "mysqld")
        self.lab.settle()

    def start_database(self):
        """Start MariaDB by hand."""
        self.home.run("/etc/init.d/mysqld start")

    def break_database_configuration(self):
        """MariaDB can't start, on neither node."""
        for node in self.lab:
            node.put(DATABASE_FILE, "[mysqld]\nno_such_option\n")

    def mend_database_configuration(self):
        """It can again."""
        for node in self.lab:
            node.run(["rm", "-f", DATABASE_FILE])

    def delay_database(self):
        """From now on MariaDB starts only after hurry_database()."""
        for node in self.lab:
            node.run("touch /run/slow-database; test -e /usr/lib/moved/mariadbd || "
                     "{ mkdir -p /usr/lib/moved; mv /usr/sbin/mariadbd /usr/lib/moved/mariadbd; }")
            node.put("/usr/sbin/mariadbd", SLOW_DATABASE, 0o755)

    def hurry_database(self):
        """A start that waits goes on."""
        for node in self.lab:
            node.run(["rm", "-f", "/run/slow-database"])

    def idle_clients(self, *names):
        """Clients that connect ("dagent", "gateway"), and then say nothing."""
        def connect():
            return [(smtplib.LMTP if name == "dagent" else imaplib.IMAP4)(ADDRESS, PORTS[name], timeout=5).sock
                    for name in names]
        self._open += self.lab.outside(connect)

    def knock(self, times=25):
        """LMTP clients connect, one after the other, and go when they have heard a word, or none for half a second."""
        def connect():
            for _ in range(times):
                try:
                    with smtplib.LMTP(ADDRESS, PORTS["dagent"], timeout=0.5):
                        pass
                except (OSError, smtplib.SMTPException):
                    pass
        self.lab.outside(connect)

    def stop_kopano(self):
        """Kopano is stopped by its administrator, the database is not."""
        self._role_of_kopano("Stopped")

    def start_kopano(self):
        """And started again."""
        self._role_of_kopano("Started")

    def _role_of_kopano(self, role):
        self.crm("crm_resource", "--meta", "--set-parameter", "target-role", "--parameter-value", role, "--resource",
                 "kopano")

    def silence(self, daemon):
        """A daemon that takes connections and says nothing on any of them, until it is restarted."""
        process = self.before[daemon]
        with open(f"/proc/{process.pid}/status") as file:
            inside = re.search(r"^NSpid:.*\t(\d+)$", file.read(), re.MULTILINE)[1]
        self.lab[process.node].put(f"/usr/lib/kopano-standin/faults/{daemon}", f"hang pid={inside}\n")

    def sleep_until(self, seconds):
        """So many seconds after the fault."""
        time.sleep(max(0.0, self.since + seconds - time.monotonic()))

    def wait_failed(self, resource, task):
        """Until it has failed on every node."""
        def failed():
            status = self.lab.status()
            nodes = {failure[1] for failure in status.failures if failure[:3:2] == (resource, task)} if status else ()
            return len(nodes) == len(self.lab.nodes)
        wait_for(failed, 90, f"{task} of {resource} has failed on every node", every=0.2)

    def wait_gone(self, daemon):
        """Until the daemon that was there before the fault has ended."""
        wait_for(lambda: self.before[daemon] not in self.site.instances()[daemon], 30, f"kopano-{daemon} has ended")

    def start_by_hand(self, daemon):
        """As an administrator does at a shell."""
        self.home.run(f"setsid kopano-{daemon} -F -c /etc/kopano/{daemon}.cfg >/dev/null 2>&1 </dev/null &")

    # ---- watching --------------------------------------------------------------------------------------

    def perform(self, fault):
        """Break, and watch until all is good again, but not for longer than the fault says. Its Outcome."""
        with Clients(self.site, fault.name) as self.clients:
            begin = time.monotonic()
            wait_for(lambda: self.clients.all_good(begin), 60, "clients are served")
            self.before, database = self.site.snapshot(), self.database()
            fault.act(self)
            self._watch(fault.watch)
            outcome = self._outcome(database)
            if fault.reboots:
                self._boot(outcome)
        if outcome.good_after is not None:
            outcome.wrong = self.clients.lost_or_doubled()
        return outcome

    def _watch(self, seconds):
        calm, end = None, time.monotonic() + seconds
        while time.monotonic() < end:
            calm = None if self._down() else calm or time.monotonic()
            if calm and time.monotonic() - calm > 5:        # nothing follows
                return
            time.sleep(0.2)

    def _down(self):
        """What isn't as it should be, in words: services, and daemons that no client sees."""
        words = [SERVICES[service] for service in SERVICES
                 if self.clients.good_since(service, self.since) is None or
                 not self.clients.good(service, since=self.since)]
        for name, mains in self.site.instances().items():
            if not mains:
                words.append(f"kopano-{name} is gone")
            elif any(process.state == "T" for process in mains):
                words.append(f"kopano-{name} hangs")
        return words

    def _outcome(self, database):
        now, down, instances = time.monotonic(), self._down(), self.site.instances()
        outcome = Outcome(watched=now - self.since, down=down, fenced=self.lab.bmc.fenced())
        outcome.away = {service: self.clients.outage(service, self.since) for service in SERVICES}
        changed = [name for name in DAEMONS if instances[name] != [self.before[name]]]
        outcome.restarted = [name for name in changed if instances[name]]
        if self.database() != database:
            outcome.restarted.insert(0, "mysqld")
        if not down:
            backs = [self.clients.good_since(service, self.since) for service in SERVICES]
            outcome.good_after = max(backs + [self._born(instances[name][0]) for name in changed]) - self.since
        return outcome

    @staticmethod
    def _born(process):
        """time.monotonic() when a process was started: field 22 of /proc/PID/stat counts from boot, as does that
        clock on a machine that was never suspended."""
        return process.started / os.sysconf("SC_CLK_TCK")

    def _boot(self, outcome):
        """The dead node is back: does anything move again?"""
        before = self.site.instances()
        self.lab.boot()
        self.lab.wait_online()
        self.lab.settle(node=self.peer)
        outcome.moved_back = self.site.instances() != before
