#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What keeps a host busy: processors, memory, a disk, and Kopano's daemons with what their clients do.

`load.py KIND [ARGUMENT...]` is one process of it, which runs until its standard input ends, and then writes
what it has done as JSON. Load starts and ends them. All is bounded: see the constants.
"""
import collections
import contextlib
import json
import mmap
import os
import random
import select
import signal
import smtplib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path.insert(0, TESTS)

PIECE = 128 << 20               # bytes that are allocated at a time
FILE, BLOCK, WRITES = 64 << 20, 1 << 20, 10     # bytes of the file, of a write; writes a second, each with fsync

# Limits of the daemons, as soak.py configures them; and clients, who come near to them. Monitors need some of both.
SLOTS, WORKERS = 20, 10         # of dagent; of kopano-server
LMTP, IMAP, IDLE, SOAP, SLOW, PAGES = 16, 8, 8, 2, 7, 1
PATIENCE = 60                   # seconds a client waits
USERS = ["soak%d" % number for number in range(LMTP)]
PASSWORD = "secret"


def available():
    """Bytes of memory that can be had without pushing anybody out (MemAvailable of proc(5))."""
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))


def ended(seconds=0.0):
    """Whether the one who started this process wants it to end; waits so long for that."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


# ---- one process each ------------------------------------------------------------------------------------

def burn():
    """One processor."""
    while not ended():
        for _ in range(200000):
            pass
    return {}


def hold(leave, most):
    """Memory: all but `leave` bytes of what is available, `most` bytes at most; given back when others need it.

    Writes a line as soon as it has that. From then on it looks five times a second.
    """
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")      # the first to go, should it come to that
    os.nice(-10)                # and quick to give something back beside those that compute
    pieces, looks, full = [], [], False
    while not ended(0.2 if full else 0):
        if available() > leave + PIECE and (len(pieces) + 1) * PIECE <= most:
            pieces.append(mmap.mmap(-1, PIECE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE))
        elif not full:
            full = True
            print("held", flush=True)
        while available() < leave and pieces:
            pieces.pop().close()
        if full:
            looks.append((len(pieces) * PIECE, available()))
    held, left = zip(*looks) if looks else ((0,), (available(),))
    return {"bytes held": sum(held) // len(held), "bytes available": sum(left) // len(left),
            "bytes available at least": min(left)}


def write(folder):
    """A disk: blocks written and synced, over and over, in a file that has no name."""
    written, noise = 0, os.urandom(BLOCK)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        while not ended(1 / WRITES):
            file.seek(written * BLOCK % FILE)
            file.write(noise)
            os.fsync(file.fileno())
            written += 1
    return {"bytes written": written * BLOCK}


# ---- clients of the daemons ------------------------------------------------------------------------------

