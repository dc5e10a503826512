# SPDX-License-Identifier: GPL-2.0-or-later
"""stop: 0 only when nothing of the instance is left; it presses on step by step."""
import contextlib
import os
import re
import shutil
import signal
import threading
import time
import xml.etree.ElementTree as ET

import pytest

from world import DAEMONS, wait_for

from .looks import Mta, agents, catches_term, forget, lines, run, says, serve, start, state_of, together

every_daemon = pytest.mark.parametrize("name", DAEMONS)


def stop(world, name, timeout=60, rc=0, **how):
    """Stop a daemon by its agent; with rc 0 nothing of it may be left."""
    result = says(world.agent(name, "stop", timeout=timeout, **how), rc)
    if rc == 0:
        assert world.gone(name)
    return result


@every_daemon
def test_not_running_is_0(world, name):
    stop(world, name)
    stop(world, name, params={"config": "/srv/none.cfg", "binary": "/srv/none/kopano"})


@every_daemon
def test_an_idle_daemon_ends_at_once_and_stop_with_it(site, name):
    pids = site.pids(name)
    assert stop(site, name).took < 4
    assert not [pid for pid in pids if state_of(pid) not in ("", "Z")]
    says(site.agent(name, "monitor"), 7)
    says(site.agent(name, "monitor", interval=0), 7, probe=True)
    stop(site, name)


def test_stop_returns_within_100_ms_of_the_last_process(world):
    took = []
    for _ in range(4):
        start(world, "gateway")
        pid = world.main_pid("gateway")
        world.hold("imap")                      # so that there is something to wait for
        result = []

        def end():
            result.append(world.agent("gateway", "stop", timeout=30, params={"stop_escalate": 1}))
            result.append(time.monotonic())

        gone = together(lambda: wait_for(lambda: not state_of(pid) and time.monotonic(), 20), end)[0]
        says(result[0], 0)
        world.release()
        took.append(result[1] - gone)
        if took[-1] < 0.1:
            return
    raise AssertionError("stop came back so many seconds after the last process: %r" % took)


@every_daemon
def test_a_frozen_daemon_ends_quickly(site, name):
    site.freeze(name)
    assert stop(site, name).took < 5


@every_daemon
def test_a_zombie_is_no_process(site, name):
    site.kill_daemon(name)
    started = site.start_daemon(name, reap=False)
    wait_for(lambda: site.agent(name, "monitor", level=0).rc == 0)
    for pid in site.pids(name):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: state_of(started.pid) == "Z")
    assert stop(site, name).took < 4
    started.reap()


# ---- steps

def test_a_daemon_that_ignores_term_is_killed_5_s_after_the_second(world):
    serve(world, *DAEMONS)
    for name in DAEMONS:
        world.fault(name, "no-term")
    wait_for(lambda: not any(catches_term(world.main_pid(name)) for name in DAEMONS))
    found = agents(world, DAEMONS, "stop", timeout=30, params={"stop_escalate": 1}, env={"HA_LOGFILE": "/run/ha.log"})
    for name, result in found.items():
        says(result, 0)
        assert 6 <= result.took < 8, "%s: %r" % (name, result)
        assert world.gone(name)
    assert len([line for line in lines("/run/ha.log") if "kill" in line]) >= len(DAEMONS)


def test_the_second_term_ends_a_drain(world):
    """gateway waits 10 s for its clients, dagent 30 s; a second TERM ends them at once."""
    world.write_config("dagent", process_model="thread")
    serve(world, "server", "dagent", "gateway")
    world.hold("imap")
    world.hold("lmtp")
    gateway, dagent = together(
        lambda: world.agent("gateway", "stop", timeout=60, params={"stop_escalate": 2}),
        lambda: world.agent("dagent", "stop", timeout=60, params={"stop_escalate": 3}))
    assert 2 <= says(gateway, 0).took < 4
    assert 3 <= says(dagent, 0).took < 5
    assert world.gone("gateway") and world.gone("dagent")


def test_a_server_whose_requests_hang_with_the_database_goes_with_the_second_term(world):
    serve(world, "server")
    with world.soap() as client:
        world.database.freeze()
        asking = threading.Thread(target=_in_vain, args=(client,), daemon=True)
        asking.start()
        time.sleep(0.2)
        result = stop(world, "server", params={"stop_escalate": 2})
        assert 2 <= result.took < 4
        asking.join(10)


def test_a_spooler_with_nothing_to_send_does_not_wait_for_a_server_that_hangs(world11, tmp_path):
    serve(world11, "server", "spooler")
    world11.freeze("server")
    # it notices at its next look at the queue; then it ignores the first TERM
    log = str(tmp_path / "log")
    took = stop(world11, "spooler", timeout=75, env={"HA_LOGFILE": log}).took
    assert took < 5
    world11.thaw("server")
    [told] = re.findall(r"ended after ([\d.]+) s", "\n".join(lines(log)))
    assert 1 < float(told) <= took


def _in_vain(client):
    """A request that the server can't answer before it ends."""
    with contextlib.suppress(OSError):
        client.er("getStore")
        raise AssertionError("answered without a database")


@pytest.mark.parametrize("name, seconds", (("server", 60), ("dagent", 35), ("spooler", 70), ("gateway", 15),
                                           ("ical", 35)))
def test_the_second_term_comes_after_the_daemons_own_drain(name, seconds):
    parameter = ET.fromstring(run(name, "meta-data").out).find("parameters/parameter[@name='stop_escalate']/content")
    assert int(parameter.get("default")) == seconds


