# SPDX-License-Identifier: GPL-2.0-or-later
"""Conversations: with transcripts, and with real sockets until a deadline."""

import _socket
import calendar
import errno
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings, strategies as st

import certificates
from kopano_ocf import talk, tls
from kopano_ocf.endpoint import Endpoint, parse
from kopano_ocf.probe import caldav, imap, lmtp, pop3, soap
from kopano_ocf.talk import feed, run
from scripted import Peer, descriptors, dialogue, left_open, server_side

LIB = os.path.dirname(os.path.dirname(os.path.abspath(talk.__file__)))
HOWS = {talk.FINE, talk.REFUSED, talk.SILENT, talk.CLOSED, talk.NONSENSE, talk.UNAVAILABLE, talk.DENIED,
        talk.NOT_HERE, talk.UNREACHABLE, talk.CERTIFICATE}
GREETING = b"* OK IMAP gateway ready\r\n"
IMAP = dialogue(GREETING, b"a1 OK NOOP completed\r\n",
                b"* BYE server logging out\r\na2 OK LOGOUT completed\r\n")


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def soon(seconds):
    return time.monotonic() + seconds


@pytest.fixture(autouse=True)
def no_descriptor_is_left():
    before = descriptors()
    yield
    assert not left_open(before)


def one(endpoint, probe=imap.noop, seconds=10, **words):
    """run() with a single conversation; also checks the promises that always hold."""
    deadline = soon(seconds)
    seen, = run([(endpoint, probe)], deadline, **words)
    assert time.monotonic() < deadline + 0.5
    assert seen.how in HOWS and seen.words and "\n" not in seen.words
    assert 0 <= seen.took < seconds + 0.5
    return seen


# ---------------------------------------------------------------- wire and transcripts

def lines(count):
    def probe(wire):
        found = []
        for _ in range(count):
            found.append((yield from wire.line("a line")))
        return talk.Seen(talk.FINE, "fine", data={"lines": found})
    return probe


