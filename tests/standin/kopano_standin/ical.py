# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-ical: CalDAV and iCal over HTTP, one request per connection. Calendars are empty."""

import time

from . import soap
from .log import ERROR
from .mailbox import Mailbox
from .net import tls_context
from .service import Service

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "MOVE", "PROPFIND", "PROPPATCH", "REPORT", "MKCALENDAR")
_ALLOW = "Allow: OPTIONS, GET, POST, PUT, DELETE, MOVE\r\nAllow: PROPFIND, PROPPATCH, REPORT, MKCALENDAR\r\n"
_DAV = "DAV: 1, access-control, calendar-access, calendar-schedule, calendar-proxy\r\n"
_CALENDAR = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Kopano//libicalmapi//EN\r\nCALSCALE:GREGORIAN\r\n"
    "END:VCALENDAR\r\n")


class Ical(Service):
    name = "ical"
    listens = (("ical_listen", False), ("icals_listen", True))
    config_failed = 0  # lies; bind_failed does not
    version_code = 0

    def load_tls(self):
        self.context = None
        secure = [listener for listener in self.listeners if listener.spec.tls]
        if not secure:
            return
        try:
            self.context = tls_context(self.config["ssl_certificate_file"],
                                       self.config["ssl_private_key_file"])
        except OSError as error:
            self.log(ERROR, "Error loading SSL context, iCal-S will be disabled: %s" % error)
            for listener in secure:
                listener.close()
                self.listeners.remove(listener)

    def talk(self, line):
        words = line.readline().decode("latin-1").split(" ")
        headers = {}
        while True:
            header = line.readline().decode("latin-1")
            if not header:
                break
            key, _, value = header.partition(":")
            headers[key.lower()] = value.strip()
        if headers.get("content-length", "0") != "0":
            line.read(int(headers["content-length"]))
        method, path = words[0].upper(), words[1] if len(words) > 1 else "/"
        status, more, body = self._answer(method, path, headers)
        head = (
            "HTTP/1.1 %s\r\n%sContent-Length: %d\r\nServer: Kopano\r\nDate: %s\r\nConnection: close\r\n\r\n" %
            (status, more, len(body.encode()), time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())))
        line.send((head + ("" if method == "HEAD" else body)).encode())

    def _answer(self, method, path, headers):
        """Status, further header lines, body."""
        dav = _DAV if path.startswith("/caldav") else ""
        if method == "OPTIONS":
            return "200 OK", _ALLOW + dav, ""
        if method not in _METHODS:
            return "501 Not Implemented", "", ""
        if not self._authenticated(headers.get("authorization", "")):
            realm = "Kopano iCal Gateway" if path.startswith("/ical") else "Kopano CalDav Gateway"
            return "401 Unauthorized", 'WWW-Authenticate: Basic realm="%s"\r\n%s' % (realm, dav), ""
        if method in ("PROPFIND", "REPORT"):
            body = (
                '<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:" '
                'xmlns:C="urn:ietf:params:xml:ns:caldav"><D:response><D:href>%s</D:href><D:propstat><D:prop>'
                '<D:resourcetype><D:collection/><C:calendar/></D:resourcetype></D:prop>'
                '<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>'
                % soap.escape(path))
            return "207 Multi-Status", dav + "Content-Type: application/xml; charset=utf-8\r\n", body
        if method in ("GET", "HEAD") and path.startswith("/ical"):
            return "200 OK", "Content-Type: text/calendar; charset=\"utf-8\"\r\n", _CALENDAR
        return "404 Not Found", dav, ""

    def _authenticated(self, header):
        kind, _, secret = header.partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            user, _, password = soap.unpacked(secret).decode("utf-8", "replace").partition(":")
        except ValueError:
            return False
        client = self.client()
        try:
            Mailbox(client, user, password)
            return True
        except soap.NetworkError:
            self.log(ERROR, "Login failed: network error")
        except soap.CallFailed as failure:
            self.log(ERROR, "Login failed: %s" % failure)
        finally:
            client.logoff()
        return False
