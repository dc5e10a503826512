# SPDX-License-Identifier: GPL-2.0-or-later
"""The deployment crm/drbd as shipped on two virtual machines with real DRBD, in one story: each test goes on
where the one before it ended, so `make test-drbd` stops at the first that fails.

It takes too long for `make test`: by its name pytest doesn't find it, it has to be told.
"""
import collections
import os
import shutil
import sys
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, f"{ROOT}/tests/cluster"]

import virtual_lab  # noqa: E402
from drbd_site import FAILOVER, UPTODATE, DrbdSite, Postman, say  # noqa: E402
from namespaces import wait_for  # noqa: E402
from practice import Document  # noqa: E402

FAILED = f"{ROOT}/build/vm/failed"
# what docs/procedures.md has for the node whose data goes, and for the one whose data stays
LOSERS, KEEPERS = Document("procedures.md").commands("A DRBD split brain")[2:4]

pytestmark = [pytest.mark.host, pytest.mark.timeout(3600),
              pytest.mark.skipif(virtual_lab.missing() != "", reason=virtual_lab.missing())]


@pytest.fixture(scope="module")
def site(request):
    """Two booted virtual machines, nothing set up on their disks yet."""
    failed_before = request.session.testsfailed
    with DrbdSite() as running:
        yield running
        if request.session.testsfailed > failed_before:
            shutil.rmtree(FAILED, ignore_errors=True)
            running.lab.keep_logs(FAILED)
            say(f"logs of the machines: {FAILED}")


def assert_delivered(site, *postmen):
    """Every acknowledged mail is there, exactly once; nothing is there twice."""
    inbox = collections.Counter(site.inbox())
    acknowledged = [subject for postman in postmen for subject in postman.acknowledged]
    assert acknowledged
    assert [subject for subject in acknowledged if subject not in inbox] == []
    assert [subject for subject, count in inbox.items() if count > 1] == []
    say(f"{len(inbox)} mails in the inbox, {len(acknowledged)} of them acknowledged in this test")


def test_first_sync(site):
    took = site.prepare_disks()
    say(f"first sync of both disks: {took:.0f} s")
    assert "Resync done" in site.lab["alice"].out("dmesg")


def test_site_comes_up(site):
    say(f"both online after {site.start_cluster():.0f} s")
    begin = time.monotonic()
    files = site.load()
    say(f"loaded in {time.monotonic() - begin:.0f} s: {', '.join(files)}")
    say(f"everything runs after {site.wait_complete():.0f} s")
    home = site.home()
    assert home.name == "bob"
    assert site.drbd(home, "role") == ["Primary/Secondary"] * 2
    assert site.drbd(home, "dstate") == [UPTODATE] * 2
    assert site.refusals(home) == {}
    site.create_user()
    site.deliver("the first mail", timeout=60)
    assert site.inbox() == ["the first mail"]


def test_power_cut_of_the_primary(site):
    victim = site.home()
    survivor = site.lab.other(victim)
    # it boots in ten seconds: it would be back before the services are up on the other, slow machine, and take some
    site.lab.bmc.stay_off = True
    with Postman(site, "before and after the power cut") as postman:
        postman.wait_for_more(20)
        victim.power_off()
        cut, before = time.monotonic(), len(postman.acknowledged)
        say(f"power cut of {victim.name} after {before} mails")
        site.lab.wait(lambda status: status.running.get("kopano-server") == [survivor.name], FAILOVER,
                      f"kopano-server on {survivor.name}", survivor)
        postman.wait_for_more(5, FAILOVER)
        say(f"mail flows again on {survivor.name} {time.monotonic() - cut:.0f} s after the power cut")
    assert victim.name in site.lab.bmc.fenced()
    site.wait_complete(survivor)            # the gateway may be up later than dagent
    assert_delivered(site, postman)
    site.switch_on(victim)
    say(f"resynced after {site.wait_drbd(survivor, 'dstate', UPTODATE, FAILOVER):.0f} s")
    site.wait_complete(survivor)
    assert site.drbd(victim, "role") == ["Secondary/Primary"] * 2
    site.lab.settle(survivor)
    assert site.refusals(survivor) == {}
    assert_delivered(site, postman)


def assert_not_promoted(site, peer):
    """The peer has stale data: it promotes nothing, starts nothing, and says why."""
    status = site.lab.status(peer)
    assert site.drbd(peer, "role") == ["Secondary/Unknown"] * 2
    assert status.running["mysqld"] == status.running["kopano-server"] == []
    assert set(site.refusals(peer)) == {"mysql", "kopano"}


def test_cut_replication_then_kill(site):
    """Stale data isn't served; the old primary, when it is back, has everything."""
    primary, peer, postman = site.cut_replication_then_kill("the peer has never got")
    say(f"what an administrator sees on {peer.name}:\n" + peer.out("crm_mon -1r; cat /proc/drbd", check=False))
    assert_not_promoted(site, peer)
    # nor when asked by hand: the handler knows better
    refused = peer.run("drbdadm primary kopano", check=False, timeout=300)
    say(f"`drbdadm primary kopano` on {peer.name}: exit code {refused.returncode}: {refused.stdout.strip()}")
    assert refused.returncode != 0
    assert_not_promoted(site, peer)
    site.switch_on(primary)
    took = site.wait_complete()
    # either one: a peer that was brought up to date before anything has started may be promoted again
    home = site.home()
    say(f"everything runs after {took:.0f} s, on {home.name}")
    site.wait_drbd(home, "dstate", UPTODATE, FAILOVER)
    site.lab.settle(home, FAILOVER)
    assert site.refusals(home) == {}
    assert_delivered(site, postman)


def test_split_brain(site):
    """Made by an administrator who can't wait; seen, and resolved with the commands of docs/procedures.md."""
    loser, keeper, lost = site.cut_replication_then_kill("written on one side alone")
    assert_not_promoted(site, keeper)
    # "the old primary is dead for good": old mails rather than none
    for name in site.refusals(keeper).values():
        keeper.run(["crm", "configure", "delete", name])
    say(f"forced: everything runs on {keeper.name} after {site.wait_complete(keeper):.0f} s")
    with Postman(site, "written on the other side") as postman:
        postman.wait_for_more(5)
    # ... and then it wasn't dead
    site.switch_on(loser)
    wait_for(lambda: all("StandAlone" in states
                         for states in zip(site.drbd(keeper, "cstate"), site.drbd(loser, "cstate"))), FAILOVER,
             "both resources are StandAlone, at one side at least", every=2)
    assert "Split-Brain detected" in keeper.out("dmesg") + loser.out("dmesg")
    say(f"split brain: {keeper.name} {site.drbd(keeper, 'cstate')}, {loser.name} {site.drbd(loser, 'cstate')}\n" +
        loser.out("crm_mon -1r; cat /proc/drbd", check=False))
    site.wait_complete(keeper)

    for resource in ("mysql", "kopano"):
        for line in LOSERS.replace("kopano", resource).splitlines():
            loser.run(line, check="disconnect" not in line)     # 8.4 complains when it is StandAlone already
        if keeper.out(f"drbdadm cstate {resource}") == "StandAlone":
            keeper.run(KEEPERS.replace("kopano", resource))
    say(f"resolved after {site.wait_drbd(keeper, 'dstate', UPTODATE, FAILOVER):.0f} s")
    site.lab.settle(keeper, FAILOVER)
    assert site.refusals(keeper) == {}
    site.wait_complete(keeper)
    assert_delivered(site, postman)
    assert not set(lost.acknowledged) & set(site.inbox())       # that is what a split brain costs
