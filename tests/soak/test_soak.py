# SPDX-License-Identifier: GPL-2.0-or-later
"""No false alarm on a host that has hardly a moment to spare: a small part of `make soak`.

Memory is not short here: others need it, so no more than 1 GB is held.
"""
import os
import sys
import types

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [path for path in (HERE, os.path.join(ROOT, "tests", "bench")) if path not in sys.path]

import inventory  # noqa: E402
from load import SLOTS, WORKERS  # noqa: E402
from soak import FLOORS, Soak, host, schedule  # noqa: E402
from world import Result  # noqa: E402


@pytest.mark.timeout(400)       # under a minute on an idle machine
def test_a_busy_host_is_a_healthy_host():
    folder = os.path.join(ROOT, "build")
    os.makedirs(folder, exist_ok=True)
    with host(folder) as world:
        soak = Soak(world, schedule(300, 60), minutes=5, burners=os.cpu_count() + 2, memory=1 << 30, folder=folder)
        soak.furnish()
        soak.soak()
        assert soak.good, soak.report()


# ---- what is no proof ----------------------------------------------------------------------------------

def over(**other):
    """A Soak that is over, and was as it must be, but for other figures."""
    soak = Soak(types.SimpleNamespace(real=False), [("server", 10), ("ical", 20)], 1, leave=1 << 30, memory=1 << 50)
    for entry in soak.schedule:
        soak.figures[entry].add(Result(0, "", "", 0.1))
    figures = {"seconds": 10, "bytes written": 1 << 30, "bytes available": 1 << 30, "bytes held": 9 << 30}
    figures.update((what, floor * 10) for what, floor in FLOORS.items())
    soak.load.told = [("all", {"done": {**figures, **other}})]
    soak.samples.update({"running processes": [99], "server's workers": [WORKERS], "dagent's clients": [SLOTS]})
    return soak


def test_all_monitors_have_to_be_run():
    soak = over()
    assert soak.good
    soak.schedule.append(("server", 20))
    assert not soak.good


def test_a_wrong_verdict_or_word_counts():
    for result in (Result(1, "", "", 0.1), Result(None, "", "", 30.0), Result(0, "", "ocf-exit-reason:slow", 0.1)):
        soak = over()
        soak.schedule.append(("server", 20))
        soak.figures["server", 20].add(result)
        assert not soak.good and soak.wrong() == [("server", 20, result)]


@pytest.mark.parametrize("what", [*FLOORS, "bytes written"])
def test_a_load_that_was_none_is_no_proof(what):
    soak = over(**{what: 0})
    assert not soak.good and soak.lacking()[0].startswith(what)


def test_memory_and_limits_have_to_be_near():
    assert "memory" in over(**{"bytes available": 2 << 30}).lacking()[0]
    for what, count in (("server's workers", 7), ("dagent's clients", 3), ("running processes", 1)):
        soak = over()
        soak.samples[what] = [count, count, 99]
        assert not soak.good and soak.lacking()[0].startswith(what)
        del soak.samples[what]
        assert not soak.good and soak.lacking() == ["%s: not known" % what]


def test_what_is_left_is_told():
    before = {"server: MariaDB connections": 4, "processes of apache2": 6, "server: sessions": 3}
    assert not inventory.grown(before, {"server: MariaDB connections": 9, "processes of apache2": 11})
    assert inventory.grown(before, {"server: MariaDB connections": 10, "processes of apache2": 12,
                                    "server: sessions": 4, "processes of apache2 (zombie)": 1}) == [
        "processes of apache2: 6 -> 12", "processes of apache2 (zombie): 0 -> 1",
        "server: MariaDB connections: 4 -> 10", "server: sessions: 3 -> 4"]