def split(data, cuts):
    """Data in pieces, cut at these places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0] + places, places + [len(data)]) if a < b]


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b".").rstrip(b"\r")), max_size=8),
       st.lists(st.integers(0, 1000)), st.sampled_from([b"\n", b"\r\n"]))
def test_lines_arrive_whole_however_they_are_split(wanted, cuts, end):
    data = b"".join(line + end for line in wanted)
    seen, _ = feed(lines(len(wanted)), split(data, cuts))
    assert seen.how == talk.FINE and seen.data["lines"] == wanted


@given(st.binary(max_size=60), st.integers(0, 60), st.lists(st.integers(0, 1000)))
def test_exactly_takes_as_much_and_leaves_the_rest(data, count, cuts):
    def probe(wire):
        first = yield from wire.exactly(count, "data")
        rest = yield from wire.rest("the rest")
        return talk.Seen(talk.FINE, "fine", data={"got": (first, rest)})

    seen, _ = feed(probe, split(data, cuts))
    if count > len(data):
        assert seen.how == talk.CLOSED
    else:
        assert seen.data["got"] == (data[:count], data[count:])


@pytest.mark.parametrize("chunks, how, words", [
    ([b"x" * 70000], talk.NONSENSE, "a line expected, 'xxx"),
    ([b"x" * 70000 + b"\n"], talk.NONSENSE, "a line expected, 'xxx"),
    ([b"x" * 100], talk.CLOSED, "connection closed while waiting for a line, 100 bytes had come: 'xxx"),
    ([], talk.CLOSED, "connection closed while waiting for a line, 0 bytes had come"),
    ([b"abc", None], talk.SILENT, "waited for a line, 3 bytes had come"),
])
def test_words_say_what_was_expected_and_what_came(chunks, how, words):
    seen, _ = feed(lines(1), chunks)
    assert seen.how == how
    assert words in seen.words


def test_what_a_stranger_sends_is_quoted_short_and_printable():
    def probe(wire):
        line = yield from wire.line("a greeting")
        raise wire.nonsense("a greeting", line)

    seen, _ = feed(probe, [b"\x00\x1b[31m\xff\xfe evil " + b"x" * 500 + b"\n"])
    assert seen.how == talk.NONSENSE
    assert "....." not in seen.words.replace("x....", "")
    assert "'..[31m.. evil xxx" in seen.words and len(seen.words) < 110
    assert all(32 <= ord(c) < 127 for c in seen.words)


def test_a_conversation_holds_no_more_than_its_limit():
    heard = []

    def probe(wire):
        while True:
            yield from wire.line("the end")
            heard.append(wire.heard)

    seen, _ = feed(probe, (b"* still more\r\n" * 1000 for _ in range(10000)))
    assert seen.how == talk.NONSENSE and "endless" in seen.words
    assert max(heard) < talk.LIMIT + 100000


@pytest.mark.parametrize("count", [talk.LIMIT + 1, 1 << 62])
def test_a_huge_length_is_not_waited_for(count):
    def probe(wire):
        yield from wire.exactly(count, "the body")

    seen, _ = feed(probe, [b"x"])
    assert seen.how == talk.NONSENSE and "the body" in seen.words


def test_rest_is_limited():
    def probe(wire):
        return (yield from wire.rest("the body", 10))

    assert feed(probe, [b"0123456789"])[0].how == talk.FINE
    assert feed(probe, [b"0123456789", b"0"])[0].how == talk.NONSENSE
    assert feed(probe, [b"01234567890", None])[0].how == talk.NONSENSE


def test_after_a_password_the_peer_is_not_quoted():
    def probe(wire):
        wire.secret = True
        line = yield from wire.line("an answer")
        raise wire.nonsense("an answer", line)

    for chunks in ([b"hunter2\r\n"], [b"hunter2"], [b"hunter2", None]):
        seen, _ = feed(probe, chunks)
        assert "hunter2" not in seen.words


@pytest.mark.parametrize("end", [b"", None])
def test_what_was_learnt_is_told_when_the_conversation_breaks_off(end):
    def probe(wire):
        wire.data = {"call": "first"}
        yield from wire.line("the first answer")
        wire.verdict = talk.Seen(talk.UNAVAILABLE, "known by now")
        yield from wire.line("the second answer")

    assert feed(probe, [end])[0].data == {"call": "first"}
    seen, _ = feed(probe, [b"first\n", end])
    assert (seen.how, seen.words) == (talk.UNAVAILABLE, "known by now")


def test_a_probe_may_return_words_alone():
    def probe(wire):
        yield from wire.send(b"hello")
        return "all is well"

    seen, sent = feed(probe, [])
    assert (seen.how, seen.words, sent) == (talk.FINE, "all is well", b"hello")


# ---------------------------------------------------------------- real sockets: reaching the peer

@pytest.mark.parametrize("listen, ask", [
    ("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "*"), ("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "localhost"),
    ("127.0.0.1", "::"), ("127.0.0.9", "127.0.0.9"),
    ("::1", "::1"), ("::1", "*"), ("::1", "::"), ("::1", "localhost"),
])
def test_a_service_is_reached(listen, ask):
    if ":" in listen and not has_ipv6():
        pytest.skip("no IPv6 here")
    with Peer(IMAP, host=listen) as peer:
        seen = one(peer.endpoint("imap", ask))
        assert (seen.how, seen.words) == (talk.FINE, "IMAP answers")


def test_a_unix_socket_is_reached(tmp_path):
    with Peer(IMAP, path=str(tmp_path / "s")) as peer:
        assert one(peer.endpoint("imap")).how == talk.FINE


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "*", "::", "localhost"])
def test_nobody_listens(host):
    seen = one(Endpoint("imap", False, host, free_port()))
    assert seen.how == talk.REFUSED and "refused" in seen.words.lower()


def test_a_unix_socket_without_a_listener(tmp_path):
    assert one(Endpoint("soap", path=str(tmp_path / "none"))).how == talk.REFUSED
    with Peer(IMAP, path=str(tmp_path / "left")):
        pass
    # the daemons never remove theirs
    assert os.path.exists(str(tmp_path / "left"))
    assert one(Endpoint("soap", path=str(tmp_path / "left"))).how == talk.REFUSED


@pytest.mark.parametrize("path", ["/" + "x" * 200, "/dev/null"])
def test_what_can_not_be_a_unix_socket(path):
    assert one(Endpoint("soap", path=path)).how in (talk.UNREACHABLE, talk.REFUSED)


@pytest.mark.parametrize("host", ["192.0.2.77", "2001:db8::77"])
def test_an_address_of_another_host_is_not_connected_to(host):
    seen = one(Endpoint("imap", False, host, 143))
    assert seen.how == talk.NOT_HERE and host in seen.words


def test_an_unknown_device_is_not_here():
    seen = one(parse("lmtp://*%nosuchdevice:2003", "lmtp"))
    assert seen.how == talk.NOT_HERE and "nosuchdevice" in seen.words


def test_a_full_backlog_is_waited_out(tmp_path):
    path = str(tmp_path / "s")
    with Peer(IMAP, path=path, backlog=0, accept=False) as peer:
        waiting = []
        for _ in range(3):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            if client.connect_ex(path):
                break
        seen = one(peer.endpoint("imap"), seconds=0.3)
        assert seen.how == talk.SILENT and "connection to " + path in seen.words
        threading.Timer(0.2, peer.accept).start()
        for client in waiting:
            client.close()
        assert one(peer.endpoint("imap")).how == talk.FINE


# ---------------------------------------------------------------- names

class Resolver:
    """Stands in for getaddrinfo(): hangs until let go, then tells these addresses."""

    def __init__(self, *hosts):
        self.hosts, self.let_go = hosts, threading.Event()

    def __call__(self, name, port, *_):
        assert isinstance(name, bytes)
        self.let_go.wait(20)
        if not self.hosts:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in self.hosts]


@pytest.fixture
def resolver(monkeypatch):
    def use(*hosts):
        stand_in = Resolver(*hosts)
        monkeypatch.setattr(talk._socket, "getaddrinfo", stand_in)
        made.append(stand_in)
        return stand_in
    made = []
    yield use
    for stand_in in made:
        stand_in.let_go.set()


def test_a_name_is_resolved_without_blocking_the_others(resolver):
    slow = resolver("127.0.0.1")

    def script(connection, peer):
        IMAP(connection, peer)
        # the name is found only when the other has had its answer
        slow.let_go.set()

    with Peer(script) as peer:
        by_name, by_number = run([(peer.endpoint("imap", "mail.example.com"), imap.noop),
                                  (peer.endpoint("imap"), imap.noop)], soon(15))
    assert (by_name.how, by_number.how) == (talk.FINE, talk.FINE)
    assert by_number.took < by_name.took


def test_a_resolver_that_hangs_does_not_hold_up_the_deadline(resolver):
    slow = resolver("127.0.0.1")
    seen = one(Endpoint("imap", False, "mail.example.com", 143), seconds=0.2)
    assert seen.how == talk.SILENT and "address of 'mail.example.com'" in seen.words
    # its answer comes too late, and must not be written to a descriptor of someone else
    ours = os.pipe(), os.pipe()
    slow.let_go.set()
    assert not select.select([end for end, _ in ours], [], [], 0.2)[0]
    for pair in ours:
        os.close(pair[0])
        os.close(pair[1])


def test_a_name_that_does_not_exist(resolver):
    resolver().let_go.set()
    seen = one(Endpoint("imap", False, "mail.example.com", 143))
    assert seen.how == talk.UNREACHABLE and "mail.example.com" in seen.words and "not known" in seen.words


@pytest.mark.parametrize("name", ["b\xfccher.example", "x" * 300, "a..b", "%", "caf\u00e9\U0001f600"])
def test_a_name_that_is_none(name):
    # a resolver asked for such a thing may also be out of reach
    seen = one(Endpoint("imap", False, name, 143), seconds=0.5)
    assert seen.how in (talk.UNREACHABLE, talk.SILENT)


def test_the_next_address_of_a_name_is_tried(resolver):
    resolver("127.0.0.77", "127.0.0.1").let_go.set()
    with Peer(IMAP) as peer:
        assert one(peer.endpoint("imap", "mail.example.com")).how == talk.FINE


def test_of_several_addresses_the_most_telling_failure_is_told(resolver):
    for hosts in (("127.0.0.1", "192.0.2.77"), ("192.0.2.77", "127.0.0.1")):
        resolver(*hosts).let_go.set()
        assert one(Endpoint("imap", False, "mail.example.com", free_port())).how == talk.REFUSED


def test_a_name_of_another_host_is_not_connected_to(resolver):
    resolver("192.0.2.77").let_go.set()
    assert one(Endpoint("imap", False, "mail.example.com", 143)).how == talk.NOT_HERE


# ---------------------------------------------------------------- real sockets: what the peer does

def test_a_silent_service_delays_no_other():
    hung = dialogue(b"")
    with Peer(hung) as silent, Peer(IMAP) as healthy:
        first, second, third = run(
            [(peer.endpoint("imap"), imap.noop) for peer in (silent, healthy, silent)], soon(1))
    assert [first.how, second.how, third.how] == [talk.SILENT, talk.FINE, talk.SILENT]
    assert second.took < 0.9
    assert "waited for the IMAP greeting, 0 bytes had come" in first.words


def test_one_good_answer_is_enough_after_a_while():
    hung = dialogue(b"")
    with Peer(hung) as silent, Peer(IMAP) as healthy:
        where = [(peer.endpoint("imap"), imap.noop) for peer in (silent, healthy)]
        began = time.monotonic()
        first, second = run(where, soon(5), enough=soon(0.3))
        assert 0.3 <= time.monotonic() - began < 2
        assert [first.how, second.how] == [talk.SILENT, talk.FINE]
        began = time.monotonic()
        assert run(where[:1], soon(1), enough=soon(0.3))[0].how == talk.SILENT
        assert time.monotonic() - began > 0.9, "none was good"


def test_a_deadline_in_the_past_still_gives_a_verdict():
    with Peer(dialogue(b"")) as peer:
        assert one(peer.endpoint("imap"), seconds=-1 + 1).how == talk.SILENT
    assert run([], soon(1)) == []


def test_a_reset_is_told():
    def script(connection, peer):
        connection.sendall(b"* O")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with Peer(script) as peer:
        seen = one(peer.endpoint("imap"))
    assert seen.how == talk.CLOSED and "reset" in seen.words


def test_a_reset_before_anybody_looked_is_told(monkeypatch):
    """Accepted and reset while this process waited for a processor: the kernel tells it as connect's outcome."""
    class Late(_socket.socket):
        def connect_ex(self, where):
            code = super().connect_ex(where)
            poll = select.poll()
            poll.register(self.fileno(), 0)
            assert poll.poll(5000)
            return code or errno.EINPROGRESS

    def script(connection, peer):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with Peer(script) as peer:
        endpoint = peer.endpoint("imap")
        monkeypatch.setattr(_socket, "socket", Late)
        seen = one(endpoint)
    assert seen.how == talk.CLOSED and "reset" in seen.words


