# SPDX-License-Identifier: GPL-2.0-or-later
"""Conversations with services: what a probe says and hears, apart from sockets and clocks.

A probe is a generator that talks through a Wire and returns a Seen.  run() holds several such conversations
at once over real sockets until a deadline, feed() holds one with a transcript.
"""

import _socket
import errno
import os
import select
import sys
import time

MYPY = False
if MYPY:
    from typing import Any, Callable, Dict, Generator, List, Optional, Tuple  # noqa: F401
    from kopano_ocf.endpoint import Endpoint  # noqa: F401

FINE = "fine"                   # answered as a healthy service does
REFUSED = "refused"             # nobody listens there
SILENT = "silent"               # the deadline passed first
CLOSED = "closed"               # end of file or reset before the answer was complete
NONSENSE = "nonsense"           # an answer, but not of this protocol
UNAVAILABLE = "unavailable"     # the service says itself that what it lives on is away
DENIED = "denied"               # a login is refused
NOT_HERE = "not here"           # the address is not on this host
UNREACHABLE = "unreachable"     # other errors of the network or of name resolution
CERTIFICATE = "certificate"     # expired, not yet valid, not trusted

LIMIT = 1 << 20                 # bytes heard in one conversation before it is called nonsense
_CHUNK = 65536
_BACKLOG_FULL = 0.02            # seconds between attempts at a unix socket whose backlog is full


class Seen:
    """What one conversation has shown.

    how     one of the constants above
    words   one line for people, never with a password in it
    took    seconds from the start of the run
    data    dict of what a probe has learnt, or None
    peer    pid of who has called listen() on the unix socket that answered, 0 when that isn't known
    """

    __slots__ = ("how", "words", "took", "data", "peer")

    def __init__(self, how, words, took=0.0, data=None):
        # type: (str, str, float, Optional[Dict[str, Any]]) -> None
        self.how, self.words, self.took, self.data = how, words, took, data
        self.peer = 0

    def __repr__(self):
        return "Seen(%r, %r, %.3f, %r)" % (self.how, self.words, self.took, self.data)


class Nonsense(Exception):
    """Raised in a probe: what came is not the protocol.  str() is for people."""


class Closed(Exception):
    """Raised by a Wire: the peer has closed while more was needed.  str() says what was waited for."""


def quote(data, limit=60):
    # type: (bytes, int) -> str
    """Bytes of a stranger as short printable text in quotes."""
    text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in bytes(data[:limit]))
    return "'%s'%s" % (text, "..." if len(data) > limit else "")


