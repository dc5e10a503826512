# SPDX-License-Identifier: GPL-2.0-or-later
"""Outages: how long until recurring monitors see and mend a fault; when a hung service gets its verdict."""
import concurrent.futures
import os
import signal
import socket
import threading
import time

import cases as made
import fault
import plots
from growth import another, config
from measure import median, told
from world import processes, wait_for

INTERVALS = (2, 5, 10)                          # seconds between monitors
TRIALS = {"killed": (8, 6, 4), "silent": (3, 3, 3)}     # of each interval; the fault's moment is spread over it
PATIENCE = 10                                   # timeout of those monitors, in seconds
TIMEOUTS = (10, 20, 30)
SAMPLES, APART = 3, 0.25                        # looks at each, and seconds between any two of them
ROWS = ("IMAP client", "monitor", "stop", "start")


class Watched:
    """A gateway that is watched as Pacemaker does: the next monitor an interval after the last; stop and start
    when one has failed. A client asks for IMAP's greeting all the time."""

    hung, lock = set(), threading.Lock()        # ports that do not answer, of all gateways

    def __init__(self, world, number, interval):
        self.world, self.number, self.interval, self.port = world, number, interval, 20000 + number
        self.spans, self.answers, self.over = [], [], threading.Event()
        another(world, number)
        self.pid = max(world.pids("gateway"))

    def act(self, action):
        """Run the agent; its exit code."""
        begin = time.monotonic()
        result = self.world.agent("gateway", action, timeout=PATIENCE if action == "monitor" else 60,
                                  interval=self.interval if action == "monitor" else 0,
                                  instance="gateway%d" % self.number,
                                  params={"config": config(self.world, self.number)})
        self.spans.append((action, begin, time.monotonic(), result.rc))
        return result.rc

    def ask(self):
        """The client."""
        while not self.over.wait(0.1):
            begin = time.monotonic()
            try:
                with socket.create_connection(("127.0.0.1", self.port), 0.5) as client:
                    good = client.recv(512).startswith(b"* OK")
                    client.sendall(b"a LOGOUT\r\n")
            except OSError:
                good = False
            self.answers.append((begin, time.monotonic(), good))

    def silent(self, on):
        """Accept connections and say nothing, or mend that."""
        with Watched.lock:
            (Watched.hung.add if on else Watched.hung.discard)(self.port)
            fault.write(self.world.prefix, "gateway", ["hang @%d" % port for port in sorted(Watched.hung)])

    def main_pid(self):
        """The process behind this port's configuration."""
        path = config(self.world, self.number)
        return next(pid for pid, (_, _, _, words) in processes().items()
                    if path in words and words[0].endswith("kopano-gateway"))

    def trial(self, kind, phase):
        """One outage, at this part of the interval: (seconds to the verdict, seconds to the client's next answer,
        spans, answers); their times are from the fault, too."""
        self.spans, self.answers, self.over = [], [], threading.Event()
        client = threading.Thread(target=self.ask)
        client.start()
        assert self.act("monitor") == 0
        following = time.monotonic() + self.interval
        time.sleep(phase * self.interval)
        at = time.monotonic()
        if kind == "killed":
            os.kill(self.main_pid(), signal.SIGKILL)
        else:
            self.silent(True)
        while True:
            time.sleep(max(0.0, following - time.monotonic()))
            if self.act("monitor") not in (0, 190):
                break
            following = time.monotonic() + self.interval
        seen = time.monotonic()
        assert self.act("stop") == 0
        self.silent(False)
        assert self.act("start") == 0
        good = wait_for(lambda: [end for begin, end, good in list(self.answers) if good and begin > seen], 20)[0]
        self.over.set()
        client.join()
        assert self.act("monitor") == 0
        return (seen - at, good - at, [(what, begin - at, end - at, rc) for what, begin, end, rc in self.spans],
                [(begin - at, end - at, good) for begin, end, good in self.answers])