def test_a_probe_with_a_defect_leaves_nothing_open():
    def defective(wire):
        yield from wire.line("the greeting")
        raise RuntimeError("a defect")

    with Peer(IMAP) as peer, Peer(dialogue(b"")) as silent:
        with pytest.raises(RuntimeError):
            run([(silent.endpoint("imap"), imap.noop), (peer.endpoint("imap"), defective)], soon(10))


def test_last_words_before_the_end_count():
    def script(connection, peer):
        connection.sendall(b"421 internal error: GetSession failed\r\n")

    with Peer(script) as peer:
        for _ in range(20):
            assert one(peer.endpoint("lmtp"), lmtp.greeting).how == talk.UNAVAILABLE


def test_every_service_is_told_goodbye():
    for probe, turns, farewell in (
            (lmtp.greeting, (b"220 ready\r\n", b"221 Bye\r\n"), b"QUIT\r\n"),
            (pop3.capa, (b"+OK ready\r\n", b"+OK\r\nUSER\r\n.\r\n", b"+OK Bye\r\n"), b"QUIT\r\n"),
            (imap.noop, (GREETING, b"a1 OK\r\n", b"a2 OK\r\n"), b"LOGOUT\r\n")):
        with Peer(dialogue(*turns)) as peer:
            assert one(peer.endpoint("imap"), probe).how == talk.FINE
        assert peer.heard.endswith(farewell)


