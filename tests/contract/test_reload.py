# SPDX-License-Identifier: GPL-2.0-or-later
"""reload: the same process reads its configuration again, and only when a HUP does not harm it."""
import functools

import pytest

from world import DAEMONS, wait_for

from .looks import CLIENTS, catches_term, lines, says, serve, together

every_daemon = pytest.mark.parametrize("name", DAEMONS)


@every_daemon
def test_the_same_pid_and_the_changed_log_level_in_effect(site, name):
    """A daemon that takes a HUP says so in its log as a warning (level 3)."""
    log, pid = "/var/log/kopano/%s.log" % name, site.main_pid(name)
    site.write_config(name, log_level="1")
    says(site.agent(name, "reload"), 0)
    says(site.agent(name, "monitor"), 0)
    wait_for(lambda: _taken_in(site, name))
    quiet = len(lines(log))
    says(site.agent(name, "reload"), 0)
    wait_for(lambda: _taken_in(site, name))
    assert len(lines(log)) == quiet
    site.write_config(name, log_level="5")
    says(site.agent(name, "reload"), 0)
    wait_for(lambda: len(lines(log)) > quiet, 5, "nothing new in " + log)
    says(site.agent(name, "monitor"), 0)
    assert site.main_pid(name) == pid


def _taken_in(site, name):
    """Whether no HUP is waiting for the daemon any more."""
    with open("/proc/%d/status" % site.main_pid(name), encoding="utf-8") as file:
        pending = [int(line.split()[1], 16) for line in file if line.startswith(("SigPnd:", "ShdPnd:"))]
    return not any(pending) and site.ready(name)


@every_daemon
def test_not_running_is_1(world11, name):
    says(world11.agent(name, "reload"), 1)
    says(world11.agent(name, "reload-agent"), 1)
    assert world11.gone(name)


def test_a_server_that_waits_for_its_database_is_not_reloaded(world):
    """A HUP would kill it."""
    world.database.kill()
    started = world.start_daemon("server")
    wait_for(lambda: world.agent("server", "monitor", level=0).rc == 0)
    says(world.agent("server", "reload", timeout=5), 1)
    says(world.agent("server", "monitor", level=0), 0)
    assert started.rc is None


def test_a_daemon_that_does_not_serve_yet_is_not_reloaded(world):
    for name in CLIENTS:
        world.fault(name, "slow-start", 4)
    started = {name: world.start_daemon(name) for name in CLIENTS}

    def early(name):
        wait_for(lambda: world.agent(name, "monitor", level=0).rc == 0)
        return world.agent(name, "reload", timeout=3)

    for result in together(*[lambda name=name: early(name) for name in CLIENTS]):
        says(result, 1)
    for name in CLIENTS:
        wait_for(lambda: world.agent(name, "reload", timeout=4).rc == 0, 10, "no reload of %s, though it serves" % name)
        assert started[name].rc is None, name


def test_a_daemon_that_is_being_stopped_is_not_reloaded(world):
    """Both wait for an idle client; dagent's listening socket stays open meanwhile."""
    world.write_config("dagent", process_model="thread")
    serve(world, "server", "gateway", "dagent")
    world.hold("imap")
    world.hold("lmtp")

    def reload_meanwhile(name):
        wait_for(lambda: not catches_term(world.main_pid(name)))
        return world.agent(name, "reload", timeout=3)

    names = "gateway", "dagent"
    stop = [functools.partial(world.agent, name, "stop", timeout=60, params={"stop_escalate": 3}) for name in names]
    found = together(*stop, *[functools.partial(reload_meanwhile, name) for name in names])
    for result in found[:2]:
        says(result, 0)
    for result in found[2:]:
        says(result, 1)


def test_a_frozen_daemon_is_not_reloaded(site11):
    site11.freeze("ical")
    says(site11.agent("ical", "reload", timeout=5), 1)


@every_daemon
def test_reload_agent_is_0_and_touches_nothing(site11, name):
    pid = site11.main_pid(name)
    log = len(lines("/var/log/kopano/%s.log" % name))
    says(site11.agent(name, "reload-agent", params={"stop_escalate": "33"}), 0)
    assert site11.main_pid(name) == pid
    assert len(lines("/var/log/kopano/%s.log" % name)) == log
