# SPDX-License-Identifier: GPL-2.0-or-later
"""The database's handshake as transcripts of bytes."""
import hashlib
import time

import pytest
from hypothesis import given, settings, strategies as st

from kopano_ocf import talk
from kopano_ocf.kopano_cfg import Database
from kopano_ocf.probe import mysql

NONCE = bytes(range(33, 53))
DATABASE = Database("127.0.0.1", 3306, "", "kopano", "geheim", "kopano")
CAPABILITIES = 0x81bff7fe


def packet(number, payload):
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


def greeting(plugin=b"mysql_native_password", capabilities=CAPABILITIES, version=b"8.0.36"):
    return packet(0, b"\x0a" + version + b"\0" + b"\x07\0\0\0" + NONCE[:8] + b"\0"
                  + (capabilities & 0xffff).to_bytes(2, "little") + b"\x21\x02\0"
                  + (capabilities >> 16).to_bytes(2, "little") + bytes([21]) + bytes(10) + NONCE[8:] + b"\0"
                  + plugin + b"\0")


def error(number, code, text, state=b"#28000"):
    return packet(number, b"\xff" + code.to_bytes(2, "little") + state + text)


OK = b"\0\0\0\x02\0\0\0"
PING, QUIT = packet(0, b"\x0e"), packet(0, b"\x01")


def native(password, nonce=NONCE):
    one = hashlib.sha1(password).digest()
    two = hashlib.sha1(nonce + hashlib.sha1(one).digest()).digest()
    return bytes(a ^ b for a, b in zip(one, two))


def sha2(password, nonce=NONCE):
    one = hashlib.sha256(password).digest()
    two = hashlib.sha256(hashlib.sha256(one).digest() + nonce).digest()
    return bytes(a ^ b for a, b in zip(one, two))


def feed(*chunks, local=False, database=DATABASE):
    return talk.feed(lambda wire: mysql.login(wire, database, local), list(chunks))


def test_native_password():
    seen, sent = feed(greeting(), packet(2, OK), packet(1, OK))
    assert seen.how == talk.FINE and seen.data == {"version": "8.0.36"}
    login = packet(1, (0x8a20d).to_bytes(4, "little") + b"\0\0\0\x01\x21" + bytes(23) + b"kopano\0"
                   + b"\x14" + native(b"geheim") + b"kopano\0mysql_native_password\0")
    assert sent == login + PING + QUIT


def test_no_password_no_database():
    seen, sent = feed(greeting(), packet(2, OK), packet(1, OK), database=Database("", 1, "", "root", "", ""))
    assert seen.how == talk.FINE
    assert sent[:-10] == packet(1, (0x8a205).to_bytes(4, "little") + b"\0\0\0\x01\x21" + bytes(23)
                                + b"root\0\0mysql_native_password\0")


def test_old_server_without_plugins():
    seen, sent = feed(greeting(b"", CAPABILITIES & ~0x80000, b"5.0.1"), packet(2, OK), packet(1, OK))
    assert seen.how == talk.FINE and b"mysql_native_password" not in sent


def test_caching_sha2_fast_login():
    """MySQL 8: the server has seen this password since it started; kopano-server's own logins see to that."""
    seen, sent = feed(greeting(b"caching_sha2_password"), packet(2, b"\x01\x03"), packet(3, OK),
                      packet(1, OK))
    assert seen.how == talk.FINE and sent.endswith(PING + QUIT)
    assert b"\x20" + sha2(b"geheim") + b"kopano\0caching_sha2_password\0" in sent


def test_switch_to_caching_sha2_with_a_new_nonce():
    fresh = NONCE[::-1]
    seen, sent = feed(greeting(), packet(2, b"\xfecaching_sha2_password\0" + fresh + b"\0"),
                      packet(4, b"\x01\x03"), packet(5, OK), packet(1, OK))
    assert seen.how == talk.FINE and packet(3, sha2(b"geheim", fresh)) in sent


