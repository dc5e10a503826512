# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-gateway's IMAP."""

import pytest
from hypothesis import given, strategies as st

from kopano_ocf import talk
from kopano_ocf.probe import imap
from kopano_ocf.talk import feed

GREETING = b"* OK [CAPABILITY IMAP4rev1 LITERAL+ STARTTLS AUTH=PLAIN] IMAP gateway ready\r\n"
BYE = b"* BYE server logging out\r\na2 OK LOGOUT completed\r\n"


def logging_in(user="user1", password="s3cret"):
    return lambda wire: imap.login(wire, user, password)


# ---------------------------------------------------------------- NOOP

@pytest.mark.parametrize("chunks, how, words", [
    ([GREETING, b"a1 OK NOOP completed\r\n", BYE], talk.FINE, "IMAP answers"),
    ([b"* PREAUTH hello\r\n", b"a1 ok\r\n", BYE], talk.FINE, "IMAP answers"),
    ([b"* ok\r\n", b"* 3 EXISTS\r\n* 0 RECENT\r\na1 OK\r\n"], talk.FINE, "IMAP answers"),
    ([GREETING, b"* X {5}\r\na1 NO more\r\na1 OK done\r\n", BYE], talk.FINE, "IMAP answers"),
    ([b"* BYE too many connections\r\n"], talk.UNAVAILABLE, "too many connections"),
    ([GREETING, b"* BYE shutting down\r\n"], talk.UNAVAILABLE, "shutting down"),
    ([GREETING, b"a1 BAD what?\r\n"], talk.NONSENSE, "a1 BAD what?"),
    ([GREETING, b"a9 OK\r\n"], talk.NONSENSE, "a9 OK"),
    ([GREETING, b"a1 perhaps\r\n"], talk.NONSENSE, "a1 perhaps"),
    ([GREETING, b"\r\n"], talk.NONSENSE, "the answer to NOOP expected"),
    ([b"+OK POP3 gateway ready\r\n"], talk.NONSENSE, "greeting expected, '+OK POP3 gateway ready' came"),
    ([b"*\r\n"], talk.NONSENSE, "greeting"),
    ([b"* NO\r\n"], talk.NONSENSE, "greeting"),
    ([None], talk.SILENT, "waited for the IMAP greeting"),
    ([b"\x00\xff noise without end", None], talk.NONSENSE, "the IMAP greeting expected"),
    ([b"* O", None], talk.SILENT, "waited for the IMAP greeting"),
    ([GREETING, None], talk.SILENT, "waited for the answer to NOOP"),
    ([GREETING, b"a1 OK\r\n", None], talk.SILENT, "waited for the answer to LOGOUT"),
    ([], talk.CLOSED, "the IMAP greeting"),
    ([GREETING], talk.CLOSED, "the answer to NOOP"),
    ([GREETING, b"* X {99999}\r\nabc"], talk.CLOSED, "the answer to NOOP"),
])
def test_noop(chunks, how, words):
    seen, _ = feed(imap.noop, chunks)
    assert seen.how == how and words in seen.words


def test_noop_logs_out():
    assert feed(imap.noop, [GREETING, b"a1 OK\r\n", BYE])[1] == b"a1 NOOP\r\na2 LOGOUT\r\n"
    assert feed(imap.noop, [GREETING, b"a1 BAD\r\n", BYE])[1] == b"a1 NOOP\r\na2 LOGOUT\r\n"


# ---------------------------------------------------------------- LOGIN