def recovery(sheet, host, _rounds):
    """Time to the verdict and to the end of an outage by the monitor's interval; a picture of two outages."""
    found = {kind: {} for kind in TRIALS}
    pictures = {}
    with host() as world:
        world.database.start()
        made.act(world, "server", "start")
        watched = [Watched(world, number + 1, interval) for number, interval in enumerate(INTERVALS)]

        def trials(one, turn):
            for kind, counts in TRIALS.items():
                for number in range(counts[turn]):
                    came = one.trial(kind, (number + 0.5) / counts[turn])
                    found[kind].setdefault(one.interval, []).append(came)
                    if one.interval == 10 and number == counts[turn] // 2:
                        pictures[kind] = came

        with concurrent.futures.ThreadPoolExecutor(len(watched)) as pool:
            for done in [pool.submit(trials, one, turn) for turn, one in enumerate(watched)]:
                done.result()
    sheet.section("From a fault to its end", "A gateway under a loop like Pacemaker's: a monitor at depth 10 "
                  "(timeout %d s) each interval, and after a bad verdict stop and start. Killed: SIGKILL. Silent: "
                  "it accepts connections and says nothing; to be sure of that takes nearly the whole timeout, "
                  "and to stop it 10 s, since the gateway waits so long for its clients. A client outside asks "
                  "all the time. The fault's moment is spread evenly over the interval; in brackets the shortest "
                  "and the longest." % PATIENCE)
    table = sheet.table("fault, interval s", "outages", "seen after s", "client served again after s")
    for kind, by_interval in found.items():
        for interval, rows in sorted(by_interval.items()):
            table.add("%s, %d" % (kind, interval), len(rows),
                      *[extremes([row[column] for row in rows]) for column in (0, 1)])
    sheet.plot("recovery.svg", "Seconds from the fault to the verdict and to the end of the outage, by interval",
               lambda path: plots.dots(
                   path, "seconds between monitors", "seconds since the fault",
                   [(kind + ": " + what, {interval: [row[column] for row in rows]
                                          for interval, rows in sorted(by_interval.items())})
                    for kind, by_interval in found.items()
                    for column, what in ((0, "seen"), (1, "client served again"))]))
    sheet.words("Two of these outages, second by second. Green: the client was answered; red: it was not, and the "
                "monitor that saw it; grey: what the agent did about it.")
    sheet.plot("outage.svg", "An outage of each kind, second by second, with a monitor every 10 s",
               lambda path: plots.outages(path, [
                   ("kopano-gateway %s; monitor every 10 s" % {
                       "killed": "is killed", "silent": "accepts connections but says nothing"}[kind],
                    spans(came), ROWS) for kind, came in pictures.items()]))


def extremes(samples):
    """Median, least and most in one cell of a table."""
    return "%.1f (%.1f-%.1f)" % (median(samples), min(samples), max(samples))


def spans(came):
    """An outage for plots.outages: what the agent did and what the client saw."""
    colours = {"monitor": plots.BLUE, "stop": plots.GREY, "start": plots.GREY}
    found = []
    for what, begin, end, code in came[2]:
        found.append((what, begin, end, colours[what] if code == 0 else plots.RED,
                      "rc %d" % code if what == "monitor" else "%.1f s" % (end - begin)))
    state, since = None, None
    for begin, end, good in came[3] + [(came[3][-1][1], came[3][-1][1], None)]:
        if good != state:
            if state is not None:
                found.append((ROWS[0], since, begin, plots.GREEN if state else plots.RED, ""))
            state, since = good, begin
    return found


# ---- the verdict on a hung service -----------------------------------------------------------------------

def hung(sheet, host, _rounds):
    """When the verdict comes, by the timeout that the monitor was given."""
    left = {}
    with made.serving(host()) as world:
        def look(pause, title, name, level, timeout):
            time.sleep(pause)       # they would all want to tell their verdicts in the same moment
            result = world.agent(name, "monitor", level=level, timeout=timeout,
                                 params={"attribute": ""} if name == "webapp-health" else {})
            assert result.rc in (1, 190), (title, result)
            return title, timeout, timeout - result.took

        def together(*what):
            jobs = [(title, name, level, timeout) for title, name, level in what
                    for timeout in TIMEOUTS for _ in range(SAMPLES)]
            with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
                for title, timeout, seconds in pool.map(lambda job: look(job[0] * APART, *job[1]),
                                                        enumerate(jobs)):
                    left.setdefault((title, timeout), []).append(seconds)

        apache = [pid for pid, entry in processes().items() if entry[0].endswith("/apache2")]
        for pid in apache:
            os.kill(pid, signal.SIGSTOP)
        for name in ("dagent", "gateway", "ical"):
            world.fault(name, "hang")
        together(*[(name + ", depth 10", name, 10) for name in ("dagent", "gateway", "ical")],
                 ("webapp-health, depth 10", "webapp-health", 10))
        for pid in apache:
            os.kill(pid, signal.SIGCONT)
        world.fault("server", "hang")
        together(("server, depth 10", "server", 10))
        world.clear_faults("server")
        world.database.freeze()
        together(("server, depth 20, its database hung", "server", 20))
        world.database.thaw()
    sheet.section("The verdict on a hung service", "It accepts connections and says nothing. The monitor waits, "
                  "but gives its verdict in time: between 1 s and 20 % of the timeout before Pacemaker would kill "
                  "it. A server is not held guilty of a hung database, which may be clear earlier.")
    table = sheet.table("monitor", *["seconds left of %d" % timeout for timeout in TIMEOUTS])
    good = True
    for title in dict.fromkeys(title for title, _ in left):
        row = [title]
        for timeout in TIMEOUTS:
            samples = left[title, timeout]
            within = min(samples) >= 1 and max(samples) <= 0.2 * timeout
            early = "its database hung" in title and min(samples) >= 1
            good = good and (within or early)
            row.append(told(samples, 1, "%.2f") + ("" if within or early else " missed"))
        table.add(*row)
    least = min(min(samples) for samples in left.values())
    sheet.target("verdict on a hung service before the end of the operation's timeout", "1 s to 20 % of it",
                 "%.2f s at least; see the table" % least, good)
