# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients outside the nodes during a drill: mail is delivered all the time, and read, and every look is noted."""
import base64
import imaplib
import smtplib
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from email.message import EmailMessage

from kopano_site import ADDRESS, MAILBOX, PASSWORD, PORTS, USER

SERVICES = {"server": "kopano-server", "dagent": "LMTP", "gateway": "IMAP", "ical": "CalDAV"}


@dataclass(frozen=True)
class Look:
    """One try of a client."""
    begin: float        # time.monotonic()
    end: float
    good: bool
    words: str = ""     # what went wrong


class Traffic:
    """`with Traffic(site, "kill-node") as traffic: ...`.

    LMTP: a mail each, to the end. IMAP: login, select. CalDAV: a calendar with credentials. kopano-server: HEAD.
    Like an MTA, delivery waits longer and longer after each temporary failure (a 421 costs dagent one of its 20
    slots), but not longer than until mail can be read again.
    """
    INTERVAL = 0.3
    PATIENCE = 3.0              # seconds for an answer
    SLOW = 1.0                  # seconds: an answer that takes longer was an outage

    def __init__(self, site, name):
        self.site, self.name = site, name
        self.looks = {service: [] for service in SERVICES}
        self.acknowledged = []          # subjects
        self.tried = []
        self.vanished = []              # words: fewer mails could be read than had been acknowledged
        self.refused = 0                # 421s since the begin: what they have cost dagent
        self.given_up = 0               # LMTP clients that went without a word: dagent may have had a 421 for them
        self.first = 0
        self._end = threading.Event()
        self._threads = [threading.Thread(target=site.lab.outside, args=(loop,), name=loop.__name__, daemon=True)
                         for loop in (self._deliver, self._read, self._ask)]

    def __enter__(self):
        self.first = self.site.count() + 1
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join()

    # ---- clients, each in a thread of its own ---------------------------------------------------------------

    def _look(self, service, talk):
        begin = time.monotonic()
        words = ""
        try:
            talk()
        except (OSError, smtplib.SMTPException, imaplib.IMAP4.error, EOFError) as error:
            words = f"{type(error).__name__}: {error}"
        self.looks[service].append(Look(begin, time.monotonic(), not words, words))
        return words

    def _mail(self):
        """(subject, EmailMessage) of the next mail."""
        subject = f"{self.name} {len(self.tried) + 1}"
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "postfix@example.com", MAILBOX, subject
        message.set_content(f"{subject}\n")
        return subject, message

    def _deliver(self):
        pause = self.INTERVAL
        while not self._end.wait(self.INTERVAL):
            subject, message = self._mail()

            def talk():
                with smtplib.LMTP(ADDRESS, PORTS["dagent"], timeout=self.PATIENCE) as lmtp:
                    self.tried.append(subject)
                    lmtp.send_message(message)
                    self.acknowledged.append(subject)
            words = self._look("dagent", talk)
            self.given_up += "closed: timed out" in words      # as smtplib says it
            if "421" in words:
                self.refused += 1
                pause = min(2 * pause, 30)
                again = time.monotonic() + pause
                while time.monotonic() < again and not self._end.wait(self.INTERVAL):
                    if self.good("gateway", since=time.monotonic() - 2 * self.INTERVAL):
                        break
            else:
                pause = self.INTERVAL

    def _read(self):
        def talk():
            # Not all that could be read once: InnoDB shows a transaction a moment before it is on the disk, so a mail
            # that nobody was promised may be seen, and vanish with a crash.
            there = self.first - 1 + len(self.acknowledged)
            with imaplib.IMAP4(ADDRESS, PORTS["gateway"], timeout=self.PATIENCE) as imap:
                imap.login(USER, PASSWORD)
                answer, found = imap.select("INBOX", readonly=True)
                if answer != "OK":
                    raise imaplib.IMAP4.error(f"SELECT: {found}")
                if int(found[0]) < there:
                    self.vanished.append(f"{there} mails were there or acknowledged, {int(found[0])} could be read")
        while not self._end.wait(self.INTERVAL):
            self._look("gateway", talk)

    def _ask(self):
        account = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        requests = {
            "server": "HEAD / HTTP/1.1\r\nHost: kopano\r\nConnection: close\r\n\r\n",
            "ical": f"GET /ical/{USER}/ HTTP/1.1\r\nHost: kopano\r\nAuthorization: Basic {account}\r\n"
                    "Connection: close\r\n\r\n",
        }

        def talk(service):
            with socket.create_connection((ADDRESS, PORTS[service]), self.PATIENCE) as connection:
                connection.sendall(requests[service].encode())
                line = connection.makefile("rb").readline()
                if not line.startswith(b"HTTP/1.1 200"):
                    raise OSError(line.decode(errors="replace").strip() or "closed without a word")
        while not self._end.wait(self.INTERVAL):
            for service in requests:
                self._look(service, lambda: talk(service))

    # ---- what they saw --------------------------------------------------------------------------------------

    def good(self, service, since):
        """Whether the service's last look began after `since` (time.monotonic()) and was good."""
        looks = self.looks[service]
        return bool(looks) and looks[-1].good and looks[-1].begin > since

    def all_good(self, since):
        """Whether every service was good, the last time a client looked."""
        return all(self.good(service, since) for service in SERVICES)

    def outage(self, service, since=0.0):
        """Seconds for which a service was away since a moment, the longest stretch: between two good looks, when
        there are bad ones between them or the second took long. As exact as INTERVAL and PATIENCE are."""
        longest, last_good, bad = 0.0, None, False
        for look in list(self.looks[service]):
            if look.end < since:
                last_good = look.end
                continue
            if look.good:
                if (bad or look.end - look.begin > self.SLOW) and last_good is not None:
                    longest = max(longest, look.end - max(last_good, since))
                last_good, bad = look.end, False
            else:
                bad = True
        if bad and last_good is not None:
            longest = max(longest, time.monotonic() - max(last_good, since))
        return longest

    def _subjects(self):
        """Subjects of all mails that have come since the begin."""
        return self.site.subjects(first=self.first)

    def lost_or_doubled(self):
        """Words about each mail that is not there exactly once, though acknowledged; or twice, if not."""
        found = Counter(self._subjects())
        wrong = [f"{subject!r} was acknowledged and is there {found[subject]} times"
                 for subject in self.acknowledged if found[subject] != 1]
        wrong += [f"{subject!r} was not acknowledged and is there {found[subject]} times"
                  for subject in set(self.tried) - set(self.acknowledged) if found[subject] > 1]
        return wrong + self.vanished
