# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP responses as servers send them, good and bad."""

import pytest
from hypothesis import given, settings, strategies as st

from kopano_ocf import talk
from kopano_ocf.probe import http
from kopano_ocf.talk import feed


def asking(method="GET", headers=(), body=b""):
    def probe(wire):
        http.request(wire, method, "/", headers, body)
        found = yield from http.response(wire, "the answer", head=method == "HEAD")
        return talk.Seen(talk.FINE, found.line, data={"response": found})
    return probe


def heard(data, method="GET"):
    seen, _ = feed(asking(method), [data])
    assert seen.how == talk.FINE, seen
    return seen.data["response"]


def test_a_request_is_plain_http():
    assert feed(asking("POST", (("Content-Length", "2"),), b"hi"), [])[1] == (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi")


@pytest.mark.parametrize("rest, body", [
    (b"Content-Length: 5\r\n\r\nhellomore", b"hello"),
    (b"content-length:5\r\n\r\nhello", b"hello"),
    (b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    (b"Content-Length: 5, 5\r\n\r\nhello", b"hello"),
    (b"Content-Length: 0\r\n\r\n", b""),
    (b"\r\nuntil the end", b"until the end"),                                   # HTTP/1.0 does so
    (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n", b"hello world"),
    (b"Transfer-Encoding: chunked\r\n\r\n00A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n", b"0123456789"),
    (b"Transfer-Encoding: gzip, Chunked\r\nContent-Length: 99\r\n\r\n1\r\nx\r\n0\r\n\r\n", b"x"),
    (b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"x"),               # closed before the last line
])
def test_bodies(rest, body):
    for version in (b"HTTP/1.1", b"HTTP/1.0"):
        assert heard(version + b" 200 OK\r\n" + rest).body == body


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified", b"101 Switching Protocols"])
def test_some_answers_have_no_body(status):
    assert heard(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n").body == b""


def test_the_answer_to_head_has_no_body():
    assert heard(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD").body == b""


def test_headers_are_joined_and_unfolded():
    found = heard(b"HTTP/1.1 200 OK\r\nAllow: GET\r\nX: a\r\n\t b\r\nALLOW:POST\r\nContent-Length: 0\r\n\r\n")
    assert found.header("allow") == "GET, POST"
    assert found.header("x") == "a b"
    assert found.header("nosuch") == ""


def test_interim_answers_are_passed_over():
    found = heard(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
                  b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert (found.status, found.reason, found.header("link")) == (404, "Not Found", "")


@pytest.mark.parametrize("line, status, words", [
    (b"HTTP/1.1 200 OK", 200, "HTTP status 200 OK"), (b"HTTP/1.0 500", 500, "HTTP status 500"),
    (b"HTTP/1.1 299 \x1b[31m\xff", 299, "HTTP status 299 [31m"),
    (b"\r\nHTTP/1.1 200 OK", 200, "HTTP status 200 OK"),
])
def test_status_lines(line, status, words):
    found = heard(line + b"\r\nContent-Length: 0\r\n\r\n")
    assert (found.status, found.line) == (status, words)


@pytest.mark.parametrize("data", [
    b"220 ready\r\n", b"HTTP/2 200 OK\r\n", b"HTTP/1.1 OK\r\n", b"HTTP/1.1 2000 OK\r\n",
    b"HTTP/1.1 099 OK\r\n", b"\r\n\r\n", b"<html>\r\n",
    b"HTTP/1.1 200 OK\r\nnothing\r\n", b"HTTP/1.1 200 OK\r\n: x\r\n",
    b"HTTP/1.1 200 OK\r\n folded first\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000,
])
def test_what_is_not_http(data):
    assert feed(asking(), [data, None])[0].how == talk.NONSENSE


@pytest.mark.parametrize("data", [
    b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", b"HTTP/1.1 100 Continue\r\n\r\n",
])
def test_an_answer_cut_short(data):
    assert feed(asking(), [data])[0].how == talk.CLOSED
    assert feed(asking(), [data, None] if data else [None])[0].how == talk.SILENT


@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_chunks_say_what_was_put_in(body, sizes):
    data, place = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0
    while place < len(body):
        piece = body[place:place + sizes[place % len(sizes)]]
        data += b"%x\r\n%s\r\n" % (len(piece), piece)
        place += len(piece)
    assert heard(data + b"0\r\n\r\n").body == body


@pytest.mark.parametrize("noise", [b"\x00\xff\x13garbage" * 8, b"H", b"HTTP", b"HTTP/2", b"\r\nSMTP", b"<html>"])
def test_noise_without_an_end_of_line_is_nonsense_at_once(noise):
    seen, _ = feed(asking(), [noise, b""] if b"HTTP/1.1".startswith(noise) else [noise])
    assert seen.how == (talk.CLOSED if b"HTTP/1.1".startswith(noise) else talk.NONSENSE)
