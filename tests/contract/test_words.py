# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agents say: little under Pacemaker, everything at a terminal; their names for actions, their exit codes."""
import os
import pty
import select
import subprocess
import time
import xml.etree.ElementTree as ET

import pytest

from world import DAEMONS, wait_for

from .looks import AGENTS, LISTENING, NAMES, forget, lines, monitors, run, says, serve

every_daemon = pytest.mark.parametrize("name", DAEMONS)
every_agent = pytest.mark.parametrize("name", NAMES)


class Log:
    """The cluster's log file, new for each test."""

    def __init__(self, path):
        self.path = str(path)
        self.env = {"HA_LOGFILE": self.path}
        self.read = 0

    def new(self):
        """Lines since the last call."""
        found = lines(self.path)[self.read:]
        self.read += len(found)
        return found


@pytest.fixture
def log(tmp_path):
    """Where ocf.py logs to."""
    return Log(tmp_path / "ha.log")


# ---- under Pacemaker

@every_daemon
def test_one_log_line_per_change_of_state_and_none_per_good_monitor(site11, name, log):
    def look(rc, **how):
        return says(site11.agent(name, "monitor", env=log.env, **how), rc)

    for _ in range(3):
        assert look(0).err == ""
    assert log.new() == []
    site11.freeze(name)
    for _ in range(3):
        assert look(1).reason                       # Pacemaker always gets its reason
    said = log.new()
    assert len(said) == 1 and "stopped" in said[0] and "kopano-" + name in said[0]
    site11.thaw(name)
    site11.wait_ready(name)
    for _ in range(3):
        look(0)
    assert len(log.new()) == 1
    for level in (0, 10, 20):
        look(0, level=level)
    assert log.new() == []


def test_degraded_is_logged_once_whatever_counts_up_in_its_words(site11, log):
    site11.database.kill()
    for _ in range(3):
        says(site11.agent("server", "monitor", level=20, env=log.env), 190)
    assert len(log.new()) == 1
    site11.kill_daemon("server")
    for _ in range(3):
        says(site11.agent("dagent", "monitor", env=log.env), 190)
    assert len(log.new()) == 1


def test_a_probe_that_finds_nothing_logs_nothing(world11, log):
    for name in DAEMONS:
        says(world11.agent(name, "monitor", interval=0, env=log.env), 7, probe=True)
    assert log.new() == []


@every_daemon
def test_a_configuration_edited_broken_or_removed_changes_no_verdict_and_is_logged_once(site11, name, log):
    path = site11.config(name)

    def look():
        for level in (10, 20):
            says(site11.agent(name, "monitor", level=level, env=log.env), 0)

    with open(path, encoding="utf-8") as file:
        text = file.read()
    for broken in (text + "bogus_key = 1\n", text + elsewhere(), "\0\1\2" * 1000, None):
        os.unlink(path) if broken is None else _rewrite(path, broken)
        look()
        look()
        said = [line for line in log.new() if path in line]
        assert len(said) == 1, said


def elsewhere():
    """Lines of a configuration that name other endpoints."""
    return "".join("%s = *:9%d\n" % (key, number) for number, key in enumerate(
        ("server_listen", "lmtp_listen", "imap_listen", "ical_listen"), 100))


def _rewrite(path, text):
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(path + ".new", path)


@pytest.mark.parametrize("name", LISTENING)
def test_without_memory_the_listening_sockets_are_asked(site11, name):
    """HA_RSCTMP was lost, and the configuration names other endpoints since."""
    path = site11.config(name)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    _rewrite(path, text + elsewhere())
    forget(site11)
    says(site11.agent(name, "monitor"), 0)
    site11.fault(name, "refuse")
    wait_for(lambda: not site11.ready(name))
    says(site11.agent(name, "monitor"), (1, 190))


# ---- depth

def test_levels_in_between_take_the_next_lower_one(site11):
    """dagent's depth 10 needs its server, depth 0 does not; gateway's depth 20 does, depth 10 does not."""
    site11.kill_daemon("server")
    for level, dagent, gateway in ((0, 0, 0), (1, 0, 0), (9, 0, 0), (10, 190, 0), (11, 190, 0), (19, 190, 0),
                                   (20, 190, 190), (21, 190, 190), (1000, 190, 190),
                                   ("", 190, 0), ("deep", 190, 0), ("-5", 190, 0)):
        says(site11.agent("dagent", "monitor", level=level), dagent)
        says(site11.agent("gateway", "monitor", level=level), gateway)


