# SPDX-License-Identifier: GPL-2.0-or-later
"""Stop's steps by a clock of their own, what a daemon says while it starts, what it inherits."""
import os
import signal
import types

import pytest

from kopano_ocf import declare, lifecycle, process, verdict

TERM, KILL, CONT = signal.SIGTERM, signal.SIGKILL, signal.SIGCONT


class Fake:
    """A process. `on` says after which signals it ends, and how many seconds later: {(TERM,): 3, (TERM, TERM): 0}."""

    def __init__(self, stage, pid, on, argv=(), state="S", children=()):
        self.stage, self.pid, self.start, self.on = stage, pid, 100 + pid, on
        self.argv, self.state, self.comm, self.children = list(argv), state, "kopano-x", list(children)
        self.heard, self.ends = [], None

    @property
    def alive(self):
        return self.ends is None or self.stage.now < self.ends

    @property
    def frozen(self):
        return self.state in "Tt"

    def catches(self, number):
        return TERM not in self.heard

    def again(self):
        return self if self.alive else None

    def descriptors(self):
        return ["socket:[0]"]

    def take(self, number):
        self.heard.append(number)
        after = KILL in self.heard and self.on.get("KILL", 0.0)
        after = self.on.get(tuple(n for n in self.heard if n == TERM)) if after is False else after
        if after is not None:
            at = self.stage.now + after
            self.ends = at if self.ends is None else min(self.ends, at)


class Stage:
    """A clock, the signals that were sent, and the instance and call that stop works on."""

    def __init__(self, name="dagent", timeout=100.0, escalate=None):
        self.now, self.sent, self.memory, self.notes = 1000.0, [], {}, []
        self.looked = Found                 # what a look finds once nothing is left of the first one
        self.agent = declare.Daemon(name, "", "", {}, "dagent", 35, (60, 60, 30, 30))
        self.timeout, self.begun = timeout, self.now
        self.escalate = escalate or 35
        self.upgrade_until = 0.0

    # of a call
    def left(self):
        return max(0.0, self.begun + self.timeout - 1.2 - self.now)

    def timeout_used(self):
        return self.now - self.begun

    def value(self, name):
        return self.escalate

    def note(self, words):
        self.notes.append(words)

    # of an instance
    def upgrading(self, main):
        return self.now < self.upgrade_until

    def number(self, name):
        return float(self.memory.get(name, 0))

    def put(self, name, value):
        self.memory[name] = value

    def save(self):
        pass

    def find_all(self):
        return self.looked()

    def stop(self, main=None, orphans=()):
        return lifecycle._end(self, self, types.SimpleNamespace(main=main, orphans=list(orphans)))

    def told(self, entry=None):
        """[(seconds since the beginning, signal)], SIGKILL's repetitions left out."""
        found = []
        for when, pid, number in self.sent:
            mark = (round(when - self.begun, 1), number)
            if (entry is None or pid == entry.pid) and not (number == KILL and any(n == KILL for _, n in found)):
                found.append(mark)
        return found


class Found:
    def __init__(self, main=None, *orphans):
        self.main, self.orphans = main, list(orphans)


@pytest.fixture
def stage(monkeypatch):
    """stage(...) makes the clock that lifecycle goes by."""
    def made(*words, **named):
        one = Stage(*words, **named)
        clock = types.SimpleNamespace(
            monotonic=lambda: one.now, sleep=lambda seconds: setattr(one, "now", one.now + seconds))
        monkeypatch.setattr(lifecycle, "time", clock)

        def send(entry, number):
            one.sent.append((one.now, entry.pid, number))
            entry.take(number)
            return True
        monkeypatch.setattr(process, "send", send)
        monkeypatch.setattr(process, "family", lambda entry: [child for child in entry.children if child.alive])
        return one
    return made


GRACEFUL = {(TERM,): 0.5, (TERM, TERM): 0.0}
STUBBORN = {(TERM, TERM): 0.0}
HUNG = {}


def test_a_graceful_daemon_gets_one_signal(stage):
    one = stage()
    main = Fake(one, 10, GRACEFUL)
    result = one.stop(main)
    assert result.rc == 0 and one.told() == [(0.0, TERM)] and one.notes == []
    assert one.now - one.begun < 0.6


