# SPDX-License-Identifier: GPL-2.0-or-later
"""A run: the plan's faults, a thread each, while clients come and go; then all is mended and judged."""
import imaplib
import re
import subprocess
import threading
import time
import traceback
from collections import Counter

from chaos.decoys import Guard
from chaos.figures import Figures
from chaos.kinds import NODE
from chaos.machines import plug, until_done, wake
from chaos.mail import Mail
from chaos.targets import Skip
from kopano_site import Watch
from namespaces import LabError, wait_for
from story import Story

PATIENCE = 40.0             # seconds that a fault waits until others are over, or nodes are back
RETRIES = 16                # looks, two a second, for what a fault is to hit
# Seconds until everything runs again: dagent's failures are remembered for 120 s, a stop before that may take 60,
# a hung thing is seen after 30.
BY_ITSELF = 240.0
# The same until outgoing mail has left: Linux gives a connection up after 127 s, the spooler looks once a minute.
LEAVES = 200.0
TROUBLE = (LabError, OSError, subprocess.TimeoutExpired, TimeoutError, ValueError, IndexError)
# its own comment in crm/common/030-mysql.crm tells why: the agent looks too early
MAY_FAIL_TO_STOP = ("mysqld",)


class Run(Story):
    """`Run(site, planned, ...).perform()`: what must never be and was, in words; [] when all went well.

    `name` is in the mails' subjects; `log`: an open file; `kinds`: what the plan was made from.
    """

    def __init__(self, site, planned, name, log, kinds):
        super().__init__(site.lab)
        self.site, self.planned_faults, self.name, self.log = site, planned, name, log
        self.kinds = {kind.name: kind for kind in kinds}
        self.watch = self.guard = self.traffic = None
        self.events = []                    # of Pacemaker
        self.done, self.skipped = Counter(), Counter()
        self.spans = []                     # (begin, end (time.monotonic())) of each fault that was done
        self.troubles = []                  # what could not be mended, or a thread that died
        self.unstoppable = []               # [node, from, to (time.time())] without storage: its stops may fail
        self.began = self.ended = 0.0       # time.monotonic()
        self.fenced_before = Counter()
        self.figures = None
        self._over = threading.Event()
        self._busy = {}                     # a word of Kind.alone -> the thread that has it
        self._threads = []
        self._saying = threading.RLock()
        self._reported = set()

    # ---- telling -----------------------------------------------------------------------------------------

    def say(self, words, colour="plain", at=None, who=""):
        """One line, told; and logged, if it isn't an event (with a time), of which the log has more."""
        with self._saying:
            if at is None:
                self.note(words)
            super().say(words, colour, at, who)

    def note(self, words, at=None, who=""):
        """One line for the log alone."""
        at = at or time.time()
        clock = time.strftime("%H:%M:%S", time.localtime(at))
        with self._saying:
            self.log.write(f"{clock}.{int(at % 1 * 1000):03d} {who:<6} {words}\n")
            self.log.flush()

    def news(self):
        """Events since the last time; all of them are logged and kept."""
        found = super().news()
        self.events += found
        for event in found:
            self.note(f"    {event}", event.at, event.node)
        return found

    def broke(self, words):
        """A fault has begun."""
        self.say(f"BREAK {words}", "warn")

    def mended(self, words):
        """A fault is over."""
        self.say(f"mend  {words}", "good")

    # ---- the run -----------------------------------------------------------------------------------------

    def perform(self):
        """All of it."""
        self.note("the plan:")
        for planned in self.planned_faults:
            self.log.write(f"    {planned}\n")
        self.timeline.news()                # how it came up is another story
        self.fenced_before = Counter(self.lab.bmc.fenced())
        try:
            with Watch(self.site) as self.watch, Guard(self.site) as self.guard:
                with Mail(self.site, self.name) as self.traffic:
                    self.follow(lambda: self.traffic.all_good(0) and self.guard.looks, 60, "clients are served")
                    self.began = time.monotonic()
                    self.step(f"Chaos: {len(self.planned_faults)} faults")
                    self._break_things()
                    self.step("Everything is mended")
                    self._mend_things()
                    violations = self._wait_until_well()
                    self.ended = time.monotonic()
                    violations += self._dead_observers()
                    self._wait_until_sent()
                violations += self._judge()
        finally:
            self._over.set()
            self.tell_news()
        self.end_step()
        self.figures = Figures(self)
        return violations

    def over(self):
        """Whether the time for faults is over."""
        return self._over.is_set()

    def wait(self, condition, seconds, what):
        """For a fault's thread: until `condition()`; TimeoutError."""
        wait_for(condition, seconds, what, every=0.3)

    def _break_things(self):
        waiting = list(self.planned_faults)
        while waiting:
            now = time.monotonic() - self.began
            for planned in [planned for planned in waiting if planned.at <= now]:
                alone = self.kinds[planned.kind].alone
                if self._may_begin(alone):
                    waiting.remove(planned)
                    self._begin(planned, alone)
                elif now > planned.at + PATIENCE:
                    waiting.remove(planned)
                    self._skip(planned, f"for {PATIENCE:.0f} s there was no moment for it")
            self._report_violations()
            self.tell_news()
            time.sleep(0.2)
        # the last one gets its time, too
        last = self.planned_faults[-1]
        while time.monotonic() - self.began < last.at + last.lasts:
            self._report_violations()
            self.tell_news()
            time.sleep(0.2)

    def _may_begin(self, alone):
        if alone and alone in self._busy and self._busy[alone].is_alive():
            return False
        return alone != NODE or self._both_well()

    def _both_well(self):
        """Whether no node is away, or about to be fenced: at most one is down at a time."""
        statuses = [self.lab.status(node) for node in self.lab if node.alive()]
        return len(statuses) == len(self.lab.nodes) and all(
            status and status.quorum and not status.unclean and all(map(status.online.get, self.lab.nodes))
            for status in statuses)

    def _begin(self, planned, alone):
        thread = threading.Thread(target=self._fault, args=(planned,), name=str(planned), daemon=True)
        self._threads.append(thread)
        if alone:
            self._busy[alone] = thread
        thread.start()

    def _fault(self, planned):
        for retry in range(RETRIES):
            steps = self.kinds[planned.kind].act(self, *planned.words)
            try:
                next(steps)
                break
            except Skip as why:
                if retry == RETRIES - 1 or self._over.wait(0.5):
                    return self._skip(planned, why)
            except TROUBLE as error:        # a node went away under it
                return self._skip(planned, f"{type(error).__name__}: {error}")
        self.done[planned.kind] += 1
        begin = time.monotonic()
        self._over.wait(planned.lasts)
        try:
            for _ in steps:
                pass
        except TROUBLE as error:
            self.say(f"{planned.kind} {' '.join(planned.words)} could not be mended: {error}", "bad")
            self.note(traceback.format_exc())
            self.troubles.append(f"{planned.kind} {' '.join(planned.words)} could not be mended: {error}")
        self.spans.append((begin, time.monotonic()))

    def _skip(self, planned, why):
        self.skipped[planned.kind] += 1
        self.say(f"not done: {planned.kind} {' '.join(planned.words)}: {str(why).splitlines()[0]}", "dim")
        self.note(str(why))

    def _report_violations(self):
        for violation in self.watch.violations + self.guard.violations:
            if violation not in self._reported:
                self._reported.add(violation)
                self.say(f"VIOLATION {violation}", "bad")

    # ---- the end -----------------------------------------------------------------------------------------

    def _mend_things(self):
        self._over.set()
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.3)
                self.tell_news()
        # a fault that ended half-way, because its node went away, has left this to us
        self.lab.bmc.broken = False
        self.site.database_may_start(True)
        for node in self.lab:
            plug(self, node, *self.lab.NETWORKS)
            if node.name in self.guard.frozen:
                wake(self, node)
        for node in self.lab:
            until_done(self, ["crm_standby", "--node", node.name, "--delete"], f"{node.name} is to be online")
        for group in ("kopano", "mysql"):
            until_done(self, ["crm_resource", "--clear", "--resource", group], f"{group} may go where it wants")

    def _wait_until_well(self):
        """Wait until everything runs and serves; words about what doesn't."""
        begin = time.monotonic()

        def well():
            self._report_violations()
            try:
                return (time.monotonic() > begin + 1 and self._both_well() and self.site.everything_runs() and
                        self._can_fence() and self.traffic.all_good(begin) and not self._given_up())
            except TROUBLE:             # a node that does not answer is not well
                return False
        try:
            self.follow(well, BY_ITSELF, "everything runs again")
            self.lab.settle(timeout=BY_ITSELF)
        except TimeoutError as error:
            self.say(str(error).partition("\n")[0], "bad")
            return [f"not well by itself: {error}", *self._given_up(), self._administrator(well)]
        self.say(f"everything runs again, {time.monotonic() - begin:.1f} s after the last mending", "good")
        return []

    def _wait_until_sent(self):
        """Wait until what kopano-server has taken has left; _judge() has the last word."""
        self.traffic.outgoing.enough()
        try:
            self.follow(self.traffic.outgoing.all_left, LEAVES, "all outgoing mail has left")
        except TimeoutError as error:
            self.say(str(error).partition("\n")[0], "bad")

    def _can_fence(self):
        status = self.lab.status()
        return status and all(status.running.get(f"fence_{name}") for name in self.lab.nodes)

    def _given_up(self):
        """Words about each resource that is blocked, failed or unmanaged."""
        for node in self.lab:
            if node.alive():
                words = node.run(["crm_mon", "-1", "--output-as=xml"], check=False, timeout=30).stdout
                return [f"{found[1]}: {found[2]}" for found in re.finditer(
                    r'<resource id="(\S+)"[^>]*?((?:blocked|failed)="true"|managed="false")', words)]
        return ["no node is up"]

    def _administrator(self, well):
        """What an administrator has to do."""
        for node in self.lab:
            if not node.alive():
                self.lab.boot()
                return f"an administrator has to switch {node.name} on"
        try:
            next(iter(self.lab)).run(["crm_resource", "--cleanup"], timeout=120)
            self.follow(well, 120, "everything runs after a cleanup")
            return "an administrator has to say `crm resource cleanup`, which helps"
        except TROUBLE as error:
            return f"`crm resource cleanup` does not help either: {str(error).splitlines()[0]}"

    def _dead_observers(self):
        """An observer that has ended has seen nothing."""
        wrong = [f"the lab itself: {thread.name} has ended" for thread in (self.watch, self.guard)
                 if not thread.is_alive()]
        wrong += [f"the lab itself: the client of {service} has ended"
                  for service, looks in self.traffic.looks.items() if looks[-1].end < self.ended - 15]
        return wrong + [f"the lab itself: {trouble}" for trouble in self.troubles]

    def _judge(self):
        """What must never be, and was."""
        wrong = self.watch.violations + self.guard.violations
        try:
            wrong += dict.fromkeys(self.traffic.lost_or_doubled())
        except (OSError, imaplib.IMAP4.error) as error:
            wrong.append(f"the mails can't be read: {error}")
        if not self.traffic.acknowledged:
            wrong.append("no mail was acknowledged")
        self.tell_news()
        return wrong + [f"a stop failed: {event}" for event in self.events
                        if event.kind == "stop" and not event.good and event.text != "Cancelled" and
                        event.subject not in MAY_FAIL_TO_STOP and not self._had_lost_storage(event)]

    def _had_lost_storage(self, event):
        return any(node == event.node and begin < event.at < end for node, begin, end in self.unstoppable)


def report(title, figures, violations, log):
    """The end of a run, told and logged: figures, and what must never be and was. It can be quoted as it is."""
    if figures:
        log.write("\n".join(figures.outages()) + "\n\n")
    lines = [title, *(figures.lines() if figures else ()),
             *([f"VIOLATION: {words}" for words in violations] or ["No violation."])]
    log.write("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines), flush=True)
