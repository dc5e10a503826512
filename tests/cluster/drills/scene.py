# SPDX-License-Identifier: GPL-2.0-or-later
"""What a drill is made of: the site under traffic, what is broken and mended, what must then be true."""
import imaplib
import os
import re
import signal
import smtplib
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from typing import Callable

import installed
from drills.traffic import SERVICES, Traffic
from kopano_site import ADDRESS, DAEMONS, PORTS, Watch
from namespaces import wait_for
from node import processes
from story import Story

RESTART = 15                # seconds: more than the stop and start of any daemon takes here, beside a busy neighbour
ACTIONS = ("start", "stop", "promote", "demote")


class Failed(AssertionError):
    """The drill showed something that must not be."""


@dataclass(frozen=True)
class Drill:
    """One drill. The texts are for people (docs/drills.md, `make drill`); `act(scene)` does it and judges."""
    name: str
    does: str                   # what is broken
    during: str                 # what must hold until it is mended (or mends itself)
    after: str
    act: Callable = field(repr=False)
    breaks: str                 # on a live cluster: the command
    mends: str = ""
    manual: str = ""            # what the manual's own configuration did
    layout: str = "together"    # the two groups on one node, or "apart"
    drbd: str = ""              # what is other than said above where DRBD mirrors the disks
    deployments: tuple = ("shared-storage",)