def test_a_drain_is_waited_for(stage):
    one = stage()
    main = Fake(one, 10, {(TERM,): 34.0, (TERM, TERM): 0.0})
    assert one.stop(main).rc == 0 and one.told() == [(0.0, TERM)] and one.now - one.begun == pytest.approx(34, abs=0.1)


@pytest.mark.parametrize("name, clients, leaving, seconds", [
    ("dagent", 0, 0, lifecycle.LEAKED_AFTER), ("dagent", 1, 0, 35.0),
    # a mail may be under way for a client that has closed its end; an IMAP client is gone then
    ("dagent", 0, 1, 35.0), ("gateway", 0, 1, lifecycle.LEAKED_AFTER), ("gateway", 1, 0, 35.0)])
def test_a_daemon_whose_clients_are_gone_drains_for_nobody(stage, monkeypatch, name, clients, leaving, seconds):
    def count(main, ports, gone):
        return clients + (leaving if gone else 0) if ports == {2003} else 1
    monkeypatch.setattr(lifecycle.process, "listening", lambda main: ([("127.0.0.1", 2003)], []))
    monkeypatch.setattr(lifecycle.process, "clients", count)
    one = stage(name)
    assert one.stop(Fake(one, 10, HUNG)).rc == 0
    assert [number for _, number in one.told()] == [TERM, TERM, KILL]
    assert [at for at, _ in one.told()] == pytest.approx([0.0, seconds, seconds + 5.0], abs=0.1)


@pytest.mark.parametrize("name", ["dagent", "gateway", "ical"])
@pytest.mark.parametrize("children", [0, 1])
def test_a_daemon_with_a_child_that_serves_is_waited_for(stage, monkeypatch, name, children):
    monkeypatch.setattr(lifecycle.process, "listening", lambda main: ([("127.0.0.1", 2003)], []))
    monkeypatch.setattr(lifecycle.process, "clients", lambda main, ports, gone: 0)
    one = stage(name)
    main = Fake(one, 10, STUBBORN, children=[Fake(one, 11 + n, STUBBORN) for n in range(children)])
    assert one.stop(main).rc == 0
    assert one.told()[1][0] == pytest.approx(35.0 if children else lifecycle.LEAKED_AFTER, abs=0.1)


def test_term_then_term_then_kill(stage):
    one = stage()
    assert one.stop(Fake(one, 10, STUBBORN)).rc == 0 and one.told() == [(0.0, TERM), (35.0, TERM)]
    one = stage()
    assert one.stop(Fake(one, 10, HUNG)).rc == 0 and one.told() == [(0.0, TERM), (35.0, TERM), (40.0, KILL)]
    assert any("killed 10" in words for words in one.notes)


def test_a_short_timeout_compresses_the_steps(stage):
    one = stage(timeout=10.0)
    assert one.stop(Fake(one, 10, HUNG)).rc == 0
    told = one.told()
    assert [number for _, number in told] == [TERM, TERM, KILL] and told[1][0] > 5 and told[2][0] < 8.8
    assert "op stop timeout=10s is too short" in one.notes[0] and "60s" in one.notes[0]


def test_what_survives_sigkill_is_a_failure_that_is_named_once(stage):
    one = stage(timeout=10.0)
    result = one.stop(Fake(one, 10, {"KILL": None}, state="D"))
    assert result.rc == 1 and "process 10 (kopano-x, state D)" in result.words
    assert len([words for words in one.notes if "time is up" in words]) == 1
    assert one.now - one.begun < 10.0


def test_a_frozen_daemon_is_woken_to_take_its_signal(stage):
    one = stage()
    one.stop(Fake(one, 10, GRACEFUL, state="T"))
    assert one.told() == [(0.0, TERM), (0.0, CONT)]


def test_children_are_told_by_the_daemon_first(stage):
    one = stage()
    child = Fake(one, 11, {(TERM,): 0.0})
    main = Fake(one, 10, GRACEFUL, children=[child])
    assert one.stop(main).rc == 0
    assert one.told(main) == [(0.0, TERM)] and one.told(child) == [(35.0, TERM)]