class Wire:
    """A probe's end of a conversation.  line, exactly and rest are used with `yield from`.

    waiting_for     what the probe waits for, in words
    data            what the probe has learnt so far; goes into the Seen when the conversation breaks off
    verdict         a Seen that holds when the conversation breaks off from here on, or None
    secret          set once a password was sent: the peer's bytes are not quoted any more, it may echo
    """

    __slots__ = ("waiting_for", "data", "verdict", "secret", "inbox", "outbox", "heard", "ended", "_scanned")

    def __init__(self):
        # type: () -> None
        self.waiting_for = "an answer"
        self.data = None            # type: Optional[Dict[str, Any]]
        self.verdict = None         # type: Optional[Seen]
        self.secret = False
        self.inbox, self.outbox = bytearray(), bytearray()
        self.heard = 0
        self.ended = ""
        self._scanned = 0

    def send(self, data):
        # type: (bytes) -> tuple
        """Say something.  It goes out when the probe waits next, or ends."""
        self.outbox += data
        return ()

    def line(self, what, limit=65536, begins=()):
        """Hear one line, as bytes without its CRLF or LF.

        begins: with what (upper case; one of these) it has to begin, unless it is empty. Noise without an end of
        line is no silence. Raises Closed; Nonsense when it is longer than limit bytes, or begins otherwise.
        """
        while True:
            if begins:
                start = bytes(self.inbox[:80]).lstrip(b"\r\n")
                if not any(word.startswith(start[:len(word)].upper()) for word in begins):
                    raise self.nonsense(what, start.splitlines()[0])
            end = self.inbox.find(b"\n", self._scanned)
            if end < 0:
                self._scanned = len(self.inbox)
            if end > limit or end < 0 and self._scanned > limit:
                raise self.nonsense(what, self.inbox)
            if end >= 0:
                line = self._take(end + 1)
                return line[:-2] if line.endswith(b"\r\n") else line[:-1]
            yield from self._more(what)

    def exactly(self, count, what):
        """Hear so many bytes.  Raises Closed, Nonsense when it is more than a conversation may hold."""
        if count > LIMIT:
            raise Nonsense("%s announced with %d bytes" % (what, count))
        while len(self.inbox) < count:
            yield from self._more(what)
        return self._take(count)

    def rest(self, what, limit=65536):
        """Hear everything until the peer closes.  Raises Nonsense when it is more than limit bytes."""
        while not self.ended:
            if len(self.inbox) > limit:
                raise Nonsense("%s does not end within %d bytes" % (what, limit))
            yield from self._more(what)
        if len(self.inbox) > limit:
            raise Nonsense("%s is longer than %d bytes" % (what, limit))
        return self._take(len(self.inbox))

    def nonsense(self, what, got):
        # type: (str, bytes) -> Nonsense
        """The exception to raise when `got` came where `what` was due."""
        if self.secret:
            return Nonsense("%s expected, something else came (not shown after a password)" % what)
        return Nonsense("%s expected, %s came" % (what, quote(got)))

    def give(self, data):
        # type: (bytes) -> None
        """The other side: bytes that were heard, b"" at the end of file."""
        if not data:
            self.ended = self.ended or "closed"
        elif self.heard <= LIMIT:
            self.heard += len(data)
            self.inbox += data

    def _take(self, count):
        # type: (int) -> bytes
        taken = bytes(self.inbox[:count])
        del self.inbox[:count]
        self._scanned = 0
        return taken

    def _more(self, what):
        self.waiting_for = what
        if self.heard > LIMIT:
            raise Nonsense("%s expected, endless data came" % what)
        if self.ended:
            words = "connection %s while waiting for %s, %d bytes had come" % (self.ended, what, self.heard)
            if self.inbox and not self.secret:
                words += ": " + quote(self.inbox)
            raise Closed(words)
        yield


class _Probing:
    """A probe in progress: its wire and its verdict."""

    __slots__ = ("wire", "_steps")

    def __init__(self, probe):
        self.wire = Wire()
        self._steps = probe(self.wire)

    def step(self):
        """Let the probe go on with what has come: a Seen once it has its verdict, else None."""
        try:
            next(self._steps)
            return None
        except StopIteration as end:
            seen = end.value
            return seen if isinstance(seen, Seen) else Seen(FINE, str(seen or ""), data=self.wire.data)
        except Nonsense as e:
            how, words = NONSENSE, str(e)
        except Closed as e:
            how, words = CLOSED, str(e)
        return self.wire.verdict or Seen(how, words, data=self.wire.data)

    def late(self, took):
        """The Seen of a probe whose time is over."""
        self._steps.close()
        words = "no answer within %.1f s: waited for %s, %d bytes had come" % (
            took, self.wire.waiting_for, self.wire.heard)
        return self.wire.verdict or Seen(SILENT, words, data=self.wire.data)


def feed(probe, chunks):
    # type: (Callable[[Wire], Generator], List[Optional[bytes]]) -> Tuple[Seen, bytes]
    """Hold a conversation with a transcript: (Seen, everything the probe sent).

    chunks are the peer's bytes in the pieces they come in; b"" or the end of the list is its end of file,
    at None the deadline passes.
    """
    probing = _Probing(probe)
    sent = bytearray()
    coming = iter(chunks)
    while True:
        seen = probing.step()
        sent += probing.wire.outbox
        del probing.wire.outbox[:]
        if seen:
            return seen, bytes(sent)
        chunk = next(coming, b"")
        if chunk is None:
            return probing.late(0), bytes(sent)
        probing.wire.give(chunk)


