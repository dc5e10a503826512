# SPDX-License-Identifier: GPL-2.0-or-later
"""One fault at one daemon, looked after in one way: what is seen, what is done about it, what it costs."""
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import List, Optional

from .fault import ELSEWHERE, NO_RESTART, NOTHING, RESTART
from .scene import Scene
from .ways import Kopano

NEVER = 8.0             # seconds of watching after which a way has not seen it
PATIENCE = 30.0         # the same for our agents, that wait for an answer in vain for almost as long as they may
GOOD_FOR = 1.5          # seconds of service that count as having recovered
AFTERWARDS = 15.0       # seconds after the fault was mended in which all must be well by itself
WAITED = 0.3            # the part of a monitor's timeout from which on it has waited for something that hangs
CLIENT = 0.2            # seconds from one client to the next


@dataclass
class Outcome:
    """What came of it. Times are in seconds from the moment it was broken.

    looks       [seconds, verdict, seconds it took, words] of each look that differs from the one before
    verdict     the last one before anything was done
    seen        when the first verdict of failure (of ours: any but 0) was there
    back        when clients were served again, by what the way did; None: not within the time of watching
    restarts    how many times it was stopped and started;  blocked: a stop failed: nothing is done any more
    refused     a start failed: Pacemaker takes the other node
    planned     exit codes of the stop and the start that were asked for, and whether clients were served then
    after       seconds from the mending until clients were served, where nobody had restarted it; None: never
    late        a verdict on something that hangs: seconds left until the monitor's timeout
    """
    fault: str
    daemon: str
    way: str
    looks: List = field(default_factory=list)
    verdict: str = ""
    words: str = ""
    seen: Optional[float] = None
    back: Optional[float] = None
    restarts: int = 0
    blocked: bool = False
    refused: bool = False
    planned: Optional[List] = None
    after: Optional[float] = None
    late: List = field(default_factory=list)
    harm: List = field(default_factory=list)
    said: List = field(default_factory=list)
    error: str = ""
    took: float = 0.0

    def plain(self):
        """For JSON."""
        return asdict(self)


class Client:
    """A client that comes again and again.

    served, since   whether it is served now, and the time when that began
    good            when the last one that was served had come
    """

    def __init__(self, scene):
        self._scene, self._over = scene, threading.Event()
        self.served, self.since, self.good = True, time.monotonic(), 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._over.is_set():
            with self._scene.clients:
                asked = time.monotonic()
                served = self._scene.serves()
            if served != self.served:
                # service is back when it has answered, and gone since it was asked in vain
                self.since, self.served = (time.monotonic() if served else asked), served
            if served:
                self.good = asked
            self._over.wait(CLIENT if served or time.monotonic() - asked < 1 else 0.05)

    def stop(self):
        """Come no more."""
        self._over.set()
        self._thread.join(10)


def run(fault, daemon, way):
    """Break, watch, recover, mend. Returns an Outcome, or None where the way has nothing to look at."""
    began = time.monotonic()
    outcome = Outcome(fault.name, daemon, way.name)
    scene = Scene(fault, daemon, way)
    if not scene.way.applies() or way.name in fault.not_for:
        return None
    client = None
    try:
        scene.prepare()
        scene.way.look()
        client = Client(scene)
        scene.breaks()
        _watch(scene, outcome, client)
        if fault.asked(daemon) and not outcome.blocked and scene.way.recovers:
            _plan(scene, outcome)
        if not outcome.restarts and not outcome.planned and fault.cured(daemon) in (NO_RESTART, NOTHING):
            _mend(scene, outcome, client)
        client.stop()
        outcome.harm = scene.harm()
        outcome.said = scene.said[-4:]
    except Exception as error:              # one case must not end all the others
        outcome.error = "%s: %s" % (type(error).__name__, error)
    finally:
        if client:
            client.stop()
        scene.close()
    outcome.took = time.monotonic() - began
    return outcome


def _watch(scene, outcome, client):
    broken = time.monotonic()
    fault, way = scene.fault, scene.way
    ours = isinstance(way, Kopano)
    cured = fault.cured(scene.name) in (RESTART, ELSEWHERE)
    patience = PATIENCE if ours and scene.name in fault.waits else NEVER
    if ours:
        patience += fault.expected(scene.name, way.depth).after
    until = broken + way.interval / 2 + patience
    acted, back = 0.0, None
    # as often as not half an interval has passed when something breaks
    time.sleep(way.interval / 2)
    while time.monotonic() < until:
        turn = time.monotonic()
        look = way.look()
        now = time.monotonic()
        if not outcome.looks or outcome.looks[-1][1] != look.verdict:
            outcome.looks.append([now - broken, look.verdict, look.took, look.words])
        # what must not be asked again while it may hang is told at once
        if ours and look.took > WAITED * way.monitor_timeout and look.verdict != "0":
            outcome.late.append(way.monitor_timeout - look.took)
        if not outcome.restarts and not (fault.passes and outcome.seen is not None):
            outcome.verdict, outcome.words = look.verdict, look.words
        if outcome.seen is None and (look.failed or ours and look.verdict != "0"):
            outcome.seen = now - broken
        if look.failed and way.recovers and way.restarts(look):
            back = None
            if not _recover(scene, outcome):
                break
            acted = time.monotonic()
            until = time.monotonic() + (2 * way.interval + 3 if outcome.restarts < 3 else 0)
        if acted and not look.failed and client.served:
            # an outage may be too short for a client to notice
            unnoticed = client.good if client.good > acted else None
            back = client.since if client.since > broken else back or unnoticed
            if back and time.monotonic() - back > GOOD_FOR:
                break
        else:
            back = None
        # seen and nothing to be done about it: a few looks more, whether it stays so
        if outcome.seen is not None and not acted and not (cured and ours):
            until = min(until, broken + outcome.seen + 3 * max(way.interval, 2.0))
        time.sleep(max(0.0, way.interval - (time.monotonic() - turn)))
    if back and client.served:
        outcome.back = back - broken


def _recover(scene, outcome):
    """Stop and start, as Pacemaker (or systemd) does; whether there is anything to look at afterwards."""
    outcome.restarts += 1
    if scene.way.stop() != 0:
        outcome.blocked = True
        return False
    scene.stopped = 0
    if scene.way.start() != 0:
        outcome.refused = True
        return False
    return True


def _plan(scene, outcome):
    """A stop and a start that an administrator asks for."""
    outcome.planned = [scene.way.stop()]
    scene.stopped = outcome.planned[0]
    if outcome.planned[0] == 0 and scene.fault.asked(scene.name)[1] is not None:
        outcome.planned.append(scene.way.start())
        until = time.monotonic() + 5
        while not scene.serves() and time.monotonic() < until:
            time.sleep(CLIENT)
        outcome.planned.append(scene.serves())


def _mend(scene, outcome, client):
    scene.mends()
    mended = time.monotonic()
    while time.monotonic() - mended < AFTERWARDS:
        if client.served and client.good > mended:
            outcome.after = max(0.0, client.since - mended)
            return
        time.sleep(0.05)