# ---- at a terminal

def at_a_terminal(world, name, action, **variables):
    """(exit code, what a person sees) of an agent run by hand."""
    master, slave = pty.openpty()
    env = {"PATH": world.sbin + ":/usr/sbin:/usr/bin:/bin", "OCF_ROOT": "/usr/lib/ocf", "HA_RSCTMP": world.rsctmp}
    process = subprocess.Popen([os.path.join(AGENTS, name), action], stdin=slave, stdout=slave, stderr=slave,
                               env=dict(env, **variables), start_new_session=True)
    os.close(slave)
    seen = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and select.select([master], [], [], deadline - time.monotonic())[0]:
        try:
            piece = os.read(master, 65536)
        except OSError:                         # the last one has closed it
            break
        if not piece:
            break
        seen += piece
    os.close(master)
    return process.wait(10), seen.decode().replace("\r\n", "\n")


def test_by_hand_it_says_what_was_checked_how_long_it_took_and_why(world11):
    serve(world11, "server", "gateway")
    rc, said = at_a_terminal(world11, "gateway", "monitor", OCF_CHECK_LEVEL="20")
    assert rc == 0
    for word in ("process %d" % world11.main_pid("gateway"), ":143", ":993", ":110", ":995", "server", " ms]",
                 "gateway: running"):
        assert word in said, said
    world11.kill_daemon("server")
    rc, said = at_a_terminal(world11, "gateway", "monitor", OCF_CHECK_LEVEL="20")
    assert rc == 190 and "degraded" in said.splitlines()[-1] and "server" in said.splitlines()[-1], said
    rc, said = at_a_terminal(world11, "server", "monitor")
    assert rc == 7 and "not running" in said
    rc, said = at_a_terminal(world11, "server", "start")
    assert rc == 0 and "done" in said
    rc, said = at_a_terminal(world11, "gateway", "stop")
    assert rc == 0 and "done" in said
    assert world11.gone("gateway")
    rc, said = at_a_terminal(world11, "gateway", "dance")
    assert rc == 3 and "usage" in said.lower() and "dance" in said


# ---- names of actions, exit codes

@every_agent
def test_meta_data_and_usage_work_as_any_user_and_without_anything(name):
    for user in (None, "nobody"):
        for action in ("meta-data", "usage", "help", "methods"):
            done = run(name, action, user=user)
            assert (done.rc, done.err) == (0, ""), done
            assert done.out
        assert ET.fromstring(run(name, "meta-data", user=user).out).get("name") == name


@every_agent
def test_anything_else_is_3(name):
    for words in ((), ("dance",), ("",), ("promote",), ("Start",), ("monitor ",)):
        done = run(name, *words)
        assert done.rc == 3 and done.err.count("\n") == 1, done
    if name == "webapp-health":
        assert run(name, "reload").rc == 3


@every_daemon
def test_extra_arguments_are_ignored_and_the_argument_decides(world11, name):
    env = {"PATH": world11.sbin + ":/usr/bin:/bin", "HA_RSCTMP": world11.rsctmp, "__OCF_ACTION": "start"}
    assert run(name, "monitor", "start", "now", env=env).rc == 7
    assert run(name, "status", env=env).rc == 7
    assert run(name, "stop", "monitor", env=env).rc == 0
    assert world11.gone(name)


@every_agent
def test_not_root_is_4(name):
    for action in ("start", "stop", "monitor", "reload-agent"):
        done = run(name, action, user="nobody")
        assert done.rc == 4 and "root" in done.reason, done
    done = run(name, "validate-all", user="nobody")
    assert done.rc == 0, done


def test_status_is_monitor(site11):
    for name, result in monitors(site11, DAEMONS).items():
        assert site11.agent(name, "status", level=10).rc == result.rc == 0
    site11.freeze("ical")
    assert site11.agent("ical", "status", level=10).rc == site11.agent("ical", "monitor").rc == 1


def test_7_comes_from_monitor_alone(world11):
    for name in NAMES:
        for action in ("start", "stop", "reload", "reload-agent", "validate-all"):
            params = {"binary": "/srv/none"} if action == "start" else None
            assert world11.agent(name, action, timeout=5, params=params).rc != 7, (name, action)
