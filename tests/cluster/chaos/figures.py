# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run did to the services, in figures."""
import time
from collections import Counter

from drills.traffic import SERVICES, Traffic


def counted(counter):
    """Who, how often."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items())) or "nobody"


def stretches(looks, until):
    """[(begin, seconds, words of the first failure)] in which a service was away, by time.monotonic(): between two
    good looks, when there are bad ones between them or the second took long; the last may go on `until` then."""
    found, last_good, words = [], None, None
    for look in looks:
        if not look.good:
            words = words if words is not None else look.words
            continue
        if last_good is not None and (words is not None or look.end - look.begin > Traffic.SLOW):
            found.append((last_good, look.end - last_good, words or "slow"))
        last_good, words = look.end, None
    if words is not None and last_good is not None:
        found.append((last_good, until - last_good, words))
    return found


def overlapping(spans):
    """How many of these began before another one, begun earlier, had ended; how many there were at a time at most."""
    found = most = 0
    running = []                # ends
    for begin, end in sorted(spans):
        running = [other for other in running if other > begin]
        found += bool(running)
        running.append(end)
        most = max(most, len(running))
    return found, most


class Figures:
    """Figures of a run that is over."""

    def __init__(self, run):
        self.seconds = run.ended - run.began
        self.away = {service: stretches(list(run.traffic.looks[service]), run.ended) for service in SERVICES}
        self.mails = list(run.traffic.figures())
        self.overlapping = overlapping(run.spans)
        self.innocents = run.guard.kept
        self.harmed = sum("an innocent process" in words for words in run.guard.violations)
        self.fenced = Counter(run.lab.bmc.fenced()) - run.fenced_before
        self.starts = Counter(event.subject for event in run.events if event.kind == "start" and event.good)
        self.looks = {"the watch": run.watch.looks, "the guard": run.guard.looks,
                      "clients": sum(map(len, run.traffic.looks.values()))}
        self.done, self.skipped = run.done, run.skipped

    def lines(self):
        """All of it, for people."""
        yield f"faults: {sum(self.done.values())} in {self.seconds:.0f} s ({sum(self.skipped.values())} more " \
              "could not be done at their time)"
        yield "    {} of them began before another one was mended; at a time at most {}".format(*self.overlapping)
        for kind in sorted(self.done.keys() | self.skipped.keys()):
            skipped = f" ({self.skipped[kind]} not)" if self.skipped[kind] else ""
            yield f"    {kind:<18} {self.done[kind]:>3}{skipped}"
        yield "away: longest, in all, how often"
        for service, found in self.away.items():
            seconds = [length for _, length, _ in found]
            yield f"    {SERVICES[service]:<18} {max(seconds, default=0.0):6.1f} s {sum(seconds):7.1f} s " \
                  f"({100 * sum(seconds) / self.seconds:.0f} %) {len(seconds):>4}"
        yield from self.mails
        yield f"fenced: {counted(self.fenced)}"
        yield f"started by Pacemaker: {counted(self.starts)}"
        yield f"innocent processes (decoys: other programs with a daemon's name, words and pid file; a second " \
              f"kopano-dagent): {self.innocents}, signalled {self.harmed} times"
        yield f"looked, how often: {counted(self.looks)}"

    def outages(self):
        """Each outage in a line, by time."""
        offset = time.time() - time.monotonic()
        for begin, service, seconds, words in sorted(
                (begin, service, seconds, words) for service, found in self.away.items()
                for begin, seconds, words in found):
            clock = time.strftime("%H:%M:%S", time.localtime(begin + offset))
            yield f"{clock} {SERVICES[service]:<14} away for {seconds:5.1f} s: {words}"