class Scene(Story):
    """A drill under way."""

    def __init__(self, site, drill):
        super().__init__(site.lab)
        self.site, self.drill = site, drill
        self.traffic = self.before = self.home = self.peer = None
        self.events = []
        self.broken_at = time.monotonic()       # the last breaking or mending
        self.result = {}                        # service -> seconds of outage
        self._clean_up = []

    # ---- the frame -----------------------------------------------------------------------------------------

    def perform(self):
        """The whole drill: {service: seconds of outage}. Failed when something is not as it must be."""
        self.step(f"{self.drill.name}: {self.drill.does}")
        self.site.restore()
        if self.site.deployment == "drbd":      # after the drill before a node may have to be brought up to date
            wait_for(lambda: not self.constraints("drbd-fence-by-handler", self.lab["bob"]), 60, "both are up to date")
        {"together": self.site.gather, "apart": self.site.separate}[self.drill.layout]()
        self.home = self.site.active()
        self.peer = self.lab.others(self.home)[0]
        self.timeline.news()
        self.events.clear()
        try:
            with Watch(self.site) as watch, Traffic(self.site, self.drill.name) as self.traffic:
                self.until(lambda: self.traffic.all_good(self.broken_at), 30, "clients are served")
                self.before = self.site.snapshot()
                begin = time.monotonic()
                self.drill.act(self)
                self.lab.settle(node=self._asked())
                self.tell_news()
                self.until(lambda: self.traffic.all_good(self.broken_at), 60, "clients are served at the end")
                self.result = {service: self.traffic.outage(service, begin) for service in SERVICES}
            self._judge(watch)
            if self.constraints("cli-ban"):
                raise Failed(f"{self.drill.name}: a node is banned: {self.constraints('cli-ban')}")
        except BaseException:
            self.tell_news()
            print(self.lab.report(), flush=True)
            raise
        finally:
            self.site.leaked += self.traffic.refused + self.traffic.given_up if self.traffic else 0
            for undo in reversed(self._clean_up):
                undo()
        self.end_step()
        self.say(self.summary_line(), "good")
        return self.result

    def _judge(self, watch):
        if watch.violations or not watch.looks:
            raise Failed(f"{self.drill.name}: {watch.violations}")
        wrong = self.traffic.lost_or_doubled()
        if wrong or not self.traffic.acknowledged:
            raise Failed(f"{self.drill.name}: {wrong or 'no mail was acknowledged'}")

    def summary_line(self):
        """The outage in words."""
        away = ", ".join(f"{SERVICES[service]} {seconds:.1f} s" for service, seconds in self.result.items())
        return (f"{self.drill.name}: away: {away}; {len(self.traffic.acknowledged)} mails acknowledged, "
                "each there once")

    def news(self):
        """Events are told, and kept for judging."""
        events = super().news()
        self.events += events
        return events

    def later(self, undo):
        """Call `undo()` at the end, however the drill ends."""
        self._clean_up.append(undo)

    def _asked(self):
        """A node that surely has a word to say: one that wasn't fenced."""
        for node in (self.peer, self.home):
            if node.alive() and node.name not in self.fenced():
                return node
        return None

    # ---- what the drill does -------------------------------------------------------------------------------

    def breaks(self, words, function=None, *arguments):
        """Break something; what clients see counts from now on."""
        self.say(words, "warn")
        self.broken_at = time.monotonic()
        if function:
            function(*arguments)

    mends = breaks

    def kill(self, number, *daemons):
        """Send a signal to Kopano's daemons (the very ones that ran before)."""
        for daemon in daemons:
            os.kill(self.before[daemon].pid, number)

    def database(self):
        """mariadbd's process."""
        (process,) = processes(self.lab, "mariadbd")
        return process

    def idle_clients(self):
        """An LMTP and an IMAP client that connect and then say nothing until the end."""
        def connect():
            return (smtplib.LMTP(ADDRESS, PORTS["dagent"], timeout=5),
                    imaplib.IMAP4(ADDRESS, PORTS["gateway"], timeout=5))
        clients = self.lab.outside(connect)
        self.later(lambda: [client.sock.close() for client in clients])
        self.say("an LMTP and an IMAP client are connected, and idle")

    def crm(self, *words, node=None, check=True):
        """A command of crm_resource, crm_standby ... on a node that is up."""
        return (node or self._asked()).run(list(words), check=check, timeout=150)

    def extra(self, file, *names):
        """Load one more file of crm/ for this drill; `names` is what it brings, to be deleted afterwards."""
        with open(f"{self.lab.image}{installed.SHARE}/crm/{file}") as source:
            text = self.site.adapted(source.read())
        self._asked().run(["crm", "configure", "load", "update", "-"], input=text)
        self.later(lambda: self.crm("crm", "--force", "configure", "delete", *names))

    def impatient(self, resource, **timeouts):
        """Shorten timeouts of a resource's operations (seconds) until the end, to save the tests waiting; where
        intervals are as shipped, timeouts are too."""
        if self.site.interval == 1.0:
            return
        shipped = changed = self.lab["bob"].out(f"crm configure show {resource}")
        for operation, seconds in timeouts.items():
            changed = re.sub(rf"(op {operation} .*?timeout)=\w+", rf"\1={seconds}s", changed)

        def load(text):
            self._asked().run("crm configure load update -", input=text)
        load(changed)
        self.later(lambda: load(shipped))
        self.lab.settle()
        self.tell_news()
        self.events.clear()
        self.say(f"timeouts of {resource} are shortened: {timeouts}")

    def fault(self, daemon, words):
        """Switch on a fault of a stand-in, on both nodes, until the end."""
        path = f"/usr/lib/kopano-standin/faults/{daemon}"
        for node in self.lab:
            node.put(path, words + "\n")
            self.later(lambda node=node: node.alive() and node.run(["rm", "-f", path]))

    # ---- what must be true -------------------------------------------------------------------------------------

    @property
    def interval(self):
        """Seconds until a monitor that looks every 10 s has looked, in this site."""
        return max(1.0, 10 * self.site.interval)

    def at_length(self, quick, shipped):
        """Seconds for which something lasts: long where intervals are as shipped, else no longer than it must."""
        return shipped if self.site.interval == 1.0 else quick

    def until(self, condition, seconds, words):
        """Wait for it; how long it took. Failed when it doesn't come."""
        begin = time.monotonic()
        try:
            self.follow(condition, seconds, words)
        except TimeoutError as error:
            raise Failed(f"{self.drill.name}: {error}") from None
        took = time.monotonic() - begin
        self.say(f"{words}, after {time.monotonic() - self.broken_at:.1f} s", "good")
        return took

    def replaced(self, *daemons, within=None):
        """Wait until other processes do the daemons' work."""
        def done():
            now = self.site.instances()
            return all(len(now[name]) == 1 and now[name][0].pid != self.before[name].pid for name in daemons)
        self.until(done, within or 2 * self.interval + RESTART * max(1, len(daemons) / 2),
                   f"new {', '.join(f'kopano-{name}' for name in daemons)}")

    def served(self, within=60):
        """Wait until all four services have answered since the last breaking or mending."""
        self.until(lambda: self.traffic.all_good(self.broken_at), within, "all services answer")

    def moved(self, to, within=90, only=None):
        """Wait until everything (or `only`, resources) runs there, and serves."""
        def there():
            status = self.lab.status(to)
            return status and all(status.running.get(name) == [to.name] for name in only)
        self.until(there if only else lambda: self.site.everything_runs(to.name), within,
                   f"{', '.join(only) if only else 'everything'} runs on {to.name}")
        self.served()

    def fenced(self):
        """Nodes fenced since the drill began."""
        return self.lab.bmc.fenced()[len(self.site.fenced_before):]

    def only_fenced(self, *nodes):
        """Failed when other nodes were fenced than these."""
        if self.fenced() != [node.name for node in nodes]:
            raise Failed(f"{self.drill.name}: fenced were {self.fenced()}, "
                         f"expected {[node.name for node in nodes]}")

    def acted_on(self):
        """Resources that Pacemaker has started or stopped since the drill began; without fence devices."""
        self.tell_news()
        return {event.subject for event in self.events
                if event.kind in ACTIONS and not event.subject.startswith("fence_")}

    def only_acted_on(self, *resources, perhaps=()):
        """Failed when Pacemaker has touched other resources than these; all other daemons are the very same."""
        self.lab.settle(node=self._asked())
        acted = self.acted_on()
        if not set(resources) <= acted <= set(resources) | set(perhaps):
            raise Failed(f"{self.drill.name}: started or stopped were {sorted(acted)}, expected {resources}")
        after = self.site.snapshot()
        changed = [name for name in DAEMONS if after[name] != self.before[name]]
        if not {f"kopano-{name}" for name in changed} <= acted:
            raise Failed(f"{self.drill.name}: {changed} restarted, but Pacemaker only knows of {acted}")

    def starts(self, resource):
        """How often a resource was started since the drill began."""
        self.tell_news()
        return len([event for event in self.events if event.kind == "start" and event.subject == resource])

    def last(self, kind, subject):
        """time.time() of the last event of a kind that was good, None when there was none."""
        self.tell_news()
        found = [event.at for event in self.events if (event.kind, event.subject, event.good) == (kind, subject, True)]
        return found[-1] if found else None

    def constraints(self, word, node=None):
        """Ids of the constraints that have a word in them."""
        words = (node or self._asked()).out("cibadmin --query --scope constraints", check=False)
        return re.findall(rf'<rsc_\w+ [^>]*\bid="([^"]*{word}[^"]*)"', words)

    def no_node_given_up(self, *but):
        """Failed when a resource (but these) has failed so often on a node that it may not run there any more."""
        words = self.crm("crm_mon", "-1", "--failcounts", "--output-as=xml").stdout
        root = ElementTree.fromstring(words[words.index("<pacemaker-result"):])
        for node in root.iter("node"):
            for history in node.findall("resource_history"):
                count, most = (history.get(name, "0").replace("INFINITY", "1000000")
                               for name in ("fail-count", "migration-threshold"))
                if int(count) >= int(most) > 0 and history.get("id") not in but:
                    raise Failed(f"{self.drill.name}: {history.get('id')} has failed {count} times on "
                                 f"{node.get('name')}, {most} are allowed")

    def dagent_perhaps(self):
        """["kopano-dagent"] when its server or its database made it send clients away with a 421, seen or too late to
        be seen, and so lose slots: then it may be restarted, once."""
        if self.starts("kopano-dagent") > 1:
            raise Failed(f"{self.drill.name}: kopano-dagent was started {self.starts('kopano-dagent')} times")
        return ["kopano-dagent"] if self.traffic.refused or self.traffic.given_up else []

    def limit(self, seconds, *services):
        """Failed when one of the services (all without names) was away for longer than that."""
        for service in services or SERVICES:
            away = self.traffic.outage(service)
            if away > seconds:
                raise Failed(f"{self.drill.name}: {SERVICES[service]} was away for {away:.1f} s, "
                             f"allowed are {seconds:.1f} s")

    def for_a_while(self, condition, seconds, words):
        """Failed when it isn't true all the time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.tell_news()
            if not condition():
                raise Failed(f"{self.drill.name}: not true all the time: {words}")
            time.sleep(0.3)
        self.say(f"{words}, for {seconds:.0f} s", "good")

    def boot(self):
        """Switch on what is off, and wait until it has joined."""
        self.lab.boot()
        asked = self._asked()
        self.until(lambda: self._joined(asked), 90, "all nodes are online")
        self.lab.settle(node=asked)

    def _joined(self, asked):
        status = self.lab.status(asked)
        return status and all(status.online.get(node.name) for node in self.lab)


def freeze(node):
    """Stop every process of a node, as a hung kernel does; its power stays on."""
    for process in processes([node]):
        try:
            os.kill(process.pid, signal.SIGSTOP)
        except ProcessLookupError:
            pass