@pytest.mark.parametrize("chunks, how, words", [
    ([GREETING, b"a1 OK LOGIN completed\r\n", BYE], talk.FINE, "login and logout"),
    ([GREETING, b"* CAPABILITY IMAP4rev1\r\na1 OK [X] y\r\n", BYE], talk.FINE, "login and logout"),
    ([GREETING, b"a1 NO LOGIN wrong username or password\r\n", BYE], talk.DENIED, "wrong user name or"),
    ([GREETING, b"a1 NO [AUTHENTICATIONFAILED] failed\r\n", BYE], talk.DENIED, "wrong user name or password"),
    ([GREETING, b"a1 NO imap feature disabled\r\n", BYE], talk.DENIED, "refused"),
    ([GREETING, b"a1 NO refused\r\n"], talk.DENIED, "refused"),
    ([GREETING, b"a1 NO refused\r\n", None], talk.DENIED, "refused"),
    ([GREETING, b"a1 NO [UNAVAILABLE] later\r\n", BYE], talk.UNAVAILABLE, "not possible"),
    ([GREETING, b"a1 BAD Internal error: OpenECSession failed\r\n"], talk.UNAVAILABLE, "not reach its"),
    ([GREETING, b"a1 BAD what?\r\n", BYE], talk.UNAVAILABLE, "not possible"),
    ([GREETING, b"* BYE go\r\n"], talk.UNAVAILABLE, "not possible"),
    ([b"* BYE full\r\n"], talk.UNAVAILABLE, "full"),
    ([GREETING, b"what?\r\n"], talk.NONSENSE, "the answer to LOGIN expected"),
    ([GREETING], talk.CLOSED, "the answer to LOGIN"),
    ([GREETING, None], talk.SILENT, "the answer to LOGIN"),
])
def test_login(chunks, how, words):
    seen, _ = feed(logging_in(), chunks)
    assert seen.how == how and words in seen.words


def test_login_logs_out():
    for reply in (b"a1 OK\r\n", b"a1 NO\r\n", b"a1 BAD\r\n"):
        assert feed(logging_in(), [GREETING, reply, BYE])[1] == b'a1 LOGIN "user1" "s3cret"\r\na2 LOGOUT\r\n'


@pytest.mark.parametrize("reply", [
    b"a1 %s s3cret\r\n", b"* BYE s3cret\r\n", b"s3cret %s\r\n", b"s3cret", b"a1 s3cret %s\r\n"])
@pytest.mark.parametrize("status", [b"OK", b"NO", b"BAD"])
def test_a_password_that_is_echoed_is_not_repeated(reply, status):
    reply = reply.replace(b"%s", status)
    for rest in ([], [BYE], [None]):
        assert "s3cret" not in feed(logging_in(), [GREETING, reply] + rest)[0].words


@pytest.mark.parametrize("word, sent", [
    ("simple", b'"simple"'), ("", b'""'), ("a b{5}", b'"a b{5}"'), (b"bytes", b'"bytes"'),
])
def test_quoting(word, sent):
    assert feed(logging_in(word, word), [GREETING])[1] == b"a1 LOGIN " + sent + b" " + sent + b"\r\n"


@pytest.mark.parametrize("word", ['a"b', "a\\b"])
def test_what_kopano_gateway_does_not_unquote_is_a_literal(word):
    sent = feed(logging_in(word, "x"), [GREETING, b"+ go on\r\n"])[1]
    assert sent == b"a1 LOGIN {3}\r\n" + word.encode() + b' "x"\r\n'


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_any_bytes_are_sent_as_a_server_reads_them(user, password):
    """A server that follows RFC 3501 4.3 gets back user and password, and sees no third argument."""
    chunks = [GREETING, b"+ go on\r\n", b"+ go on\r\n", b"a1 OK\r\n", BYE]
    seen, sent = feed(logging_in(user, password), chunks)
    place = sent.index(b"a1 LOGIN") + 8
    found = []
    while sent[place:place + 2] != b"\r\n":
        assert sent[place:place + 1] == b" "
        place += 1
        if sent[place:place + 1] == b'"':
            place, word = place + 1, b""
            while sent[place:place + 1] != b'"':
                place += sent[place:place + 1] == b"\\"
                assert 32 <= sent[place] < 127
                word += sent[place:place + 1]
                place += 1
            place += 1
        else:
            size, end, _ = sent[place + 1:].partition(b"}\r\n")
            assert sent[place:place + 1] == b"{" and end
            place += 1 + len(size) + 3
            word = sent[place:place + int(size)]
            place += int(size)
        found.append(word)
    assert found == [user, password]
    assert seen.how in (talk.FINE, talk.NONSENSE)


def test_a_literal_waits_for_leave():
    word = "p\u00e4ss"
    assert feed(logging_in("u", word), [GREETING, None])[1] == b'a1 LOGIN "u" {5}\r\n'
    assert feed(logging_in("u", word), [GREETING, b"+ go\r\n"])[1] == b'a1 LOGIN "u" {5}\r\np\xc3\xa4ss\r\n'
    seen, sent = feed(logging_in("u", word), [GREETING, b"a1 NO no literals\r\n", BYE])
    assert seen.how == talk.DENIED and b"ss" not in sent
