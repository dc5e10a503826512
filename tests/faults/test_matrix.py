# SPDX-License-Identifier: GPL-2.0-or-later
"""Every fault of the catalogue gets the verdict that is written down for it, and no restart that can't cure it.

`make matrix` measures the same faults in full, beside other ways to look after the daemons.
"""
import glob
import os

import pytest

from contract.rough import AGENTS
from world import DAEMONS, wait_for

from . import catalogue, nodes, webapp  # noqa: F401
from .fault import CATALOGUE, ELSEWHERE, ILL_MUCH_LATER, NO_RESTART, NOTHING, RESTART, cases
from .report import PAGE, ROOT, between
from .scene import Scene
from .ways import Kopano20

HANGS = 2.5             # seconds for a monitor that waits in vain; `make matrix` measures when it ends
ANSWERS = 10
STOPS = 30              # seconds for a stop whose steps are made short; one that must refuse: 7
CASES = cases()

# what every kind of fault that was asked for is called in the catalogue; with ALL for each of the six daemons
ALL = {"crash": "crash", "freeze": "freeze", "livelock": "livelock", "deadlock with live threads": "deadlock"}
KINDS = dict(ALL, **{
    "listener closed while alive": "listener-closed", "accepting but silent": "silent", "garbage": "garbage",
    "half an answer": "half", "slow drip": "slow-drip", "wrong service on the port": "wrong-service",
    "leaked slots": "slots-leaked", "workers exhausted": "workers-exhausted",
    "file descriptors exhausted": "files-exhausted", "lost pid file": "pid-file-lost",
    "stale pid file": "pid-file-stale", "foreign pid file": "pid-file-foreign",
    "binary pid file": "pid-file-binary", "enormous pid file": "pid-file-enormous",
    "left-over socket": "left-over-socket", "stolen socket": "socket-stolen",
    "second instance": "second-instance", "config broken after start": "config-broken",
    "binary replaced by an upgrade": "binary-replaced", "TERM ignored": "term-ignored",
    "children left behind": "children-left", "zombie": "zombie", "log disk full": "log-disk-full",
    "/run lost": "run-lost", "clock jump": "clock-jump", "certificate expired": "certificate-expired",
    "database killed": "database-killed", "database hung": "database-hung",
    "database read-only": "database-read-only", "database with another password": "database-password",
    "database slow": "database-slow", "server down": "server-down", "server hung": "server-hung",
    "server restarting": "server-restarting", "server upgrading its schema": "server-upgrading"})


def programme():
    """Each fault at one daemon; the others of `make matrix` are long."""
    for number, one in enumerate(CATALOGUE.values()):
        for position, daemon in enumerate(one.daemons):
            kept = position == number % len(one.daemons)
            yield pytest.param((one, daemon), id=name_of((one, daemon)), marks=[] if kept else [pytest.mark.long])


class Later:
    """Agents that live so many seconds later, by the clock that nobody sets: no test waits for a minute."""

    def __init__(self, folder):
        self._folder, self._seconds = folder, 0

    def agents(self, forward):
        """A directory with agents for which so many seconds more have passed; None at first."""
        self._seconds += int(forward)
        if not self._seconds:
            return None
        folder = self._folder / str(self._seconds)
        folder.mkdir(exist_ok=True)
        for name in os.listdir(AGENTS):
            path = folder / name
            path.write_text("#!/bin/sh\nexec unshare -T --monotonic %d --fork --kill-child %s/%s \"$@\"\n" % (
                self._seconds, AGENTS, name))
            path.chmod(0o755)
        return str(folder)


@pytest.fixture
def staged(request, tmp_path):
    """A running system with the fault in it."""
    one, daemon = request.param
    scene = Scene(one, daemon, Kopano20)
    scene.clock = Later(tmp_path)
    scene.way.monitor_timeout = HANGS if daemon in one.waits else ANSWERS
    scene.way.parameters["stop_escalate"] = 1
    try:
        scene.prepare()
        scene.breaks()
        yield scene
    finally:
        scene.close()


