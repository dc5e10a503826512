# SPDX-License-Identifier: GPL-2.0-or-later
"""IMAP as kopano-gateway speaks it: enough to log in, list, select, read, flag, search, append and delete."""

import os
import re
import time

from . import soap
from .log import ERROR
from .mailbox import FOLDERS, Mailbox

_LATER = "CHILDREN XAOL-OPTION NAMESPACE QUOTA IDLE"
_ANYTIME = ("CAPABILITY", "NOOP", "LOGOUT", "STARTTLS", "LOGIN", "AUTHENTICATE")


class _Bad(Exception):
    """A command that is not understood."""


def _split(text):
    """Words of a command: atoms, "quoted strings", (lists) as one word, BODY[...] as one word."""
    words = re.findall(r'"(?:[^"\\]|\\.)*"|\((?:[^()]|\([^()]*\))*\)|[^\s\[(]*\[[^\]]*\][^\s]*|\S+', text)
    return [re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word for word in words]


class Imap:

    def __init__(self, daemon, line):
        self._daemon, self._line = daemon, line
        self._client = self._mailbox = self._folder = None
        self._tls = line.listener.spec.tls
        self._messages = []

    def leave(self):
        if self._client is not None:
            self._client.logoff()

    def _say(self, text):
        self._line.send(text.encode("utf-8", "surrogateescape") + b"\r\n")

    def _capabilities(self):
        tls = "STARTTLS " if self._daemon.context is not None and not self._tls else ""
        return "IMAP4rev1 LITERAL+ %sAUTH=PLAIN" % tls

    def run(self):
        config = self._daemon.config
        host = (" on " + (config["server_hostname"] or os.uname().nodename)
                if config.flag("server_hostname_greeting") else "")
        self._say("* OK [CAPABILITY %s] IMAP gateway ready%s" % (self._capabilities(), host))
        while True:
            text = self._command()
            tag, _, rest = text.partition(" ")
            words = _split(rest)
            if not words:
                self._say("* BAD Empty command received" if not tag else tag + " BAD Command not recognized")
                continue
            command, arguments = words[0].upper(), words[1:]
            method = getattr(self, "do_" + command.lower(), None)
            try:
                if method is None:
                    raise _Bad("Command not recognized")
                if self._mailbox is None and command not in _ANYTIME:
                    self._say("%s NO not logged in" % tag)
                    continue
                if method(tag, *arguments) == "close":
                    return
            except (_Bad, TypeError, ValueError, IndexError) as error:
                self._say("%s BAD %s" % (tag, error))
            except soap.NetworkError:
                self._say("* BYE server connection lost")
                return
            except soap.CallFailed as failure:
                self._say("%s NO %s failed: %s" % (tag, command, failure))

    def _command(self):
        """One command with its literals, which are turned into quoted strings."""
        text = ""
        while True:
            piece = self._line.readline().decode("utf-8", "surrogateescape")
            literal = re.search(r"\{(\d+)(\+?)\}$", piece)
            if not literal:
                return text + piece
            if not literal.group(2):
                self._say("+ OK Ready for literal")
            data = self._line.read(int(literal.group(1))).decode("utf-8", "surrogateescape")
            text += piece[:literal.start()] + '"%s"' % data.replace("\\", "\\\\").replace('"', '\\"')

    # -- any time

    def do_capability(self, tag):
        self._say("* CAPABILITY %s %s" % (self._capabilities(), _LATER))
        self._say("%s OK CAPABILITY Completed" % tag)

    def do_noop(self, tag):
        if self._folder:
            self._announce()
        self._say("%s OK NOOP completed" % tag)

    def do_logout(self, tag):
        self._say("* BYE server logging out")
        self._say("%s OK LOGOUT completed" % tag)
        return "close"

    def do_starttls(self, tag):
        if self._daemon.context is None or self._tls:
            raise _Bad("STARTTLS error in ssl context")
        self._say("%s OK Begin TLS negotiation now" % tag)
        self._line.wrap(self._daemon.context)
        self._tls = True

    def do_login(self, tag, user, password):
        return self._log_in(tag, "LOGIN", user, password)

    def do_authenticate(self, tag, method, initial=None):
        if method.upper() != "PLAIN":
            self._say("%s NO AUTHENTICATE method not supported" % tag)
            return None
        if initial is None:
            self._say("+ ")
            initial = self._line.readline().decode("ascii", "replace")
        _authority, user, password = soap.unpacked(initial).decode("utf-8", "replace").split("\0")
        return self._log_in(tag, "AUTHENTICATE", user, password)

    def _log_in(self, tag, command, user, password):
        if self._mailbox is not None:
            self._say("%s NO %s Can't login twice" % (tag, command))
            return None
        self._client = self._daemon.client()
        try:
            self._mailbox = Mailbox(self._client, user, password, "imap")
        except soap.NetworkError as error:
            self._daemon.log(ERROR, "Failed to login from user %s: %s" % (user, error))
            self._say("%s BAD Internal error: OpenECSession failed" % tag)
            return "close"
        except soap.CallFailed as failure:
            self._daemon.log(ERROR, "Failed to login from user %s: %s" % (user, failure))
            self._client.logoff()
            if failure.code == soap.NO_SUPPORT:
                self._say("%s NO %s imap feature disabled" % (tag, command))
            else:
                self._say("%s NO %s wrong username or password" % (tag, command))
            return None
        self._say("%s OK [CAPABILITY %s %s] %s completed" % (tag, self._capabilities(), _LATER, command))
        return None

    # -- folders

    def do_namespace(self, tag):
        self._say('* NAMESPACE (("" "/")) NIL NIL')
        self._say("%s OK NAMESPACE Completed" % tag)

    def _listing(self, tag, command, reference, pattern):
        if not pattern:
            self._say('* %s (\\Noselect) "/" ""' % command)
        else:
            wanted = re.compile("".join(".*" if c in "*%" else re.escape(c) for c in reference + pattern),
                                re.IGNORECASE)
            for folder in FOLDERS:
                if wanted.fullmatch(folder):
                    self._say('* %s (\\HasNoChildren) "/" "%s"' % (command, folder))
        self._say("%s OK %s completed" % (tag, command))

    def do_list(self, tag, reference, pattern):
        self._listing(tag, "LIST", reference, pattern)

    def do_lsub(self, tag, reference, pattern):
        self._listing(tag, "LSUB", reference, pattern)

    @staticmethod
    def _folder_named(name):
        for folder in FOLDERS:
            if folder.lower() == name.lower():
                return folder
        return None

    def do_status(self, tag, name, items):
        folder = self._folder_named(name)
        if folder is None:
            self._say("%s NO STATUS folder not found" % tag)
            return
        messages = self._mailbox.messages(folder)
        values = {
            "MESSAGES": len(messages), "RECENT": 0, "UIDVALIDITY": 1,
            "UIDNEXT": max([message.uid for message in messages], default=0) + 1,
            "UNSEEN": sum("\\Seen" not in message.flags for message in messages)
        }
        asked = [item for item in items.strip("()").upper().split() if item in values]
        self._say('* STATUS "%s" (%s)' % (folder, " ".join("%s %d" % (item, values[item]) for item in asked)))
        self._say("%s OK STATUS completed" % tag)

    def _announce(self):
        self._messages = self._mailbox.messages(self._folder)
        self._say("* %d EXISTS" % len(self._messages))
        self._say("* 0 RECENT")

    def _open(self, tag, name, access):
        folder = self._folder_named(name)
        if folder is None:
            self._say("%s NO SELECT error finding folder" % tag)
            return
        self._folder = folder
        self._announce()
        self._say("* FLAGS (\\Seen \\Draft \\Deleted \\Flagged \\Answered $Forwarded)")
        self._say(
            "* OK [PERMANENTFLAGS (\\Seen \\Draft \\Deleted \\Flagged \\Answered $Forwarded)] Permanent flags"
        )
        self._say("* OK [UIDNEXT %d] Predicted next UID" %
                  (max([m.uid for m in self._messages], default=0) + 1))
        self._say("* OK [UIDVALIDITY 1] UIDVALIDITY value")
        self._say("%s OK [READ-%s] SELECT completed" % (tag, access))

    def do_select(self, tag, name):
        self._open(tag, name, "WRITE")

    def do_examine(self, tag, name):
        self._open(tag, name, "ONLY")

    def do_close(self, tag):
        self._remove_deleted()
        self._folder, self._messages = None, []
        self._say("%s OK CLOSE completed" % tag)

    def do_check(self, tag):
        self._say("%s OK CHECK completed" % tag)

    def do_append(self, tag, name, *rest):
        folder = self._folder_named(name)
        if folder is None:
            self._say("%s NO [TRYCREATE] APPEND error finding folder" % tag)
            return
        self._mailbox.append(folder, rest[-1].encode("utf-8", "surrogateescape"))
        self._say("%s OK APPEND completed" % tag)

    def do_idle(self, tag):
        self._say("+ waiting for notifications")
        while self._line.readline().upper() != b"DONE":
            pass
        self._say("%s OK IDLE complete" % tag)

    # -- messages

    def _chosen(self, text, by_uid):
        """[(sequence number, message)] of a set such as 1:3,7,*."""
        found = []
        last = self._messages[-1].uid if by_uid and self._messages else len(self._messages)
        for part in text.split(","):
            low, _, high = part.partition(":")
            low = last if low == "*" else int(low)
            high = last if high == "*" else int(high or low)
            low, high = min(low, high), max(low, high)
            for number, message in enumerate(self._messages, 1):
                if low <= (message.uid if by_uid else number) <= high:
                    found.append((number, message))
        return found

    def do_uid(self, tag, command, *arguments):
        method = {"FETCH": self.do_fetch, "STORE": self.do_store,
                  "SEARCH": self.do_search}.get(command.upper())
        if method is None:
            raise _Bad("UID Command not supported")
        method(tag, *arguments, by_uid=True)

    def do_fetch(self, tag, which, *items, by_uid=False):
        words = _split(" ".join(items).strip("()"))
        words = [
            word for item in words for word in {
                "ALL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE"), "FAST": ("FLAGS", "INTERNALDATE",
                                                                          "RFC822.SIZE")
            }.get(item.upper(), (item,))
        ]
        if by_uid and "UID" not in [word.upper() for word in words]:
            words.insert(0, "UID")
        for number, message in self._chosen(which, by_uid):
            parts = [self._fetched(message, word) for word in words]
            self._line.send(b"* %d FETCH (%s)\r\n" % (number, b" ".join(parts)))
        self._say("%s OK %sFETCH completed" % (tag, "UID " if by_uid else ""))

    def _fetched(self, message, item):
        item = item.upper()
        if item == "FLAGS":
            return ("FLAGS (%s)" % " ".join(sorted(message.flags))).encode()
        if item == "UID":
            return b"UID %d" % message.uid
        if item == "RFC822.SIZE":
            return b"RFC822.SIZE %d" % message.size
        if item == "INTERNALDATE":
            return time.strftime('INTERNALDATE "%d-%b-%Y %H:%M:%S +0000"',
                                 time.gmtime(message.received)).encode()
        section = {"RFC822": "", "RFC822.HEADER": "HEADER", "RFC822.TEXT": "TEXT"}.get(item)
        if section is None:
            found = re.fullmatch(r"BODY(\.PEEK)?\[(.*)\]", item)
            if not found:
                raise _Bad("FETCH item not supported: " + item)
            section = found.group(2)
            if not found.group(1):
                self._see(message)
            item = "BODY[%s]" % section
        elif item != "RFC822.HEADER":
            self._see(message)
        data = self._mailbox.content(message)
        head, _, body = data.partition(b"\r\n\r\n")
        if section.startswith("HEADER.FIELDS"):
            wanted = section.partition("(")[2].strip(")").lower().split()
            lines = re.sub(rb"\r\n(?=[ \t])", b"\0", head).split(b"\r\n")
            chosen = [text for text in lines if text.split(b":")[0].decode("latin-1").lower() in wanted]
            data = b"".join(text.replace(b"\0", b"\r\n") + b"\r\n" for text in chosen) + b"\r\n"
        elif section == "HEADER":
            data = head + b"\r\n\r\n"
        elif section in ("TEXT", "1"):
            data = body
        elif section:
            raise _Bad("FETCH section not supported: " + section)
        return b"%s {%d}\r\n%s" % (item.encode(), len(data), data)

    def _see(self, message):
        if "\\Seen" not in message.flags:
            message.flags.add("\\Seen")
            self._mailbox.flag(message)

    def do_store(self, tag, which, how, *flags, by_uid=False):
        flags = set(" ".join(flags).strip("()").split())
        for number, message in self._chosen(which, by_uid):
            if how.startswith("+"):
                message.flags |= flags
            elif how.startswith("-"):
                message.flags -= flags
            else:
                message.flags = set(flags)
            self._mailbox.flag(message)
            if ".SILENT" not in how.upper():
                self._say("* %d FETCH (FLAGS (%s))" % (number, " ".join(sorted(message.flags))))
        self._say("%s OK STORE completed" % tag)

    def do_search(self, tag, *criteria, by_uid=False):
        words = [word.upper() for word in criteria]
        found = []
        for number, message in enumerate(self._messages, 1):
            if ("UNSEEN" in words and "\\Seen" in message.flags
                    or "SEEN" in words and "\\Seen" not in message.flags):
                continue
            if any(word in ("SUBJECT", "BODY", "TEXT", "FROM", "HEADER") for word in words):
                wanted = criteria[-1].encode("utf-8", "surrogateescape").lower()
                if wanted not in self._mailbox.content(message).lower():
                    continue
            found.append(str(message.uid if by_uid else number))
        self._say(" ".join(["* SEARCH"] + found))
        self._say("%s OK SEARCH completed" % tag)

    def _remove_deleted(self):
        gone = []
        for number, message in reversed(list(enumerate(self._messages, 1))):
            if "\\Deleted" in message.flags:
                self._mailbox.delete(message)
                del self._messages[number - 1]
                gone.append(number)
        return gone

    def do_expunge(self, tag):
        for number in self._remove_deleted():
            self._say("* %d EXPUNGE" % number)
        self._say("%s OK EXPUNGE completed" % tag)
