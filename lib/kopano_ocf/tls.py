# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS for conversations: bytes in, bytes out, and the certificate's dates.

The C module _ssl is used directly, as the ssl module around it costs more CPU than the whole rest of a
monitor.  Where _ssl is not as expected, ssl itself does the same work.
"""

import time

import _ssl  # type: ignore

MYPY = False
if MYPY:
    from typing import Any, List, Optional, Tuple  # noqa: F401

_PARTIAL_CHAIN = 0x80000    # X509_V_FLAG_PARTIAL_CHAIN: ca_file may hold just the server's own certificate


class Untrusted(Exception):
    """The certificate was judged and found wanting; str() says why."""


class Broken(Exception):
    """What came is not TLS, or the peer refused ours; str() says why."""


class Refused(Exception):
    """The peer wants a client certificate."""


def context(ca_file, verify):
    # type: (Optional[str], bool) -> Any
    """A client context, to be shared by the conversations of one run.

    verify      judge chain and host name, by ca_file or the system's CAs; else accept any certificate
    Raises Untrusted when ca_file can't be used.
    """
    # 3.6 checks host names in Python code of the ssl module, not in _ssl
    if verify and not hasattr(_ssl._SSLContext, "_host_flags"):
        return _by_ssl(ca_file, verify)
    try:
        made = _ssl._SSLContext(_ssl.PROTOCOL_TLS_CLIENT)
        made._wrap_bio, _ssl.MemoryBIO
    except AttributeError:
        return _by_ssl(ca_file, verify)
    return _set_up(made, ca_file, verify, _ssl.CERT_REQUIRED, _ssl.CERT_NONE)


def _by_ssl(ca_file, verify):
    # type: (Optional[str], bool) -> Any
    import ssl
    return _set_up(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca_file, verify, ssl.CERT_REQUIRED, ssl.CERT_NONE)


def _set_up(made, ca_file, verify, required, none):
    # type: (Any, Optional[str], bool, int, int) -> Any
    if not verify:
        made.check_hostname = False
        made.verify_mode = none
        # Whether an old protocol or a short key is still allowed is not for a monitor to say
        try:
            made.set_ciphers("DEFAULT:@SECLEVEL=0")
            made.minimum_version = _ssl.PROTO_MINIMUM_SUPPORTED
        except (AttributeError, ValueError, _ssl.SSLError):
            pass
        return made
    made.verify_mode = required
    made.check_hostname = True
    try:
        if ca_file:
            made.load_verify_locations(ca_file, None, None)
            made.verify_flags |= _PARTIAL_CHAIN
        else:
            made.set_default_verify_paths()
    except (OSError, ValueError) as e:
        raise Untrusted("ca_file %s: %s" % (ca_file, getattr(e, "strerror", None) or e))
    return made


class Session:
    """One client's side of TLS, without a socket.

    name    host name to ask for and, when the context verifies, to find in the certificate;
            None: the chain alone is judged
    """

    def __init__(self, made, name):
        # type: (Any, Optional[str]) -> None
        self.established = False
        if hasattr(made, "wrap_bio"):
            import ssl
            self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()      # type: Any, Any
            wrap = made.wrap_bio
        else:
            self._in, self._out = _ssl.MemoryBIO(), _ssl.MemoryBIO()
            wrap = made._wrap_bio
        if name is None and made.verify_mode:
            made.check_hostname = False
        elif made.verify_mode:
            made.check_hostname = True
        try:
            self._tls = wrap(self._in, self._out, False, name)
        except (ValueError, OSError) as e:
            # a name that no certificate can hold
            raise Untrusted("host name '%s': %s" % (name, e))

    def give(self, data):
        # type: (bytes) -> None
        """Take bytes that came from the peer; b"" is its end of file."""
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    def take(self):
        # type: () -> bytes
        """Bytes to be sent to the peer now."""
        return bytes(self._out.read())

    def shake(self):
        # type: () -> bool
        """Go on with the handshake; True once it is done.  Raises Untrusted, Broken, Refused, EOFError."""
        if not self.established and self._call(self._tls.do_handshake) is not _AGAIN:
            self.established = True
        return self.established

    def read(self):
        # type: () -> bytes
        """Plain bytes that have come, b"" for none yet.  Raises EOFError at the end, Broken, Refused."""
        data = self._call(self._tls.read, 65536)
        if data is _AGAIN:
            return b""
        if not data:
            raise EOFError
        return bytes(data)

    def write(self, data):
        # type: (bytes) -> None
        """Encrypt bytes; take() has them then."""
        self._call(self._tls.write, data)

    def bye(self):
        # type: () -> None
        """Say close_notify, without waiting for the peer's."""
        try:
            self._call(self._tls.shutdown if hasattr(self._tls, "shutdown") else self._tls.unwrap)
        except (Broken, Refused, Untrusted, EOFError):
            pass

    def certificate(self):
        # type: () -> bytes
        """The peer's certificate as DER, b"" when it has shown none."""
        get = getattr(self._tls, "getpeercert", None) or self._tls.peer_certificate
        return bytes(get(True) or b"")

    @staticmethod
    def _call(what, *arguments):
        # type: (Any, *Any) -> Any
        try:
            return what(*arguments)
        except (_ssl.SSLWantReadError, _ssl.SSLWantWriteError):
            return _AGAIN
        except (_ssl.SSLEOFError, _ssl.SSLZeroReturnError):
            raise EOFError
        except _ssl.SSLError as e:
            # "[SSL: REASON] what OpenSSL says (_ssl.c:1)"; REASON is wrong when OpenSSL is newer than Python
            text = str(e.args[-1]) if e.args else ""
            text = text[text.find("] ") + 2 if "] " in text else 0:].rpartition(" (")[0] or text
            message = getattr(e, "verify_message", None)
            if message or "certificate verify failed" in text:
                raise Untrusted(message or text)
            if "certificate required" in text:
                raise Refused("the server wants a client certificate")
            if "unexpected eof" in text:
                raise EOFError
            raise Broken(text)
        except OSError:
            # an end of file that OpenSSL takes for an interrupted read
            raise EOFError
        except ValueError as e:
            # 3.6: match_hostname's CertificateError
            raise Untrusted(str(e))