class Traffic:
    """Clients, a thread each, every kind with its own rhythm; counts what they did and what failed."""

    def __init__(self):
        from world import PORTS, Soap
        self.ports, self.soap = PORTS, Soap
        self.over = threading.Event()
        self.done, self.failed, self.lock = collections.Counter(), collections.Counter(), threading.Lock()

    def count(self, what, failure=None, step=1):
        """One more of this kind, or so many."""
        with self.lock:
            if failure is None:
                self.done[what] += step
            else:
                self.failed["%s: %s: %s" % (what, type(failure).__name__, failure)] += 1

    def pause(self, least, most):
        """As people and programs do; True when it is all over."""
        return self.over.wait(random.uniform(least, most))

    def repeat(self, what, once):
        """once() until it is all over."""
        while not self.over.is_set():
            try:
                once()
            except Exception as failure:        # whatever it is: a client that was not served
                self.count(what, failure)
            self.pause(0.1, 0.5)

    def lmtp(self, user):
        """An MTA that holds its connection, and with it a slot, for a few mails."""
        with smtplib.LMTP("127.0.0.1", self.ports["lmtp"], local_hostname="soak") as client:
            client.sock.settimeout(PATIENCE)
            for number in range(4):
                client.sendmail("sender@example.org", [user + "@example.com"],
                                "Subject: soak\r\n\r\n%s\r\n" % ("x" * random.randrange(200, 20000)))
                self.count("mails delivered")
                if self.pause(1, 4):
                    return

    def login(self, user):
        """An IMAP connection that has logged in."""
        import imaplib
        client = imaplib.IMAP4("127.0.0.1", self.ports["imap"], timeout=PATIENCE)
        client.login(user, PASSWORD)
        self.count("IMAP logins")
        return client

    def read(self, user):
        """A mail client that fetches what has come, and deletes it."""
        client = self.login(user)
        try:
            client.select("INBOX")
            for number in client.search(None, "ALL")[1][0].split():
                assert client.fetch(number, "(RFC822)")[0] == "OK"
                client.store(number, "+FLAGS", "\\Deleted")
                self.count("mails read")
            client.expunge()
            self.pause(1, 3)
        finally:
            client.logout()

    def idle(self, user):
        """A mail client that is left open."""
        client = self.login(user)
        try:
            client.select("INBOX", readonly=True)
            for _ in range(10):
                if self.pause(1, 3):
                    break
                client.noop()
        finally:
            client.logout()

    def ask(self):
        """A program that uses kopano-server directly."""
        with self.soap("/run/kopano/server.sock", PATIENCE) as client:
            assert client.logon() == 0
            for _ in range(20):
                assert client.er("getStore") == 0
                self.count("SOAP calls")
                if self.pause(0.02, 0.1):
                    break

    def slow(self):
        """A client behind a bad line: its request comes in two halves, and occupies a worker in between."""
        with self.soap("/run/kopano/server.sock", PATIENCE) as client:
            for _ in range(10):
                client.send(b"HEAD / HTTP/1.1\r\n")
                begun = time.monotonic()
                self.pause(0.5, 2)
                self.count("seconds of slow requests", step=time.monotonic() - begun)
                assert " 200 " in client.exchange(b"Host: x\r\n\r\n", body=False)[0]
                self.count("slow requests")
                if self.over.is_set():
                    break

    def page(self):
        """A browser."""
        with urllib.request.urlopen("http://localhost/webapp/", timeout=PATIENCE) as answer:
            assert b"password" in answer.read()
        self.count("pages")
        self.pause(0.2, 1)

    def run(self):
        """All of them, until standard input ends."""
        what = [("LMTP", lambda user=user: self.lmtp(user)) for user in USERS[:LMTP]]
        what += [("IMAP", lambda user=user: self.read(user)) for user in USERS[:IMAP]]
        what += [("idle IMAP", lambda user=user: self.idle(user)) for user in USERS[-IDLE:]]
        what += [("SOAP", self.ask)] * SOAP + [("slow SOAP", self.slow)] * SLOW + [("pages", self.page)] * PAGES
        threads = [threading.Thread(target=self.repeat, args=entry, daemon=True) for entry in what]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        while not ended(1):
            pass
        seconds = time.monotonic() - begun
        self.over.set()
        for thread in threads:
            thread.join(PATIENCE)
        self.done["seconds"] = seconds
        return {"done": self.done, "failed": self.failed}


# ---- the whole of it -------------------------------------------------------------------------------------

class Load:
    """Context manager: the load lies on this host while it is open; .told is what each process has done.

    burners         processes that only compute
    leave, memory   bytes of memory to leave alone; the most to take (0: none)
    folder          on the disk that is to be busy; None: none
    """

    def __init__(self, burners=0, leave=4 << 30, memory=0, folder=None):
        self.words = [["hold", leave, memory]] if memory else []
        self.words += [["traffic"]] + [["burn"]] * burners
        if folder:
            self.words.append(["write", folder])
        self.leave, self.memory = leave, memory
        self.told, self._running = [], []

    def __enter__(self):
        for words in self.words:
            self._running.append(subprocess.Popen(
                [sys.executable, os.path.abspath(__file__)] + [str(word) for word in words],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            if words[0] == "hold":      # it comes first, and would take minutes beside the others
                self._running[0].stdout.readline()
        return self

    def lost(self):
        """Kinds of load that have ended by themselves."""
        return [words[0] for words, process in zip(self.words, self._running) if process.poll() is not None]

    def __exit__(self, *_error):
        lost = self.lost()
        for process in self._running:
            process.stdin.close()
        for words, process in zip(self.words, self._running):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2 * PATIENCE)
            process.kill()
            with process.stdout:
                text = process.stdout.read()
            self.told.append((words[0], json.loads(text or "{}")))
            process.wait()
        for name in lost:
            self.told.append((name, {"failed": {"%s ended by itself" % name: 1}}))

    def failures(self):
        """What clients were refused, with how often: the daemons were not well then, or overloaded."""
        return [(what, count) for _, told in self.told for what, count in told.get("failed", {}).items()]

    def figures(self):
        """{what: how much} of all that it has done; memory is the mean of all looks at it."""
        figures = {}
        for _, told in self.told:
            figures.update(told.get("done", told))
        figures.pop("failed", None)
        return figures


def main():
    """One process of the load."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C ends it by way of standard input
    kind, words = sys.argv[1], sys.argv[2:]
    if kind == "traffic":
        told = Traffic().run()
    elif kind == "hold":
        told = hold(int(words[0]), int(words[1]))
    else:
        told = {"burn": burn, "write": write}[kind](*words)
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
