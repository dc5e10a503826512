# SPDX-License-Identifier: GPL-2.0-or-later
"""Listening sockets, and connections that can misbehave on purpose."""

import os
import socket
import struct
import time

GARBAGE = b"\x00\xff\x13garbage \x1b[31m\xc3\x28 not a protocol\x00" * 8


class BindError(Exception):
    """A socket could not be bound; str() is the line for the log."""


class Listener:
    """One listening socket of a bindspec."""

    def __init__(self, spec, sock):
        self.spec, self.sock, self.refusing = spec, sock, False

    def fileno(self):
        return self.sock.fileno()

    def called(self, endpoint):
        """Whether a fault's @ENDPOINT means this listener: its port, its setting or its path."""
        return endpoint in (self.spec.key, self.spec.path or str(self.spec.port))

    def refuse(self, on):
        """Refuse connections from now on, or accept them again."""
        if on == self.refusing:
            return
        self.refusing = on
        if self.spec.path:
            if on:
                self.sock.close()  # the path stays
            else:
                self.sock = _bind_unix(self.spec, os.stat(self.spec.path).st_mode & 0o777)
        elif on:
            self.sock.shutdown(socket.SHUT_RD)
        else:
            self.sock.listen(128)

    def close(self):
        self.sock.close()


def _bind_unix(spec, mode):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            os.unlink(spec.path)  # left-over, or another server's: stolen all the same
        except FileNotFoundError:
            pass
        sock.bind(spec.path)
        os.chmod(spec.path, mode)
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise BindError("K-1559: bind unix:%s: %s" % (spec.path, error.strerror))
    return sock


def _bind_tcp(spec):
    address, family = spec.host, socket.AF_INET6 if ":" in spec.host else socket.AF_INET
    if not address:
        address, family = "::", socket.AF_INET6
        try:
            socket.socket(family).close()
            if not os.path.exists("/proc/net/if_inet6"):
                raise OSError
        except OSError:
            address, family = "0.0.0.0", socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if spec.host else 0)
        if spec.device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, spec.device.encode())
        sock.bind((address, spec.port))
        sock.listen(128)
    except (OSError, UnicodeError) as error:
        sock.close()
        raise BindError("K-1559: bind %s: %s" % (spec.text, getattr(error, "strerror", None) or error))
    return sock


def listen(spec, mode=0o666, owner=None):
    """Bind and listen. mode and owner (uid, gid): of a unix socket. Raises BindError."""
    sock = _bind_unix(spec, mode) if spec.path else _bind_tcp(spec)
    if spec.path and owner:
        os.chown(spec.path, *owner)
    return Listener(spec, sock)


def peer_credentials(sock):
    """(pid, uid) of the process at the other end of a unix socket."""
    pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


class Disturbed(Exception):
    """A fault ended this conversation."""


class Line:
    """One accepted connection: reads with a deadline, writes through the faults that are on.

    idle  seconds a read may take, None for ever
    """

    def __init__(self, sock, listener, faults, idle=None):
        self.sock, self.listener, self.faults, self.idle = sock, listener, faults, idle
        self._buffer = b""
        sock.settimeout(idle)
        if not listener.spec.path:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wrap(self, context):
        """Speak TLS from now on. Raises OSError."""
        self.sock = context.wrap_socket(self.sock, server_side=True)

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self._buffer += data

    def readline(self, limit=1 << 20):
        """A line without its end. Raises EOFError, OSError (a timeout too)."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > limit:
                raise EOFError
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def read(self, count):
        """Exactly so many bytes."""
        while len(self._buffer) < count:
            self._more()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    @property
    def pending(self):
        """Whether bytes are waiting that were read (or decrypted) already."""
        return bool(self._buffer) or hasattr(self.sock, "pending") and self.sock.pending() > 0

    def send(self, data):
        """Send an answer, or what the faults make of it. Raises OSError, Disturbed."""
        faults, listener = self.faults, self.listener
        faults.deadlock()
        if faults.get("hang", listener) is not None:
            faults.stall("hang", listener)
        if faults.get("close", listener) is not None:
            raise Disturbed
        if faults.get("garbage", listener) is not None:
            self.sock.sendall(GARBAGE)
            faults.stall("garbage", listener)
            raise Disturbed
        half = faults.get("half", listener)
        if half is not None:
            self.sock.sendall(data[:len(data) // 2])
            if "close" not in half:
                faults.stall("half", listener)
            raise Disturbed
        slow = faults.get("slow", listener)
        if slow is not None:
            pause = float(slow[0]) if slow else 1.0
            for position in range(len(data)):
                self.sock.sendall(data[position:position + 1])
                if faults.get("slow", listener) is None:
                    data = data[position + 1:]
                    break
                time.sleep(pause)
            else:
                return
        self.sock.sendall(data)

    def close(self):
        try:
            self.sock.close()
        except OSError:
            pass


def tls_context(certificate, key, password=None):
    """A server's TLS context. Raises OSError (ssl.SSLError is one)."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key or None, password or None)
    return context
