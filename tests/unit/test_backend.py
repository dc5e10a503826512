# SPDX-License-Identifier: GPL-2.0-or-later
"""The kopano-server behind a daemon: at most one question that hangs, over all agents of a node."""
import os
import subprocess
import sys
import time

import pytest

from kopano_ocf import backend, state, talk

from scripted import Peer, dialogue

SERVER = "soap+unix:/run/kopano/server.sock"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def folder(tmp_path):
    tmp_path.chmod(0o700)
    return str(tmp_path)


class Question:
    """Answers in turn; counts how often it was asked."""

    def __init__(self, *hows):
        self.hows, self.asked = list(hows), 0

    def __call__(self):
        self.asked += 1
        return talk.Seen(self.hows.pop(0) if self.hows else talk.FINE, "words")


def ask(folder, question, recovered=None, server=SERVER, shared=False):
    return backend.guarded(folder, server, question, time.monotonic() + 0.1, recovered, shared).how


def pending(folder):
    return backend.any_pending(folder, time.monotonic() + 0.1)


@pytest.mark.parametrize("how", [talk.FINE, talk.REFUSED, talk.CLOSED, talk.NONSENSE, talk.UNAVAILABLE, talk.DENIED])
def test_an_answer_leaves_nothing_behind(folder, how):
    question = Question(how, talk.FINE)
    assert [ask(folder, question), ask(folder, question)] == [how, talk.FINE]
    assert backend.pending(backend.marker(folder, SERVER)) is None and not pending(folder)


def test_silence_keeps_everybody_from_asking(folder):
    question = Question(talk.SILENT)
    assert ask(folder, question) == talk.SILENT
    for _ in range(200):
        assert ask(folder, question) == backend.UNASKED
    assert question.asked == 1 and pending(folder)
    # another server is another matter, the same one by another path is not
    assert ask(folder, question, server="soap+unix:/run/other.sock") == talk.FINE
    assert ask(folder, question, server="soap+unix:/var/run/kopano/server.sock") == backend.UNASKED


def test_it_is_asked_again_after_ten_minutes(folder, monkeypatch):
    question = Question(talk.SILENT, talk.FINE)
    ask(folder, question)
    now = time.monotonic()
    monkeypatch.setattr(backend.time, "monotonic", lambda: now + 599)
    assert ask(folder, question) == backend.UNASKED
    monkeypatch.setattr(backend.time, "monotonic", lambda: now + 601)
    assert ask(folder, question) == talk.FINE


def test_it_is_asked_again_when_its_database_answers(folder):
    question = Question(talk.SILENT, talk.SILENT, talk.FINE)
    assert ask(folder, question, lambda: True) == talk.SILENT
    assert ask(folder, question, lambda: False) == backend.UNASKED
    assert ask(folder, question, lambda: True) == talk.SILENT
    assert ask(folder, question, lambda: True) == talk.FINE and question.asked == 3


def test_a_restart_of_the_server_clears_it(folder):
    ask(folder, Question(talk.SILENT))
    backend.clear(folder, "soap+unix:/var/run/kopano/server.sock")
    assert ask(folder, Question()) == talk.FINE


@pytest.mark.parametrize("stamp", ["nan", "inf", "-1", "x", "", "1e308", "1e-400", None])
@pytest.mark.parametrize("uptime", [60.0, 86400.0])
def test_a_marker_that_says_nothing_holds_nobody_up(folder, monkeypatch, stamp, uptime):
    values = {} if stamp is None else {"pending": stamp}
    state.write(backend.marker(folder, SERVER), values)
    booted = time.monotonic() - uptime
    clock = time.monotonic
    monkeypatch.setattr(backend.time, "monotonic", lambda: clock() - booted)
    # in the first ten minutes after a boot a very small number is a moment that was
    expected = backend.UNASKED if stamp == "1e-400" and uptime < backend.MARKER_LASTS else talk.FINE
    assert ask(folder, Question()) == expected


def test_a_marker_from_before_a_reboot_counts_for_nothing(folder):
    state.write(backend.marker(folder, SERVER), {"pending": "%.3f" % (time.monotonic() + 100)})
    assert ask(folder, Question()) == talk.FINE


def test_an_agent_killed_while_it_asks_leaves_its_marker(folder):
    program = ("import os, sys, time; sys.path.insert(0, %r)\nfrom kopano_ocf import backend\n"
               "backend.guarded(%r, %r, lambda: os.kill(os.getpid(), 9), time.monotonic() + 1)"
               % (os.path.join(ROOT, "lib"), folder, SERVER))
    assert subprocess.Popen([sys.executable, "-c", program]).wait() == -9
    assert ask(folder, Question()) == backend.UNASKED
    assert pending(folder)


def test_who_waits_for_a_check_that_is_good_has_its_answer(folder, monkeypatch):
    """Of a server that is busy one check may take all the time that the next one has."""
    class Lock(state.Lock):
        def __enter__(self):
            with monkeypatch.context() as patch:
                patch.setattr(state, "Lock", state_lock)
                assert ask(folder, Question(), shared=True) == talk.FINE    # the other one's, while we wait
            return super().__enter__()

    state_lock = state.Lock
    question = Question(talk.UNAVAILABLE)
    monkeypatch.setattr(state, "Lock", Lock)
    assert ask(folder, question, shared=True) == talk.FINE and question.asked == 0
    assert ask(folder, question) == talk.UNAVAILABLE, "a login is nobody else's"
    monkeypatch.setattr(state, "Lock", state_lock)
    assert ask(folder, Question(talk.UNAVAILABLE), shared=True) == talk.UNAVAILABLE, "that was before we came"


def test_who_comes_while_another_asks_does_not_ask(folder):
    begun = time.monotonic()
    with state.Lock(backend.marker(folder, SERVER) + ".lock", begun + 1) as lock:
        assert lock.held
        question = Question()
        assert ask(folder, question) == backend.UNASKED and question.asked == 0
    assert 0.1 <= time.monotonic() - begun < 5


def test_without_a_place_for_the_marker_it_is_asked(tmp_path):
    assert ask(str(tmp_path / "no" / "such"), Question()) == talk.FINE
    assert not pending(str(tmp_path / "no"))


def test_over_tcp_there_is_no_deep_check(folder):
    seen = backend.deep(folder, "http://127.0.0.1:236", time.monotonic() + 1)
    assert seen.how == backend.UNASKED and "server_socket" in seen.words and os.listdir(folder) == []


def test_over_tcp_a_server_is_reached_by_head(folder):
    head = b"HTTP/1.1 200 OK\r\nServer: gSOAP/2.8\r\nContent-Length: 0\r\n\r\n"
    with Peer(dialogue(b"", head)) as peer:
        assert backend.reach(folder, "http://127.0.0.1:%d" % peer.port, time.monotonic() + 5).how == talk.FINE
    assert backend.reach(folder, "http://127.0.0.1:%d" % peer.port, time.monotonic() + 5).how == talk.REFUSED


def test_a_path_with_a_blank_is_a_path(folder):
    seen = backend.reach(folder, "soap+unix:%s/a b.sock" % folder, time.monotonic() + 5)
    assert seen.how == talk.REFUSED and "a b.sock" in seen.words