def test_a_short_timeout_compresses_the_steps_and_a_warning_names_the_advised_one(world11, tmp_path):
    advised = {"gateway": 20, "server": 65, "spooler": 75, "dagent": 40}
    serve(world11, *advised)
    for name in advised:
        world11.fault(name, "no-term")
    wait_for(lambda: not any(catches_term(world11.main_pid(name)) for name in advised))
    log = str(tmp_path / "ha.log")
    for name, result in agents(world11, tuple(advised), "stop", timeout=6, env={"HA_LOGFILE": log}).items():
        # dagent has no client to finish, spooler no mail: they are pressed after two seconds
        assert (2 if name in ("dagent", "spooler") else 3) < says(result, 0).took < 6
        assert world11.gone(name)
        said = [line for line in lines(log) if "timeout" in line and "kopano-" + name in line]
        assert len(said) == 1, said
        assert max(int(number) for number in re.findall(r"(\d+) ?s\b", said[0])) >= advised[name], said


def test_the_advised_timeout_needs_no_warning(world11):
    serve(world11, *DAEMONS)
    for name in reversed(DAEMONS):
        actions = ET.fromstring(run(name, "meta-data").out).findall("actions/action[@name='stop']")
        timeout = int(actions[0].get("timeout").rstrip("s"))
        stop(world11, name, timeout=timeout, env={"HA_LOGFILE": "/run/advised.log"})
    assert not [line for line in lines("/run/advised.log") if "timeout" in line]


# ---- children

def test_children_of_the_fork_model_end_too(world):
    names = ("dagent", "gateway", "ical")
    for name in names:
        world.write_config(name, process_model="fork")
    serve(world, "server", *names)
    world.hold("lmtp")
    world.hold("imap")
    world.hold("caldav", greeting=False).send(b"OPTIONS / HT")
    wait_for(lambda: all(len(world.pids(name)) >= 2 for name in names))
    for result in agents(world, names, "stop", timeout=60).values():
        says(result, 0)
    assert all(world.gone(name) for name in names)


def test_a_mail_that_is_being_sent_by_a_thread_gets_spoolers_own_drain(world11):
    """The fork model's children: test_patience.py."""
    serve(world11, "server", "spooler")
    with Mta() as mta:
        world11.submit("alice", "bob@example.org", "on its way")
        mta.wait_for_client()

        def finish():
            wait_for(lambda: not catches_term(main))       # it has had its first TERM
            assert not mta.mails
            mta.greet()

        main = world11.main_pid("spooler")
        together(lambda: stop(world11, "spooler", timeout=90), finish)
        assert len(mta.mails) == 1 and b"on its way" in mta.mails[0]


# ---- with nothing to hold on to

@every_daemon
def test_stop_works_without_config_and_with_parameters_that_are_wrong(site, name):
    os.unlink(site.config(name))
    wrong = {"stop_escalate": "soon", "options": "'open", "listen": "ftp://host", "tls_verify": "perhaps",
             "pidfile": "x"}
    assert stop(site, name, params=wrong).took < 5


@every_daemon
def test_stop_works_without_the_binary(site, name):
    if site.real:
        pytest.skip("would delete the real %s" % site.binary(name))
    binary, kept = site.binary(name), site.binary(name) + ".kept"
    shutil.copy2(binary, kept)
    os.unlink(binary)
    forget(site)
    try:
        assert site.pids(name)
        says(site.agent(name, "monitor"), 0)
        stop(site, name)
        says(site.agent(name, "monitor"), 7)
    finally:
        os.rename(kept, binary)


def test_two_stops_at_the_same_moment_are_both_0(world):
    serve(world, "server", "gateway")
    world.hold("imap")
    for result in together(*[lambda: world.agent("gateway", "stop", timeout=60, params={"stop_escalate": 1})] * 2):
        says(result, 0)
    assert world.gone("gateway")


# ---- a schema upgrade

def test_a_schema_upgrade_is_recognised_waited_for_and_never_interrupted(world):
    world.fault("server", "upgrade", 60)
    begun = time.monotonic()
    says(world.agent("server", "start", timeout=40), 0)
    assert 5 <= time.monotonic() - begun < 8
    pid = world.main_pid("server")
    *found, reloaded = together(lambda: world.agent("server", "monitor", level=10),
                                lambda: world.agent("server", "monitor", level=20),
                                lambda: world.agent("server", "monitor", interval=0),
                                lambda: world.agent("server", "reload", timeout=3))
    for result in found:
        says(result, 190, "upgrad", str(pid))
    says(world.agent("server", "monitor", level=0), 0)
    says(reloaded, 1)
    for timeout in (6.5, 6):
        result = says(world.agent("server", "stop", timeout=timeout), 1, "upgrad", str(pid))
        assert timeout - 5.5 < result.took < timeout - 4
        assert world.main_pid("server") == pid, "a second TERM kills"
        forget(world)
    says(world.agent("server", "monitor"), 190, "upgrad")
    world.fault("server", None)
    stop(world, "server")
    assert not os.path.exists("/tmp/kopano-upgrade-lock"), "the upgrade was not finished"


def test_somebody_elses_lock_file_is_no_upgrade(world11):
    with open("/tmp/kopano-upgrade-lock", "w", encoding="ascii"):
        pass
    world11.fault("server", "slow-start", 30)
    says(world11.agent("server", "start", timeout=7), 1)
    result = stop(world11, "server", params={"stop_escalate": 1}, timeout=20)
    assert result.took < 9
    os.unlink("/tmp/kopano-upgrade-lock")