def settle(scene, depth):
    """Looks at this depth until the verdict is the expected one, and whether it stays: [exit codes], last Look."""
    says = scene.fault.expected(scene.name, depth)
    codes, stays, moves = [], says.rc in (0, 190), None
    for number in range(3 if says.after else 2 if says.before or stays else 1):
        # two steps take it beyond 65 s, or 125 s
        scene.way.agents = scene.clock.agents(says.after / 2 + 2 if says.after and number else 0)
        scene.way.depth = depth
        if number and says is ILL_MUCH_LATER:
            wait_for(lambda before=moves: switches(scene.pid) != before, 10, "other threads move")
        moves = switches(scene.pid)
        look = scene.way.look()
        codes.append(None if look.verdict == "None" else int(look.verdict))
        if codes[-1] == says.rc and not stays:
            break
    return codes, look


def switches(pid):
    """How often each thread has given up the CPU."""
    try:
        return [words.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0] for words in (
            open("/proc/%d/task/%s/status" % (pid, task), encoding="ascii").read()
            for task in sorted(os.listdir("/proc/%d/task" % pid)))]
    except OSError:
        return []


def name_of(case):
    """For pytest."""
    return "%s-%s" % (case[0].name, case[1])


@pytest.mark.parametrize("staged", programme(), indirect=True)
def test_the_verdict_is_the_one_written_down(staged):
    seen = []
    for depth in (10, 20):
        says = staged.fault.expected(staged.name, depth)
        codes, look = settle(staged, depth)
        assert codes[-1] == says.rc and set(codes) <= set(says.before + (says.rc,)), (
            "depth %d: %s, expected %s: %s" % (depth, codes, says, look))
        assert look.words or says.rc == 0, "no reason is given"
        seen += codes
    if staged.fault.cured(staged.name) not in (RESTART, ELSEWHERE):
        assert not set(seen) & {1, 7, None}, "a restart that cures nothing"
    if staged.fault.asked(staged.name):
        planned(staged, *staged.fault.asked(staged.name))
    assert not staged.harm()


def planned(scene, stop, start):
    """A stop and a start that an administrator asks for come to these codes."""
    scene.way.timeouts["stop"] = 7 if stop else STOPS
    scene.stopped = scene.way.stop()
    assert scene.stopped == stop, "stop: %s" % scene.said
    if start is not None:
        assert scene.way.start() == start, "start: %s" % scene.said
        assert start or scene.serves()


@pytest.mark.parametrize("name", webapp.FAULTS)
def test_webapp_health_says_what_is_written_down(name):
    if not glob.glob("/etc/apache2/mods-available/php*.load"):
        pytest.skip("no Apache with PHP here")
    assert webapp.run(webapp.FAULTS[name])["wrong"] == []


# ---- the catalogue

def test_every_kind_of_fault_is_there():
    assert not set(KINDS.values()) - set(CATALOGUE)
    for name in ALL.values():
        assert CATALOGUE[name].daemons == DAEMONS


def test_what_a_restart_does_not_cure_is_never_called_a_failure():
    for one, daemon in CASES:
        if one.cured(daemon) in (NO_RESTART, NOTHING):
            for depth in (10, 20):
                assert one.expected(daemon, depth).rc in (0, 190), name_of((one, daemon))
        elif one.cured(daemon) == RESTART:
            assert {1, 7} & {one.expected(daemon, depth).rc for depth in (10, 20)}, name_of((one, daemon))


def test_what_nobody_can_tell_says_why():
    for one, daemon in CASES:
        if one.cured(daemon) != NOTHING and not one.expected(daemon, 10).rc and not one.expected(daemon, 20).rc:
            assert one.blind, name_of((one, daemon))


def test_the_page_and_the_readme_tell_of_this_catalogue_and_nothing_is_wrong():
    with open(PAGE, encoding="utf-8") as file:
        page = file.read()
    assert "Not as the catalogue says" not in page
    for one, daemon in CASES:
        assert "| [%s](#%s) | %s |" % (one.name, one.name, daemon) in page, "run make matrix"
        assert "### %s\n" % one.name in page
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        summary = between(file.read())[1]
    assert "%d faults, %d rows," % (len(CATALOGUE), len(CASES)) in summary and summary in page
    for name in nodes.drills():
        assert "| [%s](drills.md#%s) |" % (name, name) in page
