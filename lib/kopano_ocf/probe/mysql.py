# SPDX-License-Identifier: GPL-2.0-or-later
"""MySQL and MariaDB: does the database take kopano-server's own login, and answer a ping?

The client side of the handshake (protocol version 10, 4.1 and later) with mysql_native_password and
caching_sha2_password, without TLS. See "Client/Server Protocol" in the manuals of MySQL and MariaDB.
"""
import os

from kopano_ocf import talk
from kopano_ocf.endpoint import Endpoint

MYPY = False
if MYPY:
    from typing import Any, List, Optional, Tuple  # noqa: F401

# Where a client library looks for the socket when neither host nor socket are named.
SOCKETS = ("/var/run/mysqld/mysqld.sock", "/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock",
           "/tmp/mysql.sock")

_LONG_PASSWORD, _LONG_FLAG, _CONNECT_WITH_DB, _PROTOCOL_41 = 0x1, 0x4, 0x8, 0x200
_TRANSACTIONS, _SECURE_CONNECTION, _PLUGIN_AUTH = 0x2000, 0x8000, 0x80000
_UTF8 = 33
_OK, _MORE, _SWITCH, _ERROR = 0x00, 0x01, 0xfe, 0xff
_PING, _QUIT = b"\x0e", b"\x01"
_FAST, _FULL = b"\x03", b"\x04"
_PACKET = 65536             # bytes: more than any answer to a login has

# Errors that say: not you. All others mean that the server can't take anybody now.
_NOT_US = (
    1044,       # ER_DBACCESS_DENIED_ERROR
    1045,       # ER_ACCESS_DENIED_ERROR
    1049,       # ER_BAD_DB_ERROR
    1129,       # ER_HOST_IS_BLOCKED
    1130,       # ER_HOST_NOT_PRIVILEGED
    1251,       # ER_NOT_SUPPORTED_AUTH_MODE
    1275,       # ER_SERVER_IS_IN_SECURE_AUTH_MODE
    1524,       # ER_PLUGIN_IS_NOT_LOADED
    1698,       # ER_ACCESS_DENIED_NO_PASSWORD_ERROR
    3118,       # ER_ACCOUNT_HAS_BEEN_LOCKED (MySQL)
    3159,       # ER_SECURE_TRANSPORT_REQUIRED
    4151,       # ER_ACCOUNT_HAS_BEEN_LOCKED (MariaDB)
)


def ask(database, deadline):
    # type: (Any, float) -> talk.Seen
    """Log in as kopano-server does, ping, log out.

    database  a kopano_cfg.Database
    deadline  time.monotonic() by which it returns
    The Seen: FINE; SILENT (no greeting, no answer), REFUSED, UNREACHABLE; DENIED when user, host or
    database are refused; UNAVAILABLE when the server takes nobody (too many connections, shutting down)
    or wants a login that is not spoken here; NONSENSE, CLOSED. data: {"version": text} once it has greeted.
    """
    endpoint = place(database)
    where = endpoint.path or "%s:%d" % (endpoint.host, endpoint.port)

    def probe(wire):
        # type: (talk.Wire) -> Any
        return login(wire, database, local=bool(endpoint.path))

    seen = talk.run([(endpoint, probe)], deadline, local_only=False)[0]
    seen.words = "database '%s' at %s, user '%s': %s" % (database.name, where, database.user, seen.words)
    return seen


def place(database):
    # type: (Any) -> Endpoint
    """Where the client library would connect to: "" and "localhost" mean the unix socket."""
    if database.host not in ("", "localhost"):
        return Endpoint("mysql", host=database.host, port=database.port)
    if database.socket:
        return Endpoint("mysql", path=database.socket)
    for path in SOCKETS:
        if os.path.exists(path):
            return Endpoint("mysql", path=path)
    return Endpoint("mysql", path=SOCKETS[0])


def login(wire, database, local=False):
    # type: (talk.Wire, Any, bool) -> Any
    """The conversation: a generator that returns a Seen. local: over a unix socket."""
    payload, _ = yield from _packet(wire, "the database's greeting")
    if payload[:1] == bytes([_ERROR]):
        return _refusal(wire, payload, database)
    greeting = _Greeting(wire, payload)
    wire.data = {"version": greeting.version}
    plugin = greeting.plugin if greeting.plugin in _SCRAMBLES else "mysql_native_password"
    answer = _response(greeting, plugin, database)
    number = 1
    while True:
        wire.send(_framed(answer, number))
        payload, number = yield from _packet(wire, "the answer to the login")
        number += 1
        kind = payload[0] if payload else -1
        if kind == _OK:
            break
        if kind == _ERROR:
            return _refusal(wire, payload, database)
        if kind == _SWITCH and len(payload) > 1:
            name, _, nonce = payload[1:].partition(b"\0")
            plugin = name.decode("ascii", "replace")
            if plugin not in _SCRAMBLES:
                return (yield from _unspoken(wire, plugin, number))
            greeting.nonce = nonce.rstrip(b"\0")
            answer = _SCRAMBLES[plugin](_bytes(database.password), greeting.nonce)
        elif kind == _MORE and plugin == "caching_sha2_password" and payload[1:] == _FAST:
            payload, _ = yield from _packet(wire, "the answer to the login")
            if payload[:1] == bytes([_ERROR]):
                return _refusal(wire, payload, database)
            if payload[:1] != bytes([_OK]):
                raise wire.nonsense("the answer to the login", payload)
            break
        elif kind == _MORE and plugin == "caching_sha2_password" and payload[1:] == _FULL:
            if not local:
                # Nobody has logged in with this password since the server started. The password itself
                # must not go over the network in clear, nor under a key that anybody could have sent.
                return (yield from _unspoken(wire, "the full login of caching_sha2_password", number))
            wire.secret = True
            answer = _bytes(database.password) + b"\0"
        else:
            raise wire.nonsense("the answer to the login", payload)
    wire.send(_framed(_PING, 0))
    payload, _ = yield from _packet(wire, "the answer to a ping")
    wire.send(_framed(_QUIT, 0))
    if payload[:1] == bytes([_ERROR]):
        return _refusal(wire, payload, database)
    if payload[:1] != bytes([_OK]):
        raise wire.nonsense("the answer to a ping", payload)
    return talk.Seen(talk.FINE, "answers (%s)" % greeting.version, data=wire.data)


