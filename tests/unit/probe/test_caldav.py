# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-ical's HTTP."""

import base64

import pytest

from kopano_ocf import talk
from kopano_ocf.probe import caldav
from kopano_ocf.talk import feed

OPTIONS = (b"HTTP/1.1 200 OK\r\nAllow: OPTIONS, GET, POST, PUT, DELETE, MOVE\r\n"
           b"Allow: PROPFIND, PROPPATCH, REPORT, MKCALENDAR\r\nContent-Length: 0\r\nServer: Kopano\r\n"
           b"Connection: close\r\n\r\n")
REFUSED = (b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"Kopano CalDav Gateway\"\r\n"
           b"Content-Length: 0\r\nServer: Kopano\r\nConnection: close\r\n\r\n")


def logging_in(user="user1", password="s3cret", **words):
    return lambda wire: caldav.login(wire, user, password, **words)


@pytest.mark.parametrize("chunks, how, words", [
    ([OPTIONS], talk.FINE, "200 OK"),
    ([REFUSED], talk.FINE, "401 Unauthorized"),
    ([b"HTTP/1.0 405 No\r\nAllow: GET\r\n\r\n"], talk.FINE, "405 No"),
    ([b"HTTP/1.1 405 Not Allowed\r\nServer: nginx\r\n\r\n"], talk.NONSENSE, "some other HTTP server?"),
    ([b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"], talk.NONSENSE, "502 Bad Gateway"),
    ([b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"], talk.NONSENSE, "400 Bad Request"),
    ([b"* OK\r\n"], talk.NONSENSE, "* OK"),
    ([None], talk.SILENT, "the answer to OPTIONS"),
    ([], talk.CLOSED, "the answer to OPTIONS"),
])
def test_options(chunks, how, words):
    seen, sent = feed(caldav.options, chunks)
    assert seen.how == how and words in seen.words
    assert sent == b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("status, how", [
    (b"207 Multi-Status", talk.FINE), (b"200 OK", talk.FINE), (b"404 Not Found", talk.FINE),
    (b"401 Unauthorized", talk.DENIED), (b"403 Forbidden", talk.DENIED),
    (b"500 Internal Server Error", talk.UNAVAILABLE), (b"503 Service Unavailable", talk.UNAVAILABLE),
    (b"302 Found", talk.NONSENSE),
])
def test_login(status, how):
    seen, sent = feed(logging_in(), [b"HTTP/1.1 " + status + b"\r\nContent-Length: 6\r\n\r\ns3cret"])
    assert seen.how == how and status[:3].decode() in seen.words
    assert sent.startswith(b"PROPFIND /caldav/user1/ HTTP/1.1\r\n")
    assert b"Authorization: Basic " + base64.b64encode(b"user1:s3cret") + b"\r\n" in sent
    head, _, body = sent.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head


@pytest.mark.parametrize("chunks", [
    [b"s3cret\r\n"], [b"s3cret"], [b"HTTP/1.1 200 s3cret\r\n\r\n"], [b"HTTP/1.1 401 s3cret\r\n\r\n"],
    [b"HTTP/1.1 302 s3cret\r\n\r\n"], [b"HTTP/1.1 500 s3cret\r\nContent-Length: 0\r\n\r\n"],
    [b"HTTP/1.1 200 OK\r\ns3cret\r\n"], [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ns3cret\r\n"],
    [b"HTTP/1.1 200 OK\r\nContent-Length: s3cret\r\n\r\n"],
])
def test_a_password_that_is_echoed_is_not_repeated(chunks):
    token = base64.b64encode(b"user1:s3cret")
    for echo in (b"s3cret", token):
        for end in (b"", None):
            seen, _ = feed(logging_in(), [chunk.replace(b"s3cret", echo) for chunk in chunks] + [end])
            assert "s3cret" not in seen.words and token.decode() not in seen.words


@pytest.mark.parametrize("user, path", [
    ("a b/../c", b"/caldav/a%20b%2F..%2Fc/"), ("j\u00fcrgen", b"/caldav/j%C3%BCrgen/"),
    ("a\r\nX: y", b"/caldav/a%0D%0AX%3A%20y/"), (b"\xff", b"/caldav/%FF/"),
    ("user@example.com", b"/caldav/user%40example.com/"),
])
def test_any_user_name_is_one_segment_of_the_path(user, path):
    _, sent = feed(logging_in(user, "x" * 200), [])
    assert sent.startswith(b"PROPFIND " + path + b" HTTP/1.1\r\n")
    # a long password stays on its line
    assert sent.partition(b"\r\n\r\n")[0].count(b"\r\n") == 6