def test_switch_to_native():
    fresh = NONCE[::-1]
    seen, sent = feed(greeting(b"caching_sha2_password"),
                      packet(2, b"\xfemysql_native_password\0" + fresh + b"\0"), packet(4, OK), packet(1, OK))
    assert seen.how == talk.FINE and packet(3, native(b"geheim", fresh)) in sent


def test_full_login_never_sends_the_password_over_the_network():
    seen, sent = feed(greeting(b"caching_sha2_password"), packet(2, b"\x01\x04"),
                      error(4, 1045, b"Access denied"))
    assert seen.how == talk.UNAVAILABLE and "full login of caching_sha2_password" in seen.words
    assert b"geheim" not in sent and sent.endswith(packet(3, b""))


def test_full_login_over_a_unix_socket():
    seen, sent = feed(greeting(b"caching_sha2_password"), packet(2, b"\x01\x04"), packet(4, OK),
                      packet(1, OK), local=True)
    assert seen.how == talk.FINE and sent.endswith(packet(3, b"geheim\0") + PING + QUIT)


@pytest.mark.parametrize("plugin", [b"client_ed25519", b"mysql_clear_password", b"auth_gssapi_client",
                                    b"\xff\xff"])
@pytest.mark.parametrize("end", [error(4, 1045, b"Access denied"), b"", None, b"\0\0\0\0"])
def test_logins_that_are_not_spoken(plugin, end):
    """The database lives, what it would say to kopano-server is not known: no reason to restart anything."""
    seen, sent = feed(greeting(), packet(2, b"\xfe" + plugin + b"\0" + NONCE), end, end)
    assert seen.how == talk.UNAVAILABLE and "can't be checked" in seen.words
    assert b"geheim" not in sent and sent.endswith(packet(3, b""))


def test_greeting_plugin_unknown_offers_native():
    seen, sent = feed(greeting(b"unix_socket"), packet(2, OK), packet(1, OK))
    assert seen.how == talk.FINE and b"mysql_native_password\0" in sent


@pytest.mark.parametrize("code, how", [
    (1045, talk.DENIED), (1044, talk.DENIED), (1049, talk.DENIED), (1130, talk.DENIED), (1129, talk.DENIED),
    (1698, talk.DENIED), (3159, talk.DENIED),
    (1040, talk.UNAVAILABLE), (1203, talk.UNAVAILABLE), (1053, talk.UNAVAILABLE), (9999, talk.UNAVAILABLE)])
def test_refusals(code, how):
    for chunks in ((error(0, code, b"because", b""),), (greeting(), error(2, code, b"because")),
                   (greeting(), packet(2, OK), error(1, code, b"because"))):
        seen, _ = feed(*chunks)
        assert seen.how == how and seen.words == "refuses: error %d 'because'" % code


def test_the_password_is_never_in_the_words():
    for chunks in ((error(0, 1045, b"no geheim here"),), (greeting(), error(2, 1045, b"(geheim)"))):
        seen, _ = feed(*chunks)
        assert seen.how == talk.DENIED and "geheim" not in seen.words
    for echo in (b"geheim\0" * 3, packet(4, b"\x05geheim"), packet(4, b"\xff\x01\x04geheim")):
        seen, _ = feed(greeting(b"caching_sha2_password"), packet(2, b"\x01\x04"), echo, local=True)
        assert "geheim" not in seen.words, seen.words


@pytest.mark.parametrize("garbage", [
    b"220 mail.example.org ESMTP\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\0\x02\x02\x46" * 3,
    packet(0, b""), packet(0, b"hello"), packet(0, b"\x0a5.5"), packet(0, b"\x0a5.5\0"),
    packet(0, b"\x095.5\0" + bytes(60)), packet(0, b"\x09" + greeting()[5:]),
    greeting(capabilities=CAPABILITIES & ~0x200), greeting(capabilities=CAPABILITIES & ~0x8000),
    b"\xff\xff\xff\x00" + bytes(70000)])
def test_garbage_instead_of_a_greeting(garbage):
    seen, sent = feed(garbage)
    assert seen.how in (talk.NONSENSE, talk.CLOSED) and sent == b""
    assert seen.how == talk.NONSENSE or garbage[0] == 0x15


