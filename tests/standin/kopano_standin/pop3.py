# SPDX-License-Identifier: GPL-2.0-or-later
"""POP3 as kopano-gateway speaks it."""

from . import soap
from .log import ERROR
from .mailbox import Mailbox


class Pop3:

    def __init__(self, daemon, line):
        self._daemon, self._line = daemon, line
        self._client = self._mailbox = None
        self._user, self._tls = None, line.listener.spec.tls
        self._messages, self._deleted = [], set()

    def leave(self):
        if self._client is not None:
            self._client.logoff()

    def _say(self, text):
        self._line.send(text.encode("utf-8", "surrogateescape") + b"\r\n")

    def run(self):
        host = (" on "
                + _hostname(self._daemon) if self._daemon.config.flag("server_hostname_greeting") else "")
        self._say("+OK POP3 gateway ready" + host)
        while True:
            words = self._line.readline().decode("utf-8", "surrogateescape").split(" ")
            command, arguments = words[0].upper(), words[1:]
            if command == "QUIT":
                for message in self._deleted:
                    self._mailbox.delete(message)
                self._say("+OK Bye")
                return
            method = getattr(self, "do_" + command.lower(), None)
            if method is None:
                self._say("-ERR Function not (yet) implemented")
                continue
            if self._mailbox is None and command not in ("CAPA", "STLS", "USER", "PASS"):
                self._say("-ERR Invalid command")
                continue
            try:
                if method(*arguments) == "close":
                    return
            except soap.NetworkError:
                self._say("-ERR [SYS/TEMP] Server connection lost")
                return
            except soap.CallFailed as failure:
                self._say("-ERR Error %s" % failure)
            except (TypeError, ValueError, IndexError):
                self._say("-ERR wrong arguments")

    def do_capa(self):
        stls = "" if self._daemon.context is None or self._tls else "STLS\r\n"
        self._say("+OK \r\nCAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n%sUSER\r\n." % stls)

    def do_stls(self):
        if self._daemon.context is None or self._tls:
            self._say("-ERR TLS not available")
            return
        self._say("+OK Begin TLS negotiation now")
        self._line.wrap(self._daemon.context)
        self._tls = True

    def do_user(self, name):
        self._user = name
        self._say("+OK Waiting for password")

    def do_pass(self, *words):
        self._client = self._daemon.client()
        try:
            mailbox = Mailbox(self._client, self._user or "", " ".join(words), "pop3")
            self._messages = mailbox.messages()
        except soap.NetworkError as error:
            self._daemon.log(ERROR, "Failed to login: %s" % error)
            self._say("-ERR [SYS/TEMP] Internal error: HrLogin failed")
            return "close"
        except soap.CallFailed as failure:
            self._daemon.log(ERROR, "Failed to login from user %s: %s" % (self._user, failure))
            self._say("-ERR [AUTH] Wrong username or password")
            return None
        self._mailbox = mailbox
        self._say("+OK Username and password accepted")
        return None

    def _numbered(self):
        return [(number, message) for number, message in enumerate(self._messages, 1)
                if message not in self._deleted]

    def _one(self, number):
        message = self._messages[int(number) - 1]
        if int(number) < 1 or message in self._deleted:
            raise IndexError
        return message

    def do_stat(self):
        left = self._numbered()
        self._say("+OK %d %d" % (len(left), sum(message.size for _number, message in left)))

    def do_list(self, number=None):
        if number:
            self._say("+OK %s %d" % (number, self._one(number).size))
            return
        left = self._numbered()
        self._say("+OK %d messages\r\n%s." %
                  (len(left), "".join("%d %d\r\n" % (n, message.size) for n, message in left)))

    def do_uidl(self, number=None):
        if number:
            self._say("+OK %s %d" % (number, self._one(number).uid))
            return
        self._say("+OK\r\n%s." % "".join("%d %d\r\n" % (n, message.uid) for n, message in self._numbered()))

    def do_retr(self, number):
        self._send_message(self._mailbox.content(self._one(number)))

    def do_top(self, number, count):
        head, _, body = self._mailbox.content(self._one(number)).partition(b"\r\n\r\n")
        self._send_message(head + b"\r\n\r\n" + b"".join(text + b"\r\n"
                                                         for text in body.split(b"\r\n")[:int(count)]))

    def _send_message(self, data):
        stuffed = data.replace(b"\r\n.", b"\r\n..")
        self._line.send(b"+OK\r\n" + (b"." if stuffed.startswith(b".") else b"") + stuffed.rstrip(b"\r\n")
                        + b"\r\n.\r\n")

    def do_dele(self, number):
        self._deleted.add(self._one(number))
        self._say("+OK mail deleted")

    def do_rset(self):
        self._deleted.clear()
        self._say("+OK Undeleted mails")

    def do_noop(self):
        self._say("+OK")


def _hostname(daemon):
    import os

    return daemon.config["server_hostname"] or os.uname().nodename