@pytest.mark.parametrize("data", [
    b"\0" * 65536, b"* OK more\r\n" * 5000, b"x" * 65536, b"HTTP/1.1 100 Continue\r\n\r\n" * 99])
@pytest.mark.parametrize("probe", [imap.noop, pop3.capa, lmtp.greeting, soap.head, soap.deep, caldav.options])
def test_endless_data_ends(probe, data):
    def script(connection, peer):
        while not peer.over.is_set():
            connection.sendall(data)

    with Peer(script) as peer:
        assert one(peer.endpoint("imap"), probe).how in (talk.NONSENSE, talk.CLOSED, talk.UNAVAILABLE)


PROBES = [soap.head, soap.deep, lmtp.greeting, imap.noop, pop3.capa, caldav.options,
          lambda wire: imap.login(wire, "user", "s3cret pass"),
          lambda wire: pop3.login(wire, "user", "s3cret pass"),
          lambda wire: caldav.login(wire, "user", "s3cret pass")]
FRAGMENTS = st.sampled_from([
    b"* OK ready\r\n", b"* BYE\r\n", b"a1 OK\r\n", b"a1 NO\r\n", b"a2 OK\r\n", b"+ go\r\n", b"{3}\r\n",
    b"+OK\r\n", b"-ERR [AUTH]\r\n", b".\r\n", b"220 ready\r\n", b"220-more\r\n", b"421 no\r\n",
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"Server: gSOAP/2.8\r\n", b"Allow: GET\r\n",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"\r\n",
    b" folded\r\n", b"<ns:logonResponse><er>0</er><ulSessionId>7</ulSessionId>"])
