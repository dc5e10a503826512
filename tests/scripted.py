# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers that do exactly what a test's script says, on real sockets."""

import os
import socket
import ssl
import threading
import time

from kopano_ocf.endpoint import Endpoint


class Peer:
    """A listening socket whose connections are each handled by script(connection, peer) in a thread.

    script      when it returns the connection is closed
    host        address to listen on; or path of a unix socket; the port is free to choose
    tls         an ssl.SSLContext: the script talks through it
    backlog     of listen(); None: nobody ever accepts
    A script that has to hold its connection open waits for peer.over.
    """

    def __init__(self, script, host="127.0.0.1", path=None, tls=None, backlog=20, accept=True):
        self.script, self.tls = script, tls
        self.over = threading.Event()
        self.heard = bytearray()            # what hear() has got
        self._threads = []
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.endpoint = lambda protocol: Endpoint(protocol, path=path)
        else:
            self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            self.listener.bind((host, 0))
            self.port = self.listener.getsockname()[1]
            self.endpoint = lambda protocol, name=host: Endpoint(protocol, bool(tls), name, self.port)
        self.listener.listen(backlog)
        if accept:
            self.accept()

    def accept(self):
        """Begin to take connections."""
        thread = threading.Thread(target=self._accept)
        thread.start()
        self._threads.append(thread)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        self.listener.close()

    def hear(self, connection, until=b"\n"):
        """Receive until some bytes have come, or the end."""
        got = b""
        while until not in got:
            piece = connection.recv(65536)
            if not piece:
                break
            got += piece
            self.heard += piece
        return got

    def _accept(self):
        while not self.over.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._handle, args=(connection,))
            thread.start()
            self._threads.append(thread)

    def _handle(self, connection):
        connection.settimeout(20)
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            self.script(connection, self)
        except (OSError, ssl.SSLError):
            # the client is gone
            pass
        finally:
            connection.close()


def dialogue(*turns):
    """A script of what to send: at once, after the first line heard, and so on; then the client ends it."""
    def script(connection, peer):
        for number, turn in enumerate(turns):
            if number:
                peer.hear(connection)
            connection.sendall(turn)
        while connection.recv(65536):
            pass
    return script


def server_side(certificate):
    """What a server of this certificate (see certificates) needs for TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.pem, certificate.key)
    return context


def descriptors():
    """The process's open descriptors, each with what it is."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add((fd, os.readlink("/proc/self/fd/" + fd)))
        except OSError:
            pass
    return found


def left_open(before):
    """Descriptors beyond those of before, once the peers' threads have seen that their clients are gone."""
    limit = time.monotonic() + 5
    while descriptors() - before and time.monotonic() < limit:
        time.sleep(0.005)
    return descriptors() - before