def _unspoken(wire, what, number):
    # type: (talk.Wire, str, int) -> Any
    """End a login that we can't go on with, as a failed one: a broken-off one may get this host blocked."""
    seen = talk.Seen(talk.UNAVAILABLE, "answers, but wants a login that can't be checked from here: %s"
                     % talk.quote(what.encode("ascii", "replace")), data=wire.data)
    wire.verdict = seen
    wire.send(_framed(b"", number))
    yield from _packet(wire, "the end of the login")
    return seen


def _packet(wire, what):
    # type: (talk.Wire, str) -> Any
    """(payload, sequence number) of the next packet."""
    header = yield from wire.exactly(4, what)
    length = int.from_bytes(header[:3], "little")
    if length > _PACKET:
        raise wire.nonsense(what, header + bytes(wire.inbox[:56]))
    payload = yield from wire.exactly(length, what)
    return payload, header[3]


def _framed(payload, number):
    # type: (bytes, int) -> bytes
    return len(payload).to_bytes(3, "little") + bytes([number & 255]) + payload


class _Greeting:
    """HandshakeV10: version, nonce, plugin, capabilities."""

    def __init__(self, wire, payload):
        # type: (talk.Wire, bytes) -> None
        version, end, rest = payload[1:].partition(b"\0")
        if payload[:1] != b"\x0a" or not end or len(rest) < 15:
            raise wire.nonsense("the database's greeting", payload)
        self.version = talk.quote(version)[1:-1]
        self.nonce = rest[4:12]
        self.capabilities = int.from_bytes(rest[13:15] + rest[18:20], "little")
        if not self.capabilities & _PROTOCOL_41 or not self.capabilities & _SECURE_CONNECTION:
            raise talk.Nonsense("a database older than MySQL 4.1")
        length = max(13, (rest[20] if len(rest) > 20 else 0) - 8)
        self.nonce += rest[31:31 + length].rstrip(b"\0")
        self.plugin = ""
        if self.capabilities & _PLUGIN_AUTH:
            self.plugin = rest[31 + length:].partition(b"\0")[0].decode("ascii", "replace")


def _response(greeting, plugin, database):
    # type: (_Greeting, str, Any) -> bytes
    """HandshakeResponse41."""
    wanted = _LONG_PASSWORD | _LONG_FLAG | _PROTOCOL_41 | _TRANSACTIONS | _SECURE_CONNECTION
    wanted |= greeting.capabilities & _PLUGIN_AUTH
    if database.name:
        wanted |= _CONNECT_WITH_DB
    proof = _SCRAMBLES[plugin](_bytes(database.password), greeting.nonce)
    parts = [wanted.to_bytes(4, "little"), (1 << 24).to_bytes(4, "little"), bytes([_UTF8]), bytes(23),
             _bytes(database.user), b"\0", bytes([len(proof)]), proof]
    if database.name:
        parts += [_bytes(database.name), b"\0"]
    if wanted & _PLUGIN_AUTH:
        parts += [plugin.encode("ascii"), b"\0"]
    return b"".join(parts)


def _refusal(wire, payload, database):
    # type: (talk.Wire, bytes, Any) -> talk.Seen
    """The Seen for an error packet."""
    code = int.from_bytes(payload[1:3], "little")
    text = payload[3:]
    if text[:1] == b"#":
        text = text[6:]
    password = _bytes(database.password)
    if wire.secret or password and password in text:
        words = "error %d" % code
    else:
        words = "error %d %s" % (code, talk.quote(text, 200))
    how = talk.DENIED if code in _NOT_US else talk.UNAVAILABLE
    return talk.Seen(how, "refuses: " + words, data=wire.data)


def _native(password, nonce):
    # type: (bytes, bytes) -> bytes
    from hashlib import sha1
    if not password:
        return b""
    once = sha1(password).digest()
    return _xor(once, sha1(nonce[:20] + sha1(once).digest()).digest())


def _caching_sha2(password, nonce):
    # type: (bytes, bytes) -> bytes
    from hashlib import sha256
    if not password:
        return b""
    once = sha256(password).digest()
    return _xor(once, sha256(sha256(once).digest() + nonce[:20]).digest())


_SCRAMBLES = {"mysql_native_password": _native, "caching_sha2_password": _caching_sha2}


def _xor(one, other):
    # type: (bytes, bytes) -> bytes
    return bytes(a ^ b for a, b in zip(one, other))


def _bytes(text):
    # type: (str) -> bytes
    # A NUL would end the field before its time
    return text.encode("utf-8", "surrogateescape").partition(b"\0")[0]
