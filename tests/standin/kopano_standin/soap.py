# SPDX-License-Identifier: GPL-2.0-or-later
"""SOAP as kopano-server speaks it: envelopes, result codes, and the client that the other daemons use.

logon, logoff, getStore, notifyGetItems are Kopano's own calls; those whose name begins with standin are ours.
"""

import binascii
import socket

from . import generation

NOT_FOUND, DATABASE_ERROR = 0x80000002, 0x80000007
LOGON_FAILED, END_OF_SESSION, INVALID_ENTRYID, BAD_CHARWIDTH = 0x80000009, 0x80000010, 0x80000014, 0x80000031
COLLISION, NO_SUPPORT = 0x80000008, 0x80040102
UNICODE = 0x200  # capability that a client must have

_ASKED = (
    '<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" xmlns:ns="urn:zarafa">'
    '<SOAP-ENV:Body>%s</SOAP-ENV:Body></SOAP-ENV:Envelope>')
_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<SOAP-ENV:Envelope '
    'xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:SOAP-ENC="http://schemas.xmlsoap.org/soap/encoding/" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema" '
    'xmlns:xop="http://www.w3.org/2004/08/xop/include" xmlns:xmlmime="http://www.w3.org/2004/11/xmlmime" '
    'xmlns:ns="urn:zarafa">')
_ANSWERED = (_HEAD + '<SOAP-ENV:Body SOAP-ENV:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
             '<ns:%sResponse>%s</ns:%sResponse></SOAP-ENV:Body></SOAP-ENV:Envelope>\r\n')
_FAULT = (
    _HEAD
    + '<SOAP-ENV:Body><SOAP-ENV:Fault><faultcode>%s</faultcode><faultstring>%s</faultstring></SOAP-ENV:Fault>'
    '</SOAP-ENV:Body></SOAP-ENV:Envelope>\r\n')


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text):
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")


def packed(data):
    """Bytes as base64. (The module of that name would bring `re` along: a tenth of a daemon's start.)"""
    return binascii.b2a_base64(data, newline=False).decode()


def unpacked(text):
    """Bytes from base64. Raises ValueError."""
    return binascii.a2b_base64(text)


def elements(pairs):
    """[(name, value)] as XML elements."""
    return "".join("<%s>%s</%s>" % (name, escape(str(value)), name) for name, value in pairs)


def element(xml, name):
    """Text of the first element of that name, else None."""
    start = xml.find("<%s>" % name)
    if start < 0:
        return "" if "<%s/>" % name in xml else None
    start += len(name) + 2
    end = xml.find("</%s>" % name, start)
    return None if end < 0 else unescape(xml[start:end])


def called(body):
    """Call in a request's body and its content: ("logon", "<szUsername>..."). Raises ValueError."""
    text = body.decode("utf-8", "replace")
    start = text.find("<ns:")
    end = text.find(">", start)
    if "Envelope" not in text or start < 0 or end < 0:
        raise ValueError("no call in it")
    name = text[start + 4:end].rstrip("/ ").split(" ")[0]
    close = text.find("</ns:%s>" % name, end)
    return name, text[end + 1:close] if close > 0 else ""


def answer(call, pairs):
    """Body of the answer to a call."""
    return (_ANSWERED % (call, elements(pairs), call)).encode()


def fault(code, text):
    return (_FAULT % (code, escape(text))).encode()


class NetworkError(Exception):
    """The server is not there, or went away."""


class CallFailed(Exception):
    """The server answered with er != 0."""

    def __init__(self, code):
        super().__init__("0x%08x" % code)
        self.code = code


class Client:
    """One connection to kopano-server, with a session after logon(). Waits for ever, as the daemons do."""

    def __init__(self, url, app=""):
        self._url, self._app, self._sock, self._buffer = url, app, None, b""
        self.session = None

    def fileno(self):
        return self._sock.fileno()

    def connect(self):
        """Raises NetworkError."""
        try:
            if self._url[0] == "unix":
                self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._sock.connect(self._url[1])
            else:
                self._sock = socket.create_connection(self._url[1:])
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._url[0] == "https":
                    import ssl

                    self._sock = ssl._create_unverified_context().wrap_socket(self._sock)
        except OSError as error:
            self.close()
            raise NetworkError(str(error))
        self._buffer = b""

    def close(self):
        """Close the connection; a session stays until it times out."""
        if self._sock is not None:
            self._sock.close()
        self._sock, self._buffer = None, b""

    def ask(self, call, pairs):
        """Send a call without waiting for its answer. Raises NetworkError."""
        if self._sock is None:
            self.connect()
        body = (_ASKED % ("<ns:%s>%s</ns:%s>" % (call, elements(pairs), call))).encode()
        head = ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n"
                "Connection: keep-alive\r\n\r\n" % len(body))
        try:
            self._sock.sendall(head.encode() + body)
        except OSError as error:
            self.close()
            raise NetworkError(str(error))

    def _fill(self):
        data = self._sock.recv(65536)
        if not data:
            raise OSError("connection closed")
        self._buffer += data

    def hear(self):
        """Read an answer's body as text. Raises NetworkError, CallFailed."""
        try:
            while b"\r\n\r\n" not in self._buffer:
                self._fill()
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise OSError("not 200")
            at = head.find(b"Content-Length: ")
            length = int(head[at + 16:].split(b"\r\n")[0])
            while len(self._buffer) < length:
                self._fill()
        except (OSError, ValueError) as error:
            self.close()
            raise NetworkError(str(error))
        body, self._buffer = self._buffer[:length].decode("utf-8", "replace"), self._buffer[length:]
        code = element(body, "er") or element(body, "result") or "0"
        if int(code):
            raise CallFailed(int(code))
        return body

    def call(self, name, *pairs):
        """A call within the session; returns the answer as text. Raises NetworkError, CallFailed."""
        self.ask(name, (("ulSessionId", self.session),) + pairs)
        return self.hear()

    def logon(self, user="SYSTEM", password=""):
        """Open a session. Raises NetworkError, CallFailed."""
        self.ask("logon",
                 (("szUsername", user), ("szPassword", password), ("szImpersonateUser", ""),
                  ("szVersion", generation.VERSION), ("ulCapabilities", UNICODE), ("szClientApp", self._app)))
        self.session = element(self.hear(), "ulSessionId")
        return self

    def logoff(self):
        """Close session and connection; errors don't matter any more."""
        try:
            if self._sock is not None and self.session:
                self.call("logoff")
        except (NetworkError, CallFailed):
            pass
        self.close()