_AGAIN = object()


def dates(der):
    # type: (bytes) -> Optional[Tuple[int, int]]
    """(notBefore, notAfter) of a certificate, in seconds since 1970; None when it can't be read."""
    try:
        # Certificate, and in it TBSCertificate: [version] serial signature issuer validity ...
        place = _field(der, _field(der, 0)[1])[1]
        fields = []     # type: List[Tuple[int, int, int]]
        while len(fields) < 5:
            fields.append(_field(der, place))
            place = fields[-1][2]
        validity = fields[4 if fields[0][0] == 0xa0 else 3]
        first = _field(der, validity[1])
        second = _field(der, first[2])
        return _time(der, first), _time(der, second)
    except (IndexError, ValueError):
        return None


def _field(der, place):
    # type: (bytes, int) -> Tuple[int, int, int]
    # (tag, where its content begins, where it ends)
    tag, size, place = der[place], der[place + 1], place + 2
    if size & 0x80:
        count = size & 0x7f
        size = int.from_bytes(der[place:place + count], "big")
        place += count
    if place + size > len(der):
        raise ValueError
    return tag, place, place + size


def _time(der, field):
    # type: (bytes, Tuple[int, int, int]) -> int
    # UTCTime YYMMDDHHMMSSZ or GeneralizedTime YYYYMMDDHHMMSSZ (RFC 5280 4.1.2.5)
    text = der[field[1]:field[2]].decode("ascii")
    if field[0] == 0x17:
        text = ("19" if text[:2] >= "50" else "20") + text
    year, month, day, hour, minute, second = (
        int(text[a:b]) for a, b in ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14)))
    if not 1 <= month <= 12:
        raise ValueError
    # days since 1970-01-01 in the proleptic Gregorian calendar, years counted from March
    early = month < 3
    year -= early
    days = 365 * year + year // 4 - year // 100 + year // 400
    days += (153 * (month + (9 if early else -3)) + 2) // 5 + day - 1 - 719468
    return ((days * 24 + hour) * 60 + minute) * 60 + second


def judge(der, now):
    # type: (bytes, float) -> str
    """Say what is wrong with a certificate's dates at a time (seconds since 1970); "" when nothing is."""
    found = dates(der)
    if not found:
        return ""
    if now > found[1]:
        return "certificate expired on %s" % _day(found[1])
    if now < found[0]:
        return "certificate not valid before %s" % _day(found[0])
    return ""


def _day(seconds):
    # type: (int) -> str
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "%d seconds after 1970" % seconds