ANY = st.lists(FRAGMENTS | st.binary(max_size=30), max_size=8).map(b"".join)


@pytest.fixture(scope="module")
def dripping():
    """A peer that sends what it is told, in the pieces it is told, and ends as it is told."""
    def script(connection, peer):
        pieces, end = peer.plan
        for piece in pieces:
            connection.sendall(piece)
        if end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif end == "echo":
            while True:
                data = connection.recv(65536)
                if not data:
                    break
                connection.sendall(data)
        elif end == "hold":
            while connection.recv(65536):
                pass

    with Peer(script) as peer:
        yield peer


@settings(max_examples=120, deadline=None)
@given(number=st.integers(0, len(PROBES) - 1), data=ANY, cuts=st.lists(st.integers(0, 1000), max_size=5),
       end=st.sampled_from(["close", "hold", "reset", "echo"]))
def test_whatever_comes_over_a_socket_there_is_a_verdict_in_time(dripping, number, data, cuts, end):
    dripping.plan = split(data, cuts), end
    seen = one(dripping.endpoint("imap"), PROBES[number], seconds=0.06)
    assert "s3cret" not in seen.words


@settings(max_examples=500, deadline=None)
@given(number=st.integers(0, len(PROBES) - 1), data=ANY, cuts=st.lists(st.integers(0, 1000), max_size=8),
       end=st.sampled_from([b"", None]))
def test_whatever_comes_in_a_transcript_there_is_a_verdict(number, data, cuts, end):
    seen, _ = feed(PROBES[number], split(data, cuts) + [end])
    assert seen.how in HOWS and seen.words
    assert "\n" not in seen.words and "s3cret" not in seen.words
    # and however it was split it is the same verdict
    assert feed(PROBES[number], [data, end] if data else [end])[0].how == seen.how


# ---------------------------------------------------------------- TLS

@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    made = {"ca": certificates.make(folder / "ca", "Test CA", ca=True)}
    made["good"] = certificates.make(folder / "good", authority=made["ca"])
    made["self"] = certificates.make(folder / "self")
    made["other"] = certificates.make(
        folder / "other", "other.example", "DNS:other.example", authority=made["ca"])
    made["expired"] = certificates.make(folder / "expired", end=certificates.LONG_AGO, authority=made["ca"])
    made["future"] = certificates.make(
        folder / "future", start=certificates.FUTURE, end=certificates.FAR_FUTURE, authority=made["ca"])
    return made