@pytest.mark.parametrize("answer", [packet(2, b""), packet(2, b"\x42"), packet(2, b"\xfe"),
                                    packet(2, b"\x01\x03"), packet(2, b"\x01\x09"), b"\xff\xff\xff\x02"])
def test_garbage_instead_of_an_answer(answer):
    assert feed(greeting(), answer)[0].how == talk.NONSENSE


def test_garbage_instead_of_a_pong():
    seen, sent = feed(greeting(), packet(2, OK), packet(1, b"\x42"))
    assert seen.how == talk.NONSENSE and sent.endswith(PING + QUIT)


def test_refused_after_the_fast_login():
    seen, _ = feed(greeting(b"caching_sha2_password"), packet(2, b"\x01\x03"), error(3, 1049, b"no database"))
    assert seen.how == talk.DENIED
    seen, _ = feed(greeting(b"caching_sha2_password"), packet(2, b"\x01\x03"), packet(3, b"\x42"))
    assert seen.how == talk.NONSENSE


@pytest.mark.parametrize("chunks, awaited", [
    ((None,), "the database's greeting"),
    ((greeting()[:20], None), "the database's greeting"),
    ((greeting(), None), "the answer to the login"),
    ((greeting(), packet(2, OK), None), "the answer to a ping")])
def test_silence_says_what_was_waited_for(chunks, awaited):
    seen, _ = feed(*chunks)
    assert seen.how == talk.SILENT and awaited in seen.words


def test_closed_too_early():
    for chunks in ((), (greeting()[:5],), (greeting(),), (greeting(), packet(2, OK))):
        assert feed(*chunks)[0].how == talk.CLOSED


@given(st.lists(st.integers(1, 90), max_size=6))
def test_any_split(cuts):
    whole = greeting() + packet(2, OK) + packet(1, OK)
    chunks, at = [], 0
    for cut in cuts:
        chunks.append(whole[at:at + cut])
        at += cut
    chunks = [c for c in chunks + [whole[at:]] if c]
    assert feed(*chunks)[0].how == talk.FINE


@settings(max_examples=300)
@given(st.lists(st.one_of(st.binary(min_size=1, max_size=80), st.just(greeting()), st.just(packet(2, OK)),
                          st.binary(max_size=40).map(lambda b: packet(2, b)),
                          st.binary(max_size=40).map(lambda b: packet(2, b"\xfe" + b)),
                          st.binary(max_size=40).map(lambda b: packet(2, b"\xff" + b)),
                          st.just(packet(2, b"\x01\x04")), st.none()), max_size=8), st.booleans())
def test_any_bytes(chunks, local):
    seen, _ = feed(*chunks, local=local)
    assert seen.how and "\n" not in seen.words and "geheim" not in seen.words


@pytest.mark.parametrize("host, socket, there, wanted", [
    ("localhost", "", ["b"], "b"), ("", "", ["a", "b"], "a"), ("", "", [], "a"),
    ("localhost", "/x", ["a"], "/x")])
def test_where_the_client_library_connects_to(monkeypatch, tmp_path, host, socket, there, wanted):
    places = dict((name, str(tmp_path / name)) for name in "ab")
    for name in there:
        open(places[name], "w").close()
    monkeypatch.setattr(mysql, "SOCKETS", (places["a"], places["b"]))
    assert mysql.place(Database(host, 3306, socket, "u", "p", "n")).path == places.get(wanted, wanted)


def test_a_host_goes_over_tcp_even_with_a_socket():
    found = mysql.place(Database("127.0.0.1", 3307, "/x", "u", "p", "n"))
    assert (found.host, found.port, found.path) == ("127.0.0.1", 3307, "")


def test_the_words_name_the_place(tmp_path):
    database = Database("", 3306, str(tmp_path / "none.sock"), "kopano", "geheim", "mail")
    seen = mysql.ask(database, time.monotonic() + 5)
    assert seen.how == talk.REFUSED and "geheim" not in seen.words
    for word in (str(tmp_path / "none.sock"), "'kopano'", "'mail'"):
        assert word in seen.words