def test_a_child_that_sends_a_mail_is_given_all_the_time_there_is(stage):
    one = stage("spooler", timeout=200.0, escalate=70)
    child = Fake(one, 11, {}, argv=["kopano-spooler", "--send-message-entryid=1"])
    child.ends = one.now + 150
    assert one.stop(Fake(one, 10, HUNG, children=[child])).rc == 0
    assert one.told(child) == [] and one.now - one.begun == pytest.approx(150, abs=0.1)


def test_such_a_child_of_a_dead_daemon_as_well(stage):
    one = stage("spooler", timeout=100.0, escalate=70)
    child = Fake(one, 11, {}, argv=["kopano-spooler", "--send-message-entryid=1"])
    one.stop(None, [child])
    assert [number for _, number in one.told(child)] == [TERM, KILL] and one.told(child)[1][0] > 98


def test_a_child_born_meanwhile_is_not_forgotten(stage):
    one = stage()
    child = Fake(one, 12, {(TERM,): 0.0, (TERM, TERM): 0.0})
    one.looked = lambda: Found(None, child) if child.alive else Found()
    assert one.stop(Fake(one, 10, GRACEFUL)).rc == 0
    assert one.told(child) == [(35.0, TERM)]


def test_a_second_daemon_is_told_as_soon_as_it_is_seen(stage):
    """Its SIGTERM does not wait for the other one's steps, and its second one is as late as it should be."""
    one = stage()
    other = Fake(one, 20, STUBBORN)
    one.looked = lambda: Found(other) if other.alive else Found()
    assert one.stop(Fake(one, 10, GRACEFUL)).rc == 0
    told = one.told(other)
    assert [number for _, number in told] == [TERM, TERM]
    assert told[0][0] == pytest.approx(0.5, abs=0.1) and told[1][0] == pytest.approx(35.5, abs=0.2)


def test_a_daemon_that_was_told_already_is_not_told_again(stage):
    """By a stop that was killed: the second SIGTERM would kill at once what is still serving its clients."""
    one = stage()
    main = Fake(one, 10, {(TERM, TERM): 0.0})
    main.heard = [TERM]
    main.ends = one.now + 20
    one.memory["stopping"] = "%.3f" % (one.now - 10)
    assert one.stop(main).rc == 0 and one.told() == [] and one.now - one.begun == pytest.approx(20, abs=0.1)


def test_but_not_for_longer_than_its_drain_in_all(stage):
    one = stage()
    main = Fake(one, 10, {})
    one.memory["stopping"] = "%.3f" % (one.now - 10)
    assert one.stop(main).rc == 0 and one.told() == [(25.0, TERM), (30.0, KILL)]
    one = stage()
    main = Fake(one, 10, {})
    one.memory["stopping"] = "%.3f" % (one.now - 500)
    assert one.stop(main).rc == 0 and one.told() == [(0.0, TERM), (5.0, KILL)]


@pytest.mark.parametrize("stamp", ["0", "1000.5"])
def test_a_stamp_that_can_not_be_is_none(stage, stamp):
    one = stage()
    one.memory["stopping"] = stamp
    assert one.stop(Fake(one, 10, GRACEFUL)).rc == 0 and one.told() == [(0.0, TERM)]


def test_a_schema_upgrade_is_waited_for(stage):
    one = stage("server")
    main = Fake(one, 10, {(TERM,): 50.0, (TERM, TERM): 0.0})
    one.upgrade_until = one.now + 50
    assert one.stop(main).rc == 0 and one.told() == [(0.0, TERM)]


def test_a_schema_upgrade_that_lasts_is_a_failure_and_not_killed(stage):
    one = stage("server")
    main = Fake(one, 10, {})
    one.upgrade_until = one.now + 1000
    result = one.stop(main)
    assert result.rc == 1 and "upgrading" in result.words and one.told() == [(0.0, TERM)]
    assert one.now - one.begun == pytest.approx(95, abs=0.1) and main.alive


def test_a_server_that_hangs_after_its_upgrade_is_pressed(stage):
    one = stage("server", timeout=200.0)
    main = Fake(one, 10, {(TERM, TERM): 0.0})
    one.upgrade_until = one.now + 20
    assert one.stop(main).rc == 0 and [number for _, number in one.told()] == [TERM, TERM]
    assert one.told()[1][0] == pytest.approx(55, abs=0.2)