def run(conversations, deadline, local_only=True, ca_file=None, tls_verify=False, enough=None):
    # type: (List[Tuple[Endpoint, Callable]], float, bool, Optional[str], bool, Optional[float]) -> List[Seen]
    """Hold conversations with real services, all at once; their Seens in the same order.

    conversations   [(Endpoint, probe)]: probe(wire) is a generator that returns a Seen, or words for FINE
    deadline        time.monotonic() by which it returns, whatever the peers do
    local_only      an address that is not this host's own is NOT_HERE, and is not connected to
    ca_file         CA certificates, None: the system's
    tls_verify      judge the certificate's chain, and its name where the endpoint has one; its dates are
                    always judged, once everything else is fine
    enough          time.monotonic() from which on one good answer is enough: who is silent then is not waited for
    """
    started = time.monotonic()
    context = None      # type: Any
    if any(endpoint.tls for endpoint, _ in conversations):
        from kopano_ocf import tls
        try:
            context = tls.context(ca_file, tls_verify)
        except tls.Untrusted as e:
            context = str(e)
    talks = [_Talk(endpoint, probe, started, local_only, context) for endpoint, probe in conversations]
    poller = select.poll()
    try:
        for talk in talks:
            talk.open()
        while True:
            now = time.monotonic()
            until = deadline if enough is None or now >= enough else enough
            watched = {}
            for talk in talks:
                if talk.seen:
                    continue
                if talk.again:
                    if talk.again <= now:
                        talk.connect()
                    until = min(until, talk.again or until)
                if talk.fd >= 0 and not talk.seen:
                    watched[talk.fd] = talk
                    poller.register(talk.fd, talk.events())
            if all(talk.seen for talk in talks) or now >= deadline:
                break
            if enough is not None and now >= enough and any(talk.seen and talk.seen.how == FINE for talk in talks):
                break
            ready = poller.poll(int(max(0, min(until - now, 60)) * 1000) + 1)
            for fd in watched:
                # a talk may close its socket, and another open one of the same number
                poller.unregister(fd)
            for fd, event in ready:
                watched[fd].ready(event)
        for talk in talks:
            if not talk.seen:
                talk.late()
    finally:
        for talk in talks:
            talk.close()
    return [talk.seen for talk in talks if talk.seen]


# Which failure of several addresses says most
_TELLING = (NOT_HERE, UNREACHABLE, REFUSED, SILENT, CLOSED)


