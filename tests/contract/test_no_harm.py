# SPDX-License-Identifier: GPL-2.0-or-later
"""Monitors leave nothing behind: no slot of dagent, no worker of the server, no session, no open connection."""
import concurrent.futures
import contextlib
import time

import pytest

from world import DAEMONS, StandinOnly, wait_for

from .looks import agents, lmtp_connections, monitors, says, serve, together
from .rough import until

# what monitors of a node are: all agents, at the depths that ask somebody; dagent's are the ones that could leak slots
MIX = ([("dagent", 10)] * 9 + [("ical", 20)] * 3 + [("spooler", 20)] * 2
       + [(name, level) for name in ("server", "gateway") for level in (10, 20)] + [("dagent", 20), ("monitor", 20)])


def many(world, count):
    """So many monitors, some at the same time. None may call for a restart."""
    def look(number):
        name, level = MIX[number % len(MIX)]
        result = world.agent(name, "monitor", level=level, timeout=5)
        assert result.rc in (0, 190) or world.gone(name) and result.rc == 7, (name, level, result)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(look, range(count)))


def all_slots_are_free(world):
    """dagent greets 20 clients at a time; one leaked slot is one greeting less."""
    clients = together(*[lambda: world.hold("lmtp", timeout=10)] * 20)
    assert all(client.greeting.startswith(b"220") for client in clients)
    world.release()


def steady(count, seconds=5):
    """A number once it has stayed the same for so long: a spooler that has lost its server tries again after 3 s."""
    found, since = count(), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(0.1)
        if count() != found:
            found, since = count(), time.monotonic()
    return found


# 200 monitors where slots leak most easily; elsewhere more than there are slots
often = pytest.mark.parametrize("generation, count", [
    pytest.param(8, 50, marks=pytest.mark.long), pytest.param(9, 50, marks=pytest.mark.long), (11, 200)],
    indirect=["generation"], ids=["g8", "g9", "g11"])


@pytest.fixture
def threads(world):
    """A host where all six run, dagent with threads."""
    world.write_config("dagent", process_model="thread")
    world.write_config("ical", server_socket="file:///run/kopano/server.sock")
    world.write_config("monitor", quota_check_interval="100000000")
    serve(world, *DAEMONS)
    return world


@often
def test_200_monitors_while_the_database_is_hung_block_one_worker_and_leak_no_slot(threads, count):
    with contextlib.suppress(StandinOnly):
        wait_for(lambda: threads.counters("server")["db_calls"] == 0)
    threads.database.freeze()
    before = lmtp_connections()
    worst = []

    def watch():
        """HEAD is answered at once all the time."""
        while not done:
            began = time.monotonic()
            assert threads.head(timeout=2) == 200
            worst.append(time.monotonic() - began)
            time.sleep(0.2)

    done = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            many(threads, count)
        finally:
            done.append(True)
        watching.result()
    assert max(worst) < 1, "HEAD took %.1f s" % max(worst)
    with contextlib.suppress(StandinOnly):
        assert threads.counters("server")["db_calls"] <= 1
    assert lmtp_connections() <= before
    threads.database.thaw()
    says(threads.agent("server", "monitor"), 0)
    for result in monitors(threads, DAEMONS, level=20).values():
        says(result, 0)
    all_slots_are_free(threads)
    with contextlib.suppress(StandinOnly):
        wait_for(lambda: threads.counters("server")["db_calls"] == 0)


@often
def test_200_monitors_while_the_database_is_dead_leak_no_slot(threads, count):
    threads.database.kill()
    before = lmtp_connections()
    many(threads, count)
    assert lmtp_connections() <= before
    threads.database.start()
    all_slots_are_free(threads)
    says(threads.agent("dagent", "monitor"), 0)


@often
def test_200_monitors_while_the_server_is_down_leak_no_slot(threads, count):
    threads.kill_daemon("server")
    before = lmtp_connections()
    many(threads, count)
    assert lmtp_connections() <= before
    serve(threads, "server")
    all_slots_are_free(threads)
    says(threads.agent("dagent", "monitor"), 0)


def test_monitors_say_goodbye(threads):
    """No session and no client is left; so all of them stop at once."""
    with contextlib.suppress(StandinOnly):
        sessions = threads.counters("server")["sessions"]
    for _ in range(3):
        for result in monitors(threads, DAEMONS, level=20).values():
            says(result, 0)
    with contextlib.suppress(StandinOnly):
        wait_for(lambda: threads.counters("server")["sessions"] == sessions)
        for name in ("dagent", "gateway", "ical"):
            wait_for(lambda: threads.counters(name)["clients"] == 0)
    for name, result in agents(threads, DAEMONS, "stop", timeout=60).items():
        assert says(result, 0).took < 4, name


def test_a_login_of_the_test_mailbox_ends_with_a_logout(site, tmp_path):
    if "alice" not in site.users:
        site.add_user("alice", "secret")
    (tmp_path / "secret").write_text(site.users["alice"] + "\n")
    with contextlib.suppress(StandinOnly):
        sessions = steady(lambda: site.counters("server")["sessions"])
    for _ in range(3):
        for result in monitors(site, ("gateway", "ical"), level=20,
                               params={"test_user": "alice", "test_password_file": str(tmp_path / "secret")}).values():
            says(result, 0)
    with contextlib.suppress(StandinOnly):      # some that were there before may have come to their end
        assert until(lambda: site.counters("server")["sessions"] <= sessions, 10), (sessions, site.counters("server"))
    assert says(site.agent("gateway", "stop", timeout=60), 0).took < 4


def test_an_unanswered_check_is_not_repeated_by_other_agents(site):
    """The first agent that asks in vain leaves a mark; the others do not wait."""
    site.database.freeze()
    says(site.agent("dagent", "monitor", timeout=3), 190)
    for name in ("dagent", "ical"):
        result = says(site.agent(name, "monitor", level=20, timeout=20), 190)
        assert result.took < 2, result
    site.database.thaw()
    says(site.agent("server", "monitor"), 0)
    for name in ("dagent", "ical"):
        says(site.agent(name, "monitor", level=20), 0)
