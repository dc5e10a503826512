# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-dagent: LMTP."""

import sys

from . import generation, soap
from .log import ERROR
from .service import Service

_USAGE = 64  # EX_USAGE
_HELLO = (
    "250-SERVER ready\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODE\r\n250-RSET\r\n"
    "250 SMTPUTF8")


class Dagent(Service):
    name = "dagent"
    listens = (("lmtp_listen", False),)
    config_failed = bind_failed = user_failed = 0  # `dagent -l` never says what went wrong
    version_code = _USAGE
    default_config_optional = False
    pid_file_mode = 0o600
    open_files = 8192
    slots = "lmtp_max_threads"
    drain = 30
    idle = 60
    permanent_threads = 1

    def options(self, argv):
        import getopt

        self.listening = False
        self.foreground = True
        short = "c:jnqsvhVaF:P:p:HreNRl" + ("d" if generation.NUMBER == 8 else "")
        try:
            words, self.recipients = getopt.gnu_getopt(argv[1:], short, [
                "config=", "help", "version", "listen", "dump-config", "ignore-unknown-config-options",
                "folder=", "public=", "create", "read", "do-not-notify", "file=", "host="
            ] + (["daemonize"] if "d" in short else []))
        except getopt.GetoptError as error:
            print("%s: %s" % (argv[0], error.msg), file=sys.stderr)
            return _USAGE
        words = [(word, value) for word, value in words if word != "-F"]  # deliver into a folder, here
        code = self.understand(words)
        if code is None and not self.listening:
            if not self.recipients:
                print("Not enough options given, need at least the username", file=sys.stderr)
            return _USAGE
        return code

    def option(self, word, value):
        if word in ("-l", "--listen"):
            self.listening = True
        elif word in ("-d", "--daemonize"):
            self.listening, self.foreground = True, False

    def talk(self, line):
        client = self.client()
        try:
            if self.faults.get("421") is not None:
                raise soap.NetworkError("fault")
            client.logon()
            client.call("getStore")
        except (soap.NetworkError, soap.CallFailed) as error:
            self.log(ERROR, "HandlerLMTP: GetSession failed: %s" % error)
            client.close()
            line.send(b"421 internal error: GetSession failed\r\n")
            return "leaked"  # thread model: nobody counts this thread down (fork model: SIGCHLD does)
        try:
            self._session(line, client)
        finally:
            client.logoff()
        return None

    def _session(self, line, client):
        line.send(b"220 2.1.5 LMTP server is ready\r\n")
        recipients = []
        while True:
            words = line.readline()
            command = words.upper()
            if command.startswith(b"LHLO"):
                answer = _HELLO
            elif command.startswith(b"MAIL FROM:"):
                recipients, answer = [], "250 2.1.0 Ok"
            elif command.startswith(b"RCPT TO:"):
                answer = self._recipient(client, words[8:], recipients)
            elif command == b"DATA":
                if not recipients:
                    answer = "503 5.1.1 No recipients"
                else:
                    line.send(b"354 2.1.5 Start mail input; end with <CRLF>.<CRLF>\r\n")
                    answer = "\r\n".join(self._deliver(client, self._message(line), recipients))
                    recipients = []
            elif command == b"RSET":
                recipients, answer = [], "250 2.1.0 Ok"
            elif command == b"QUIT":
                line.send(b"221 2.0.0 Bye\r\n")
                return
            else:
                answer = "555 5.5.4 Command not recognized"
            line.send(answer.encode() + b"\r\n")

    def _recipient(self, client, text, recipients):
        address = text.strip().decode("utf-8", "replace").split(">")[0].lstrip("<")
        try:
            found = client.call("standinResolve", ("szAddress", address))
        except soap.CallFailed as failure:
            if failure.code == soap.NOT_FOUND:
                return "503 5.1.1 User does not exist"
            return "503 5.1.1 Connection error"
        except soap.NetworkError:
            return "503 5.1.1 Connection error"
        recipients.append((address, soap.element(found, "szUsername"), soap.element(found, "ulStore") == "1"))
        return "250 2.1.5 Ok"

    @staticmethod
    def _message(line):
        lines = []
        while True:
            text = line.readline(1 << 26)
            if text == b".":
                return b"".join(part + b"\r\n" for part in lines)
            lines.append(text[1:] if text.startswith(b".") else text)

    def _deliver(self, client, data, recipients):
        """One answer per recipient; 250 means that the message is committed in the database."""
        for address, user, store in recipients:
            if not store:
                yield "450 4.2.0 %s Mailbox temporarily unavailable" % address
                continue
            try:
                client.call("standinDeliver", ("szUsername", user), ("szFolder", "INBOX"),
                            ("sData", soap.packed(data)))
            except (soap.NetworkError, soap.CallFailed) as error:
                self.log(ERROR, "Unable to deliver to %s: %s" % (address, error))
                yield "450 4.5.0 %s network or permissions to storage server" % address
            else:
                yield "250 2.1.5 %s Ok" % address