class _Talk:
    """One conversation over a socket: resolve, connect, TLS, probe.

    context     a context of tls, or why there is none
    """

    def __init__(self, endpoint, probe, started, local_only, context):
        self.endpoint, self.local_only = endpoint, local_only
        self.probing = _Probing(probe)
        self.wire = self.probing.wire
        self.started = started
        self.context = context
        self.seen = None            # type: Optional[Seen]
        self.fd = -1
        self.again = 0.0            # monotonic time of the next attempt to connect, 0: none due
        self.sock = None            # type: Any
        self.connected = False
        self.tls = None             # type: Any
        self.resolver = None        # type: Any
        # (family, socket address, device to bind to)
        self.places = []            # type: List[Tuple[int, Any, str]]
        self.place = ""             # the one tried now, for people
        self.failure = None         # type: Optional[Seen]
        self.sealed = bytearray()   # bytes for the socket, after TLS where there is any
        self.deaf = False           # the peer takes nothing any more
        self.peer = 0

    # -- finding the address

    def open(self):
        endpoint = self.endpoint
        if endpoint.tls and isinstance(self.context, str):
            return self._end(Seen(CERTIFICATE, self.context))
        if endpoint.path:
            self.places = [(_socket.AF_UNIX, endpoint.path, "")]
            return self.connect()
        hosts = endpoint.addresses
        if endpoint.host == "localhost":
            hosts = ("127.0.0.1", "::1")
        elif hosts != (endpoint.host,):
            if endpoint.device not in ("", "lo"):
                # a socket bound to a device hears what is sent to that device's own addresses, no others
                from kopano_ocf import address
                hosts = address.of_device(endpoint.device)
                if not hosts:
                    return self._end(Seen(
                        NOT_HERE, "device %s has no address on this host" % endpoint.device))
        else:
            from kopano_ocf import address
            if not address.family(endpoint.host):
                self.resolver = _Resolver(endpoint.host, endpoint.port)
                self.fd = self.resolver.fd
                self.wire.waiting_for = "the address of '%s'" % endpoint.host
                return None
        return self._use(hosts)

    def _use(self, hosts):
        for host in hosts:
            # 127.0.0.0/8 and ::1 are on every host
            loopback = host.startswith("127.") or host == "::1"
            if self.local_only and not loopback:
                from kopano_ocf import address
                if not address.is_local(host):
                    self._failed(NOT_HERE, "%s is not an address of this host" % host)
                    continue
            if ":" in host:
                self.places.append((_socket.AF_INET6, (host, self.endpoint.port, 0, self._scope(host)), ""))
            else:
                # a listener on ADDRESS%lo answers no one but a client that is on lo as well
                bind = self.endpoint.device if self.endpoint.device == "lo" and not loopback else ""
                self.places.append((_socket.AF_INET, (host, self.endpoint.port), bind))
        return self.connect()

    def _scope(self, host):
        if self.endpoint.device and host.lower().startswith("fe80:"):
            try:
                return _socket.if_nametoindex(self.endpoint.device)
            except OSError:
                pass
        return 0

    # -- connecting

    def connect(self):
        """Start on the next address, or on the same one again."""
        self.again = 0.0
        while self.places and not self.seen:
            family, where, device = self.places[0]
            self.place = where if family == _socket.AF_UNIX else \
                ("[%s]:%d" if family == _socket.AF_INET6 else "%s:%d") % where[:2]
            self.wire.waiting_for = "the connection to %s" % self.place
            try:
                self.sock = _socket.socket(family, _socket.SOCK_STREAM)
                self.fd = self.sock.fileno()
                self.sock.setblocking(False)
                if device:
                    self.sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_BINDTODEVICE, os.fsencode(device))
                code = self.sock.connect_ex(where)
            except (OSError, ValueError) as e:
                code = getattr(e, "errno", 0) or errno.EINVAL
            if code == errno.EAGAIN and family == _socket.AF_UNIX:
                self._drop()
                self.again = time.monotonic() + _BACKLOG_FULL
                return
            if code in (0, errno.EINPROGRESS, errno.EINTR):
                if not code:
                    self._start()
                return
            self._not_connected(code)
        if not self.seen:
            self._end(self.failure or Seen(UNREACHABLE, "'%s' has no address" % self.endpoint.host))

    def _not_connected(self, code):
        self._drop()
        del self.places[0]
        if code in (errno.ECONNREFUSED, errno.ENOENT):
            how = REFUSED
        elif code in (errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT) \
                and self.local_only:
            how = NOT_HERE
        elif code == errno.ETIMEDOUT:
            how = SILENT
        elif code in (errno.ECONNRESET, errno.EPIPE):
            # it was accepted, and closed before this process looked
            how = CLOSED
        else:
            how = UNREACHABLE
        self._failed(how, "%s: %s" % (self.place, os.strerror(code)))

    def _failed(self, how, words):
        if self.failure is None or _TELLING.index(how) > _TELLING.index(self.failure.how):
            self.failure = Seen(how, words)

    def _start(self):
        self.connected = True
        del self.places[:]
        if self.endpoint.path:
            # struct ucred: pid, uid, gid; of the one who listens (unix(7), SO_PEERCRED)
            ucred = self.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
            self.peer = int.from_bytes(ucred[:4], sys.byteorder)
        if self.endpoint.tls:
            from kopano_ocf import address, tls
            name = self.endpoint.host
            if name not in self.endpoint.addresses or not self.context.verify_mode and address.family(name):
                name = None
            self.wire.waiting_for = "the TLS handshake"
            try:
                self.tls = tls.Session(self.context, name)
            except tls.Untrusted as e:
                return self._end(Seen(CERTIFICATE, str(e)))
            return self._tls(None)
        return self._step()

    # -- talking

    def events(self):
        """What poll() shall wait for."""
        if self.resolver:
            return select.POLLIN
        if not self.connected:
            return select.POLLOUT
        return select.POLLIN | (select.POLLOUT if self.sealed else 0)

    def ready(self, event):
        """poll() says that something can be done."""
        if self.seen:
            return
        if self.resolver:
            self._resolved()
        elif not self.connected:
            code = self.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
            if not code and self._alone():
                code = errno.ECONNREFUSED
            if code:
                self._not_connected(code)
                self.connect()
            else:
                self._start()
        else:
            if event & select.POLLOUT:
                self._flush()
            if event & ~select.POLLOUT:
                self._hear()

    def _alone(self):
        # A client whose own port is the one it looks for is connected to itself: nobody listens there
        try:
            return self.sock.family != _socket.AF_UNIX and self.sock.getsockname() == self.sock.getpeername()
        except OSError:
            return False

    def _resolved(self):
        resolver, self.resolver = self.resolver, None
        self.fd = -1
        resolver.close()
        if not resolver.hosts:
            self._end(Seen(UNREACHABLE, "'%s': %s" % (self.endpoint.host, resolver.why)))
        else:
            self._use(resolver.hosts)

    def _hear(self):
        try:
            data = self.sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as e:
            data = b""
            self.wire.ended = "reset" if e.errno == errno.ECONNRESET else "lost (%s)" % os.strerror(e.errno)
        if self.tls:
            self._tls(data)
        else:
            self.wire.give(data)
            self._step()

    def _step(self):
        seen = self.probing.step()
        self._send()
        if seen:
            self._end(seen)

    def _send(self):
        if self.wire.outbox:
            if self.tls:
                from kopano_ocf import tls
                try:
                    self.tls.write(bytes(self.wire.outbox))
                except (EOFError, tls.Broken, tls.Refused):
                    self.deaf = True
                self.sealed += self.tls.take()
            else:
                self.sealed += self.wire.outbox
            del self.wire.outbox[:]
        self._flush()

    def _flush(self):
        while self.sealed and not self.deaf:
            try:
                del self.sealed[:self.sock.send(self.sealed, _socket.MSG_NOSIGNAL)]
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # it may have said its last words before it closed: those count
                self.deaf = True
        if self.deaf:
            del self.sealed[:]

    def _tls(self, data):
        from kopano_ocf import tls
        try:
            if data is not None:
                self.tls.give(data)
            try:
                if not self.tls.established:
                    if not self.tls.shake():
                        return
                    self._step()
                while not self.seen:
                    plain = self.tls.read()
                    if not plain:
                        return
                    self.wire.give(plain)
                    self._step()
            finally:
                if not self.seen:
                    self.sealed += self.tls.take()
                    self._flush()
        except EOFError:
            if self.tls.established:
                self.wire.give(b"")
                self._step()
            else:
                self._end(Seen(CLOSED, "connection %s in the TLS handshake" % (self.wire.ended or "closed")))
        except tls.Untrusted as e:
            self._end(Seen(CERTIFICATE, "certificate not trusted: %s" % e))
        except tls.Refused as e:
            self._end(Seen(DENIED, str(e)))
        except tls.Broken as e:
            self._end(Seen(NONSENSE, "TLS: %s" % e))

    # -- ending

    def late(self):
        """The deadline has passed."""
        self._end(self.probing.late(time.monotonic() - self.started))

    def _end(self, seen):
        self.seen = seen
        if self.tls and self.tls.established:
            if seen.how == FINE:
                from kopano_ocf import tls
                wrong = tls.judge(self.tls.certificate(), time.time())
                if wrong:
                    self.seen = seen = Seen(CERTIFICATE, wrong, data=seen.data)
            self.tls.bye()
            self.sealed += self.tls.take()
            self._flush()
        seen.took, seen.peer = time.monotonic() - self.started, self.peer
        self.close()

    def close(self):
        """Let go of everything."""
        self._drop()
        if self.resolver:
            self.resolver.close()
            self.resolver = None

    def _drop(self):
        if self.sock is not None:
            self.sock.close()
        self.sock, self.fd = None, -1


class _Resolver:
    """Asks for the addresses of a name in a thread: getaddrinfo() knows no deadline.

    fd becomes readable once there is an answer: hosts, or why there are none.
    """

    def __init__(self, name, port):
        import _thread
        self.hosts, self.why = [], "no such name"
        self.fd, self._writer = os.pipe()
        self._lock = _thread.allocate_lock()
        try:
            _thread.start_new_thread(self._ask, (name, port))
        except RuntimeError as e:
            self.why = str(e)
            self._done()

    def _ask(self, name, port):
        try:
            hosts = []
            # bytes: text would load the codec for international names
            for _, _, _, _, where in _socket.getaddrinfo(
                    name.encode("ascii"), port, _socket.AF_UNSPEC, _socket.SOCK_STREAM):
                hosts.append(where[0])
            self.hosts = hosts
        except OSError as e:
            self.why = e.strerror or str(e)
        except ValueError:
            self.why = "not a host name"
        self._done()

    def _done(self):
        with self._lock:
            if self._writer >= 0:
                os.close(self._writer)
                self._writer = -1

    def close(self):
        """Wait no longer."""
        self._done()
        os.close(self.fd)