# ---- last words

def test_the_last_three_lines_are_kept():
    words = lifecycle.LastWords()
    os.write(words.writer, b"one\n\ntwo\n\x1b[31mthree\xff\nfour\n")
    words.started()
    assert words.read() == "two / ?[31mthree\ufffd / four" and words.read() == ""
    words.close()
    words.close()


def test_a_daemon_that_talks_without_end_is_not_held_up():
    words = lifecycle.LastWords()
    with pytest.raises(BlockingIOError):
        while True:
            os.write(words.writer, b"x" * 4096)
    assert len(words.read()) <= 500
    words.close()


def test_what_the_log_gained_counts_where_nothing_was_printed(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("old secret\n")
    words = lifecycle.LastWords(str(log))
    assert words.read() == ""
    with open(str(log), "a") as file:
        file.write("can't bind\n")
    assert words.read() == "can't bind"
    os.write(words.writer, b"printed\n")
    assert words.read() == "printed"
    words.close()


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "missing", "relative"])
def test_a_log_that_is_no_file_is_not_quoted(tmp_path, kind):
    log, secret = tmp_path / "x.log", tmp_path / "shadow"
    secret.write_text("")
    {"link": lambda: log.symlink_to(secret), "directory": log.mkdir, "fifo": lambda: os.mkfifo(str(log)),
     "missing": lambda: None, "relative": lambda: None}[kind]()
    words = lifecycle.LastWords("x.log" if kind == "relative" else str(log))
    secret.write_text("root:$6$\n")
    assert words.read() == ""
    words.close()


# ---- what the daemon inherits

def test_the_clusters_variables_stay_out_of_the_daemon():
    env = {"OCF_ROOT": "/x", "OCF_RESKEY_test_password_file": "/x", "HA_debug": "0", "PCMK_debug": "0",
           "__OCF_ACTION": "start", "CRM_x": "1", "PYTHONPATH": "/x", "TZ": "Europe/Berlin",
           "KOPANO_CONFIG_PATH": "/etc/k", "PATH": "/bin"}
    assert lifecycle._environment(env) == {
        "TZ": "Europe/Berlin", "KOPANO_CONFIG_PATH": "/etc/k", "PATH": "/bin", "LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize("env, locale", [
    ({}, "C.UTF-8"), ({"LANG": "de_DE.UTF-8"}, None), ({"LC_ALL": "C", "LANG": "de_DE.UTF-8"}, "C.UTF-8"),
    ({"LC_ALL": "en_US.utf8"}, "en_US.utf8"), ({"LC_CTYPE": "C", "LANG": "de_DE.UTF-8"}, "C.UTF-8")])
def test_the_daemon_gets_a_utf8_locale(env, locale):
    assert lifecycle._environment(env).get("LC_ALL") == locale


@pytest.mark.parametrize("text, words", [
    ("", []), (None, []), ("-a 'b c'", ["-a", "b c"]), ("; touch /tmp/x", [";", "touch", "/tmp/x"]), ("'", []),
    ("$(id) `id`", ["$(id)", "`id`"])])
def test_options_are_split_and_not_run(text, words):
    assert lifecycle._split(text) == words


# ---- which of two starts goes on

@pytest.mark.parametrize("elder, ended", [(None, False), ("ours", False), ("another", True)])
def test_the_younger_of_two_daemons_is_ended_again(elder, ended):
    gone = []
    child = types.SimpleNamespace(pid=10, kill=lambda: gone.append("killed"), wait=lambda: gone.append("collected"))
    main = {None: None, "ours": types.SimpleNamespace(pid=10), "another": types.SimpleNamespace(pid=9)}[elder]
    remembered = []
    where = types.SimpleNamespace(find_all=lambda: Found(main), remember=remembered.append)
    assert lifecycle._second(where, child) == ended
    assert gone == (["killed", "collected"] if ended else []) and remembered == ([main] if ended else [])


def test_verdicts_of_stop_are_0_and_1():
    assert (verdict.SUCCESS, verdict.GENERIC) == (0, 1)
