# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-gateway's POP3."""

import pytest

from kopano_ocf import talk
from kopano_ocf.probe import pop3
from kopano_ocf.talk import feed

GREETING = b"+OK POP3 gateway ready\r\n"
CAPABILITIES = b"+OK \r\nCAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nSTLS\r\nUSER\r\n.\r\n"
BYE = b"+OK Bye\r\n"


def logging_in(user="user1", password="s3cret"):
    return lambda wire: pop3.login(wire, user, password)


@pytest.mark.parametrize("chunks, how, words", [
    ([GREETING, CAPABILITIES, BYE], talk.FINE, "POP3 answers"),
    ([GREETING, b"-ERR what?\r\n", BYE], talk.FINE, "POP3 answers"),            # does not know CAPA
    ([GREETING, CAPABILITIES], talk.FINE, "POP3 answers"),
    ([b"-ERR [SYS/TEMP] not now\r\n"], talk.UNAVAILABLE, "not now"),
    ([GREETING, b"* what\r\n"], talk.NONSENSE, "* what"),
    ([b"+OKAY\r\n"], talk.NONSENSE, "+OKAY"),
    ([b"220 ready\r\n"], talk.NONSENSE, "the POP3 greeting expected, '220 ready' came"),
    ([None], talk.SILENT, "the POP3 greeting"),
    ([b"noise without end", None], talk.NONSENSE, "the POP3 greeting expected"),
    ([b"+O", None], talk.SILENT, "the POP3 greeting"),
    ([GREETING, None], talk.SILENT, "the answer to CAPA"),
    ([GREETING, b"+OK\r\nTOP\r\n", None], talk.SILENT, "the end of the answer to CAPA"),
    ([GREETING, CAPABILITIES, None], talk.SILENT, "the answer to QUIT"),
    ([], talk.CLOSED, "the POP3 greeting"),
    ([GREETING, b"+OK\r\nTOP\r\n"], talk.CLOSED, "the end of the answer to CAPA"),
])
def test_capa(chunks, how, words):
    seen, _ = feed(pop3.capa, chunks)
    assert seen.how == how and words in seen.words


def test_capa_quits():
    assert feed(pop3.capa, [GREETING, CAPABILITIES, BYE])[1] == b"CAPA\r\nQUIT\r\n"
    assert feed(pop3.capa, [b"-ERR full\r\n"])[1] == b"QUIT\r\n"


@pytest.mark.parametrize("chunks, how, words", [
    ([GREETING, b"+OK\r\n", b"+OK 3 messages\r\n", BYE], talk.FINE, "login and logout"),
    ([GREETING, b"+OK\r\n", b"-ERR [AUTH] Wrong username or password\r\n", BYE], talk.DENIED, "wrong user"),
    ([GREETING, b"+OK\r\n", b"-ERR no\r\n", None], talk.DENIED, "refused"),
    ([GREETING, b"-ERR [AUTH] no such user\r\n", BYE], talk.DENIED, "refused"),
    ([GREETING, b"+OK\r\n", b"-ERR [SYS/TEMP] Internal error: HrLogin failed\r\n"], talk.UNAVAILABLE, "HrLo"),
    ([GREETING, b"+OK\r\n", b"-ERR [SYS/PERM] broken\r\n", BYE], talk.UNAVAILABLE, "system error"),
    ([GREETING, b"+OK\r\n", b"-ERR [IN-USE] busy\r\n", BYE], talk.FINE, "in use"),
    ([b"-ERR full\r\n"], talk.UNAVAILABLE, "full"),
    ([GREETING, b"+OK\r\n", b"what?\r\n"], talk.NONSENSE, "the answer to PASS expected"),
    ([GREETING, b"+OK\r\n"], talk.CLOSED, "the answer to PASS"),
    ([GREETING, b"+OK\r\n", None], talk.SILENT, "the answer to PASS"),
])
def test_login(chunks, how, words):
    seen, _ = feed(logging_in(), chunks)
    assert seen.how == how and words in seen.words


def test_login_quits():
    for reply in (b"+OK\r\n", b"-ERR\r\n"):
        _, sent = feed(logging_in(), [GREETING, b"+OK\r\n", reply, BYE])
        assert sent == b"USER user1\r\nPASS s3cret\r\nQUIT\r\n"
    assert feed(logging_in(), [GREETING, b"-ERR\r\n", BYE])[1] == b"USER user1\r\nQUIT\r\n"


@pytest.mark.parametrize("reply", [
    b"+OK s3cret\r\n", b"-ERR s3cret\r\n", b"-ERR [SYS/TEMP] s3cret\r\n", b"s3cret\r\n", b"s3cret"])
def test_a_password_that_is_echoed_is_not_repeated(reply):
    for rest in ([], [BYE], [None]):
        assert "s3cret" not in feed(logging_in(), [GREETING, b"+OK\r\n", reply] + rest)[0].words


@pytest.mark.parametrize("user, password", [
    ("a\r\nDELE 1", "x"), ("a", "x\nDELE 1"), ("a\0", "x"), (b"a", b"x\r")])
def test_a_line_break_smuggles_in_no_command(user, password):
    seen, sent = feed(logging_in(user, password), [GREETING])
    assert seen.how == talk.DENIED and "line break" in seen.words
    assert sent == b"QUIT\r\n"


def test_words_beyond_ascii():
    assert b"PASS p\xc3\xa4 ss\r\n" in feed(logging_in("u", "p\u00e4 ss"), [GREETING, b"+OK\r\n"])[1]
    assert b"PASS \xff\r\n" in feed(logging_in("u", b"\xff"), [GREETING, b"+OK\r\n"])[1]
