# SPDX-License-Identifier: GPL-2.0-or-later
"""Chaos with mail (chaos/): the plan is the seed's, a short run goes well, and what must never be is seen."""
import os
import re
import signal
import subprocess
import sys
from email.generator import BytesGenerator
from io import BytesIO
from random import Random
from types import SimpleNamespace

import pytest

from chaos.figures import overlapping
from chaos.ground import Ground
from chaos.kinds import KINDS, Kind, kinds, nothing
from chaos.mail import Mail, Outgoing, message, opened
from chaos.plan import Planned, plan
from chaos.run import run
from kopano_site import DEPLOYMENTS, ROOT, keep_logs
from node import processes

# of the short run: a node hangs, while services do
SEED, SECONDS = 151, 65
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


def test_the_short_run_takes_a_node_away():
    assert {"cut-power", "freeze-node"} & {planned.kind for planned in plan(SEED, SECONDS, KINDS)}


# ---- the judgement -----------------------------------------------------------------------------------------

def judged(mails, acknowledged, tried):
    """What Mail says of a mailbox with these mails (bytes)."""
    mail = Mail(SimpleNamespace(lab=SimpleNamespace(outside=lambda function: function())), "x")
    mail._fetch = lambda: mails
    mail.acknowledged, mail.tried = acknowledged, tried
    return mail.lost_or_doubled(), list(mail.figures())


def mails(*subjects):
    return [message(subject, "a@example.org", "b@example.org").as_bytes() for subject in subjects]


def test_mails_are_counted_and_compared():
    assert judged(mails("x 1", "x 2", "x 3"), ["x 1", "x 2"], ["x 1", "x 2", "x 3"])[0] == []
    wrong, told = judged(mails("x 1", "x 1"), ["x 1", "x 2"], ["x 1", "x 2"])
    assert wrong == ["'x 1' was acknowledged and is there 2 times", "'x 2' was acknowledged and is there 0 times"]
    assert told[1].strip() == "at the end 1 of these lost, 1 doubled, 0 changed"
    cut = mails("x 1")[0][:-20]
    assert judged([cut], ["x 1"], ["x 1"])[0] == ["'x 1' is there with another text"]


def test_text_survives_what_mail_programs_stumble_over():
    for number in range(50):
        data, = mails(f"x {number}")
        sent = BytesIO()            # as smtplib does
        BytesGenerator(sent).flatten(message(f"x {number}", "a@example.org", "b@example.org"), linesep="\r\n")
        assert opened(data) == opened(sent.getvalue()) == (f"x {number}", True)


def test_mail_that_leaves_twice_at_a_time_is_the_work_of_two_spoolers():
    outgoing = Outgoing(SimpleNamespace(lab=SimpleNamespace(outside=None)), "x")
    outgoing.acknowledged = ["x out 1", "x out 2", "x out 3"]
    outgoing.left.update({"x out 1": [10.0, 15.0], "x out 2": [20.0, 20.1]})
    assert not outgoing.all_left()
    assert outgoing.wrong() == ["'x out 3' was taken by kopano-server and has never left",
                                "'x out 2' has left twice within 0.10 s"]


def test_overlaps():
    assert overlapping([(0, 10), (5, 5), (7, 20), (10, 11), (30, 31)]) == (3, 2)
    assert overlapping([(0, 10), (1, 10), (2, 10)]) == (2, 3)
    assert overlapping([]) == (0, 0)


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
    assert run(ground, plan(SEED, SECONDS, KINDS), "chaos-test", KINDS, f"{SECONDS} seconds, seed {SEED},") == []
    with open(f"{ROOT}/build/chaos-test.txt") as log:
        told = log.read()
    assert re.search(r"BREAK \w+ \((active|idle)\) (loses its power|hangs)", told)
    assert not re.search("mails sent: 0 |: 0 acknowledged", told)


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
