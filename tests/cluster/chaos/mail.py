# SPDX-License-Identifier: GPL-2.0-or-later
"""Mail during a run, in and out, and what became of each: is it there or gone out, how often, and unchanged.

What comes in by LMTP and was acknowledged has to be in the mailbox exactly once, whatever happened.

What goes out is promised less. The spooler hands a mail over to the SMTP server and then tells kopano-server, which
takes it out of the queue: when one of them, MariaDB or their node ends between the two, nobody knows that it has left,
and it is sent again. So a mail that kopano-server has taken leaves at least once; how many left once more is told. The
second time comes after a restart or a failed look at the queue, though. One and the same mail twice within TOGETHER is
the work of two spoolers, and a violation.
"""
import base64
import collections
import email
import email.policy
import imaplib
import itertools
import socket
import sys
import threading
import time
from email.message import EmailMessage
from random import Random

from drills.traffic import Traffic
from kopano_site import ADDRESS, MAILBOX, PASSWORD, PORTS, ROOT, USER
from lab import Lab

sys.path.append(f"{ROOT}/tests")
from world import Soap  # noqa: E402

SMTP_SERVER = f"{Lab.NETWORKS['eth0']}.1"       # the lab's client, outside the nodes
RECIPIENT = "somebody@example.org"
TOGETHER = 0.5              # seconds; a spooler is not restarted in that time
STARTS = ("", "", ".", "..", "\t")           # of lines: SMTP has a rule for some. No "From ": smtplib changes that
AT_ONCE = 200               # mails that are fetched with one command


def text(subject):
    """The text of the mail with that subject: one to sixty lines, as the subject's own dice say."""
    dice = Random(subject)
    return "".join(f"{dice.choice(STARTS)}{dice.getrandbits(280):070x}\n" for _ in range(dice.randrange(1, 61)))


def message(subject, sender, recipient):
    """An EmailMessage."""
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = sender, recipient, subject
    made.set_content(text(subject))
    return made


def opened(data):
    """(subject, whether its text is the one it had) of a mail's bytes."""
    found = email.message_from_bytes(data, policy=email.policy.default)
    subject = str(found["Subject"])
    return subject, found.get_content().splitlines() == text(subject).splitlines()


class Mail(Traffic):
    """The drills' clients, but two of them deliver at a time; and mail that goes out, `outgoing`."""
    CLIENTS = 2

    def __init__(self, site, name):
        super().__init__(site, name)
        self.there = None                   # subject -> how often it is in the mailbox at the end
        self.changed = []                   # words: mails with another text
        self.outgoing = Outgoing(site, name)
        self._numbers = itertools.count(1)
        self._threads += [threading.Thread(target=site.lab.outside, args=(self._deliver,), daemon=True)
                          for _ in range(self.CLIENTS - 1)]

    def __enter__(self):
        self.outgoing.begin()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.outgoing.end()

    def _mail(self):
        subject = f"{self.name} {next(self._numbers)}"
        return subject, message(subject, "postfix@example.com", MAILBOX)

    def _subjects(self):
        mails = [opened(data) for data in self.site.lab.outside(self._fetch)]
        self.there = collections.Counter(subject for subject, _ in mails)
        self.changed = [f"{subject!r} is there with another text" for subject, same in mails if not same]
        return self.there.elements()

    def _fetch(self):
        """All mails since the begin, as bytes."""
        found = []
        with imaplib.IMAP4(ADDRESS, PORTS["gateway"], timeout=30) as imap:
            imap.login(USER, PASSWORD)
            count = int(imap.select("INBOX", readonly=True)[1][0])
            for first in range(self.first, count + 1, AT_ONCE):
                last = min(count, first + AT_ONCE - 1)
                found += [part[1] for part in imap.fetch(f"{first}:{last}", "(BODY.PEEK[])")[1]
                          if isinstance(part, tuple)]
        return found

    def lost_or_doubled(self):
        """As Traffic's, and words about each mail that has another text; about those that went out, too."""
        return super().lost_or_doubled() + self.changed + self.outgoing.wrong()

    def figures(self):
        """Lines for people."""
        yield f"mails delivered: {len(self.acknowledged)} acknowledged, of {len(self.tried)} tried"
        if self.there is not None:
            lost = sum(not self.there[subject] for subject in self.acknowledged)
            doubled = sum(count > 1 for count in self.there.values())
            yield f"    at the end {lost} of these lost, {doubled} doubled, {len(self.changed)} changed"
        yield from self.outgoing.figures()