@pytest.fixture(params=["_ssl", "ssl"])
def engine(request, monkeypatch):
    """Both ways: the C module, and the ssl module that stands in for it."""
    if request.param == "ssl":
        monkeypatch.setattr(tls, "context", tls._by_ssl)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("certificate, host, verify, how, words", [
    ("self", "127.0.0.1", False, talk.FINE, "IMAP answers"),
    ("self", "localhost", False, talk.FINE, "IMAP answers"),
    ("other", "localhost", False, talk.FINE, "IMAP answers"),
    ("good", "localhost", True, talk.FINE, "IMAP answers"),
    ("good", "127.0.0.1", True, talk.FINE, "IMAP answers"),
    ("good", "*", True, talk.FINE, "IMAP answers"),
    ("other", "*", True, talk.FINE, "IMAP answers"),
    ("other", "localhost", True, talk.CERTIFICATE, "certificate not trusted: "),
    ("other", "127.0.0.1", True, talk.CERTIFICATE, "certificate not trusted: "),
    ("self", "localhost", True, talk.CERTIFICATE, "certificate not trusted: "),
    ("expired", "localhost", False, talk.CERTIFICATE, "certificate expired on 2021-01-01 00:00 UTC"),
    ("expired", "localhost", True, talk.CERTIFICATE, "certificate not trusted: "),
    ("future", "localhost", False, talk.CERTIFICATE, "certificate not valid before 2070-01-01 00:00 UTC"),
    ("future", "localhost", True, talk.CERTIFICATE, "certificate not trusted: "),
])
def test_certificates_are_judged(certs, certificate, host, verify, how, words):
    with Peer(IMAP, tls=server_side(certs[certificate])) as peer:
        seen = one(peer.endpoint("imap", host), ca_file=certs["ca"].pem, tls_verify=verify)
    assert (seen.how, seen.words[:len(words)]) == (how, words)


def test_the_certificate_itself_may_be_the_ca_file(certs):
    with Peer(IMAP, tls=server_side(certs["good"])) as peer:
        seen = one(peer.endpoint("imap", "localhost"), ca_file=certs["good"].pem, tls_verify=True)
    assert seen.how == talk.FINE


def test_without_a_ca_file_the_system_is_asked(certs):
    with Peer(IMAP, tls=server_side(certs["good"])) as peer:
        assert one(peer.endpoint("imap", "localhost"), tls_verify=True).how == talk.CERTIFICATE


