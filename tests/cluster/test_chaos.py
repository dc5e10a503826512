# SPDX-License-Identifier: GPL-2.0-or-later
"""Chaos with mail (chaos/): the plan is the seed's, a short run goes well, and what must never be is seen."""
import os
import signal
import subprocess
import sys
from random import Random

import pytest

from chaos.ground import Ground
from chaos.kinds import KINDS, Kind, kinds, nothing
from chaos.plan import Planned, plan
from chaos.run import run
from kopano_site import DEPLOYMENTS, ROOT, keep_logs
from node import processes

SEED, SECONDS = 7, 65           # of the short run
COMMAND = f"{ROOT}/tests/cluster/chaos/run.py"


# ---- the plan ----------------------------------------------------------------------------------------------

def test_the_same_seed_gives_the_same_plan():
    words = [sys.executable, COMMAND, "--plan", "--seed", "7", "--minutes", "5"]
    told = [subprocess.run(words, env={**os.environ, "PYTHONHASHSEED": number}, check=True, text=True,
                           stdout=subprocess.PIPE).stdout.splitlines() for number in "12"]
    assert told[0] == told[1] == [str(planned) for planned in plan(7, 300, KINDS)]
    assert plan(8, 300, KINDS) != plan(7, 300, KINDS)


def test_a_longer_run_begins_as_a_shorter_one():
    assert plan(7, 300, KINDS) == [planned for planned in plan(7, 900, KINDS) if planned.at < 300]


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_half_an_hour_has_faults_of_every_kind(deployment):
    known = kinds(deployment)
    assert {planned.kind for planned in plan(1, 1800, known)} == {kind.name for kind in known}


def test_faults_overlap_but_those_that_must_not():
    known = {kind.name: kind for kind in KINDS}
    overlapping = 0
    for seed in range(20):
        planned = plan(seed, 600, KINDS)
        for place, one in enumerate(planned):
            for other in planned[place + 1:]:
                if other.at < one.at + one.lasts:
                    overlapping += 1
                    alone = known[one.kind].alone
                    assert not alone or alone != known[other.kind].alone, f"seed {seed}: {one}, {other}"
    assert overlapping > 1000


# ---- on a cluster ------------------------------------------------------------------------------------------

pytestmark = pytest.mark.xdist_group("chaos")


@pytest.fixture(scope="module")
def ground():
    with Ground() as site:
        try:
            site.ready()
        except BaseException:
            print("logs of the nodes:", keep_logs(site.lab, "setup-chaos"))
            raise
        yield site


@pytest.mark.host
@pytest.mark.timeout(480)
def test_a_short_run_goes_well(ground):
    assert run(ground, plan(SEED, SECONDS, KINDS), "chaos-test", KINDS) == []


def start_twice(act):
    """A spooler on the other node, as if Pacemaker believed it dead; a signal for whom it doesn't concern."""
    other = act.lab.others(act.site.active())[0]
    other.run("setsid kopano-spooler -F -c /etc/kopano/spooler.cfg >/dev/null 2>&1 </dev/null &")
    act.wait(lambda: act.watch.violations, 10, "the watch notes it")
    for process in act.site.instances()["spooler"]:
        if process.node == other.name:
            os.kill(process.pid, signal.SIGKILL)
    decoy = next(process for process in processes([other], "kopano-spooler"))
    os.kill(decoy.pid, signal.SIGTERM)
    act.wait(lambda: act.guard.violations, 10, "the guard notes it")
    os.kill(decoy.pid, signal.SIGKILL)
    act.wait(lambda: len(act.guard.violations) > 1, 10, "the guard notes that it is gone")
    yield


@pytest.mark.host
@pytest.mark.timeout(480)
def test_what_must_never_be_is_seen(ground):
    known = [Kind("start-twice", start_twice, nothing)]
    violations = "\n".join(run(ground, [Planned(0.0, "start-twice", nothing(Random()), 0.0)], "chaos-seen", known))
    assert "kopano-spooler runs 2 times" in violations
    assert "an innocent process was signalled: pid" in violations and "signal 15 from pid" in violations
    assert "an innocent process was killed" in violations