class Submission(Soap):
    """A conversation with kopano-server over the network."""

    def __init__(self, timeout):
        self._sock = socket.create_connection((ADDRESS, PORTS["server"]), timeout)
        self.session = None


class Outgoing:
    """A user who sends mails, and the SMTP server that they leave by."""
    INTERVAL, PATIENCE, IDLE = 1.0, 3.0, 60.0       # seconds between two; for an answer; for the spooler's next word

    def __init__(self, site, name):
        self.site, self.name = site, name
        self.acknowledged = []              # subjects that kopano-server has taken
        self.left = collections.defaultdict(list)       # subject -> [time.monotonic() of each time it has left]
        self.changed = []                   # words: mails with another text
        self._enough, self._end = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=site.lab.outside, args=(loop,), daemon=True)
                         for loop in (self._serve, self._submit)]

    def begin(self):
        """Begin to send, and to take."""
        for thread in self._threads:
            thread.start()

    def enough(self):
        """Send nothing more."""
        self._enough.set()

    def end(self):
        """Take nothing more, either."""
        self._enough.set()
        self._end.set()
        for thread in self._threads:
            thread.join()

    def all_left(self):
        """Whether each mail that was taken has left."""
        return all(subject in self.left for subject in self.acknowledged)

    def _submit(self):
        for number in itertools.count(1):
            if self._enough.wait(self.INTERVAL):
                break
            subject = f"{self.name} out {number}"
            data = base64.b64encode(message(subject, MAILBOX, RECIPIENT).as_bytes(policy=email.policy.SMTP)).decode()
            try:
                with Submission(self.PATIENCE) as server:
                    if not server.logon(USER, PASSWORD) and not server.er(
                            "standinSubmit", szSender=USER, szRecipient=RECIPIENT, sData=data):
                        self.acknowledged.append(subject)
            except (OSError, AttributeError):       # away; half an answer
                pass

    # ---- the SMTP server -----------------------------------------------------------------------------------

    def _serve(self):
        with socket.create_server((SMTP_SERVER, 25), backlog=50) as listener:
            listener.settimeout(0.3)
            while not self._end.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                connection.settimeout(self.IDLE)
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection):
        try:
            with connection, connection.makefile("rb") as reader:
                connection.sendall(b"220 mail.example.org\r\n")
                while line := reader.readline():
                    answer = b"250 ok\r\n"
                    if line.upper().startswith(b"DATA"):
                        connection.sendall(b"354 go on\r\n")
                        lines = []
                        while (line := reader.readline()) != b".\r\n":
                            if not line:
                                raise EOFError("half a mail")
                            lines.append(line)
                        self._take(b"".join(line[line.startswith(b"."):] for line in lines))
                    elif line.upper().startswith(b"QUIT"):
                        answer = b"221 bye\r\n"
                    connection.sendall(answer)
        except (OSError, EOFError):
            pass                # the spooler, or its node, is gone

    def _take(self, data):
        subject, same = opened(data)
        self.left[subject].append(time.monotonic())
        if not same:
            self.changed.append(f"{subject!r} has left with another text")

    # ---- what became of them -------------------------------------------------------------------------------

    def wrong(self):
        """Words about each mail that was taken and never left, left twice at a time, or with another text."""
        return [*(f"{subject!r} was taken by kopano-server and has never left"
                  for subject in self.acknowledged if subject not in self.left),
                *(f"{subject!r} has left twice within {later - earlier:.2f} s" for subject, times in self.left.items()
                  for earlier, later in zip(times, times[1:]) if later - earlier < TOGETHER),
                *self.changed]

    def figures(self):
        """Lines for people."""
        again = sum(len(times) > 1 for times in list(self.left.values()))
        lost = sum(subject not in self.left for subject in self.acknowledged)
        yield f"mails sent: {len(self.acknowledged)} taken by kopano-server, {lost} of these have never left, " \
              f"{again} have left more than once"