@pytest.mark.parametrize("content", [
    None, b"", b"\0\1\2", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_ca_file_that_is_none(certs, tmp_path, content):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with Peer(IMAP, tls=server_side(certs["good"])) as peer, Peer(IMAP) as plain:
        bad, good = run([(entry.endpoint("imap", "localhost"), imap.noop) for entry in (peer, plain)],
                        soon(10), ca_file=str(file), tls_verify=True)
    assert bad.how == talk.CERTIFICATE and str(file) in bad.words
    assert good.how == talk.FINE


def test_a_hung_service_is_hung_even_with_an_expired_certificate(certs):
    with Peer(dialogue(b""), tls=server_side(certs["expired"])) as peer:
        seen = one(peer.endpoint("imap"), seconds=0.5)
    assert seen.how == talk.SILENT and "IMAP greeting" in seen.words


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("script, how, words", [
    (IMAP, talk.NONSENSE, "TLS: wrong version number"),
    (dialogue(b""), talk.SILENT, "waited for the TLS handshake"),
    (lambda connection, peer: peer.hear(connection, b"\x01"), talk.CLOSED, "in the TLS handshake"),
    (lambda connection, peer: connection.sendall(b"\x15\x03\x01\x00\x02\x02\x28"), talk.NONSENSE, "TLS: "),
    (lambda connection, peer: connection.sendall(os.urandom(200)), talk.NONSENSE, "TLS: "),
])
def test_what_is_not_tls(script, how, words):
    with Peer(script) as peer:
        endpoint = peer.endpoint("imap")
        endpoint.tls = True
        seen = one(endpoint, seconds=0.7)
    assert seen.how in (how, talk.CLOSED if how == talk.NONSENSE else how)
    if seen.how == how:
        assert words in seen.words


def test_a_service_that_wants_a_client_certificate_denies(certs):
    context = server_side(certs["good"])
    context.load_verify_locations(certs["ca"].pem)
    context.verify_mode = ssl.CERT_REQUIRED     # noqa: V101
    if not getattr(ssl, "HAS_TLSv1_3", False):
        pytest.skip("only TLS 1.3 tells it so clearly")
    with Peer(IMAP, tls=context) as peer:
        seen = one(peer.endpoint("imap"))
    assert (seen.how, seen.words) == (talk.DENIED, "the server wants a client certificate")


@pytest.mark.usefixtures("engine")
def test_tls_comes_in_any_pieces(certs):
    """A relay in the middle hands on one byte at a time."""
    with Peer(IMAP, tls=server_side(certs["good"])) as inner:
        def relay(connection, _):
            with socket.create_connection(("127.0.0.1", inner.port)) as onward:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while True:
                    for source in select.select([connection, onward], [], [], 5)[0]:
                        data = source.recv(65536)
                        if not data:
                            return
                        if source is connection:
                            onward.sendall(data)
                        for byte in data if source is onward else b"":
                            connection.send(bytes([byte]))

        with Peer(relay) as outer:
            endpoint = outer.endpoint("imap")
            endpoint.tls = True
            assert one(endpoint).how == talk.FINE


def test_endless_data_in_tls_ends(certs):
    def script(connection, peer):
        while not peer.over.is_set():
            connection.sendall(b"* OK more\r\n" * 1000)

    with Peer(script, tls=server_side(certs["good"])) as peer:
        assert one(peer.endpoint("imap")).how == talk.NONSENSE


@pytest.mark.parametrize("text", [
    "19700101000000Z", "20200101000000Z", "20240229000001Z", "20491231235959Z", "20500301000000Z",
    "20700228120000Z"])
def test_dates_of_a_certificate(tmp_path, text):
    wanted = calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))
    made = certificates.make(tmp_path / "c", start=text, end="20991231000000Z")
    with open(made.pem) as file:
        der = ssl.PEM_cert_to_DER_cert(file.read())
    assert tls.dates(der) == (wanted, 4102358400)
    assert tls.judge(der, wanted) == "" and tls.judge(der, 4102358400) == ""
    assert tls.judge(der, wanted - 1).startswith("certificate not valid before ")
    assert tls.judge(der, 4102358401).startswith("certificate expired on 2099-12-31")


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=5),
       st.integers(0, 3000))
def test_a_broken_certificate_has_no_dates_but_does_no_harm(certs, junk, changes, length):
    with open(certs["good"].pem) as file:
        der = bytearray(ssl.PEM_cert_to_DER_cert(file.read()))
    for place, value in changes:
        der[place % len(der)] = value
    for broken in (junk, bytes(der), bytes(der[:length])):
        found = tls.dates(broken)
        assert found is None or len(found) == 2
        assert isinstance(tls.judge(broken, time.time()), str)


# ---------------------------------------------------------------- what a good monitor loads

@pytest.mark.parametrize("scheme, allowed", [("imap", set()), ("imaps", {"_ssl", "kopano_ocf.tls"})])
def test_a_healthy_check_loads_next_to_nothing(certs, scheme, allowed):
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import os, _socket, select, errno, time\n"
            "before = set(sys.modules)\n"
            "from kopano_ocf import talk, endpoint\nfrom kopano_ocf.probe import imap\n"
            "seen, = talk.run([(endpoint.parse(sys.argv[2], 'imap'), imap.noop)], time.monotonic() + 10)\n"
            "print(seen.how, *sorted(set(sys.modules) - before))\n")
    with Peer(IMAP, tls=server_side(certs["good"]) if scheme == "imaps" else None) as peer:
        out = subprocess.check_output(
            [sys.executable, "-IS", "-c", code, LIB, "%s://127.0.0.1:%d" % (scheme, peer.port)])
    how, *loaded = out.decode().split()
    assert how == talk.FINE
    assert set(loaded) <= allowed | {"kopano_ocf", "kopano_ocf.talk", "kopano_ocf.address",
                                     "kopano_ocf.endpoint", "kopano_ocf.probe", "kopano_ocf.probe.imap"}
