# SPDX-License-Identifier: GPL-2.0-or-later
"""Every row of the monitor's table, as far as it is a matter of weighing answers."""
import pytest

from kopano_ocf import talk, verdict
from kopano_ocf.endpoint import parse
from kopano_ocf.instance import Found
from kopano_ocf.talk import Seen

IMAP, IMAPS = parse("imap://127.0.0.1:143", "imap"), parse("imaps://127.0.0.1:993", "imap")


class Fake:
    """As much of a process.Process as the table looks at."""
    def __init__(self, state="S", pid=42):
        self.state, self.pid = state, pid
        self.dead, self.frozen = state in "ZX", state in "Tt"


def seen(how, words="said so"):
    return Seen(how, words)


@pytest.mark.parametrize("found, rc", [
    (Found(), 7),
    (Found(None, [Fake()]), 1),
    (Found(Fake("T")), 1),
    (Found(Fake("t")), 1),
    (Found(Fake("Z")), 1),
])
def test_process_that_cannot_serve(found, rc):
    assert verdict.of_process(found).rc == rc


@pytest.mark.parametrize("state", "SRD")
def test_living_process_is_asked_further(state):
    assert verdict.of_process(Found(Fake(state))) is None


@pytest.mark.parametrize("first, second, rc", [
    (talk.FINE, talk.FINE, 0),
    (talk.FINE, talk.REFUSED, 190),
    (talk.FINE, talk.SILENT, 190),
    (talk.FINE, talk.NONSENSE, 190),
    (talk.FINE, talk.CERTIFICATE, 190),
    (talk.FINE, talk.NOT_HERE, 190),
    (talk.REFUSED, talk.REFUSED, 1),
    (talk.SILENT, talk.CLOSED, 1),
    (talk.NONSENSE, talk.NONSENSE, 1),
    (talk.NOT_HERE, talk.NOT_HERE, 190),
    (talk.NOT_HERE, talk.REFUSED, 1),
    (talk.CERTIFICATE, talk.CERTIFICATE, 190),
    (talk.REFUSED, talk.CERTIFICATE, 190),
])
def test_endpoints(first, second, rc):
    result = verdict.of_endpoints([(IMAP, seen(first)), (IMAPS, seen(second))])
    assert result.rc == rc
    if rc == 190 and second != talk.FINE:
        assert "imaps://127.0.0.1:993" in result.words
        assert (first == talk.FINE) == ("imap://" not in result.words)


def test_a_daemon_that_listens_nowhere_has_failed():
    assert verdict.of_endpoints([]).rc == 1


@pytest.mark.parametrize("how", [talk.SILENT, talk.REFUSED, talk.DENIED, talk.UNREACHABLE])
def test_server_is_not_blamed_for_its_database(how):
    for looks in (0, 1, 7):
        result, counted = verdict.of_server("no answer", seen(how, "database down"), looks)
        assert (result.rc, counted) == (190, 0)
        assert "database down" in result.words


def test_server_fails_when_its_database_was_fine_in_two_monitors():
    result, looks = verdict.of_server("no answer", seen(talk.FINE), 0)
    assert (result.rc, looks) == (190, 1)
    result, looks = verdict.of_server("no answer", seen(talk.FINE), looks)
    assert result.rc == 1


@pytest.mark.parametrize("lmtp, again, rc", [
    (talk.FINE, None, 0),
    (talk.UNAVAILABLE, talk.FINE, 1),
    (talk.SILENT, talk.FINE, 1),
    (talk.CLOSED, talk.FINE, 1),
    (talk.SILENT, talk.UNAVAILABLE, 190),
    (talk.UNAVAILABLE, talk.SILENT, 190),
    (talk.REFUSED, talk.FINE, 1),
    (talk.NOT_HERE, talk.FINE, 190),
])
def test_dagent(lmtp, again, rc):
    where = parse("lmtp://127.0.0.1:2003", "lmtp")
    assert verdict.of_dagent([(where, seen(lmtp))], seen(again) if again else None).rc == rc


@pytest.mark.parametrize("looks, seconds, frozen", [
    (1, 0, False), (2, 100, False), (3, 65.0, False), (3, 65.1, True), (50, 60, False)])
def test_frozen_counters_need_three_looks_and_65_seconds(looks, seconds, frozen):
    assert (verdict.of_counters(looks, seconds) is not None) == frozen


@pytest.mark.parametrize("looks, seconds, frozen", [
    (1, 500, False), (2, 500, False), (3, 125.0, False), (3, 125.1, True), (50, 120, False)])
def test_a_main_thread_that_misses_two_of_its_looks(looks, seconds, frozen):
    assert (verdict.of_main_thread(looks, seconds) is not None) == frozen


@pytest.mark.parametrize("missing, server, before, rc", [
    (65.0, talk.FINE, False, 0),
    (65.1, talk.FINE, False, 1),
    (65.1, talk.FINE, True, 190),
    (65.1, talk.SILENT, False, 190),
    (0.0, talk.REFUSED, False, 190),        # no waiting for what is known
    (999, talk.UNAVAILABLE, False, 190),
])
def test_spooler_sessions(missing, server, before, rc):
    assert verdict.of_sessions(missing, seen(server), before).rc == rc


@pytest.mark.parametrize("login, server, rc", [
    (talk.FINE, talk.FINE, 0), (talk.DENIED, talk.FINE, 190), (talk.UNAVAILABLE, talk.FINE, 190),
    (talk.SILENT, talk.FINE, 1), (talk.SILENT, talk.SILENT, 190),
    (talk.SILENT, "unasked", 190), (talk.CLOSED, "unasked", 1)])
def test_login(login, server, rc):
    assert verdict.of_login(seen(login), seen(server)).rc == rc


def test_words_never_miss_when_something_is_wrong():
    for result in (verdict.of_process(Found()), verdict.of_endpoints([(IMAP, seen(talk.REFUSED))]),
                   verdict.of_server("x", seen(talk.FINE), 5)[0]):
        assert result.rc and result.words and "\n" not in result.words
