# SPDX-License-Identifier: GPL-2.0-or-later
"""What the contract's tests look at and do, in their own words."""
import concurrent.futures
import os
import pwd
import signal
import socket
import subprocess
import threading

from world import DAEMONS, HERE, PORTS, Result, wait_for

LISTENING = ("server", "dagent", "gateway", "ical")
CLIENTS = tuple(name for name in DAEMONS if name != "server")
NAMES = DAEMONS + ("webapp-health",)
AGENTS = os.path.join(os.path.dirname(HERE), "agents")
SOCKET = "/run/kopano/server.sock"


def together(*calls):
    """Results of calls that run at the same time."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return [done.result() for done in [pool.submit(call) for call in calls]]


def says(result, rc, *words, probe=False):
    """The agent ended with this exit code (or one of these) and a reason with these words in it; returns its Result.

    What holds for every run is looked at too: quiet when all is well, one clear line when not, nothing on stdout.
    """
    assert result.rc in (rc if isinstance(rc, tuple) else (rc,)), "rc %s expected: %r" % (rc, result)
    for word in words:
        assert word in result.reason, "%r expected in the reason: %r" % (word, result)
    assert "Traceback" not in result.err and "error in the agent itself" not in result.err, result
    assert result.out == "", result
    if result.rc == 0 or probe and result.rc == 7:
        assert "ocf-exit-reason" not in result.err, result
    else:
        assert result.err.count("ocf-exit-reason:") == 1 and result.reason, result
    return result


def agents(world, names, action, **how):
    """Results of an action on several daemons at the same time: {name: Result}."""
    calls = [lambda name=name: world.agent(name, action, **how) for name in names]
    return dict(zip(names, together(*calls)))


def monitors(world, names, **how):
    """The same, of monitors."""
    return agents(world, names, "monitor", **how)


def start(world, name, rc=0, **how):
    """Start a daemon by its agent."""
    how.setdefault("timeout", 30)
    return says(world.agent(name, "start", **how), rc)


def serve(world, *names, **how):
    """Start these daemons by their agents, a server before its clients."""
    names = tuple(dict.fromkeys(names))
    if "server" in names:
        start(world, "server", **how)
    clients = [name for name in names if name != "server"]
    if clients:
        for result in agents(world, clients, "start", **dict({"timeout": 30}, **how)).values():
            says(result, 0)
    world.wait_ready(*names)


def run(name, *words, env=None, user=None, timeout=20):
    """Run an agent with just these words and variables, as people do; its output by pipe. A Result."""
    who = {}
    if user:
        entry = pwd.getpwnam(user)
        who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    done = subprocess.run([os.path.join(AGENTS, name), *words], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=timeout, env=env or {}, cwd="/", check=False, **who)
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode(), 0.0)


def connections(*ports):
    """Ends of the TCP connections (not listeners) with one of these ports; those closed lately are among them."""
    wanted = {"%04X" % port for port in ports}
    found = set()
    for table in ("tcp", "tcp6"):
        with open("/proc/net/" + table, encoding="ascii") as rows:
            for row in list(rows)[1:]:
                words = row.split()
                if words[3] != "0A" and wanted & {words[1].rpartition(":")[2], words[2].rpartition(":")[2]}:
                    found.add(tuple(sorted(words[1:3])))
    return found


def lmtp_connections():
    """Those to dagent."""
    return connections(PORTS["lmtp"])


def connects(port):
    """Whether somebody on this host accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def state_of(pid):
    """State letter of a process; "" when there is none."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def catches_term(pid):
    """Whether a process has a handler for TERM; the daemons' are gone after the first one."""
    with open("/proc/%d/status" % pid, encoding="utf-8") as file:
        caught = [int(line.split()[1], 16) for line in file if line.startswith("SigCgt:")]
    return bool(caught[0] >> (signal.SIGTERM - 1) & 1)


def lines(path):
    """Lines of a file; none when there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def forget(world):
    """Take away all that agents remember, as a lost HA_RSCTMP does."""
    for name in os.listdir(world.rsctmp):
        os.unlink(os.path.join(world.rsctmp, name))


class Mta:
    """An SMTP server that greets when it is told to; what it took is in .mails."""

    def __init__(self, port=25):
        self.clients, self.mails, self._go = 0, [], threading.Event()
        self._socket = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.greet()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def greet(self):
        """Serve those who wait."""
        self._go.set()

    def wait_for_client(self):
        """Until somebody wants to hand over a mail."""
        wait_for(lambda: self.clients, 15, "nobody connects to the MTA")

    def _accept(self):
        while True:
            try:
                sock = self._socket.accept()[0]
            except OSError:
                return
            self.clients += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        self._go.wait()
        mail = None
        with sock, sock.makefile("rwb", buffering=0) as stream:
            stream.write(b"220 test ESMTP\r\n")
            for line in stream:
                line = line.rstrip(b"\r\n")
                if mail is not None and line == b".":
                    self.mails.append(b"\r\n".join(mail))
                    mail, answer = None, b"250 2.0.0 queued"
                elif mail is not None:
                    mail.append(line)
                    continue
                elif line.upper() == b"DATA":
                    mail, answer = [], b"354 go on"
                elif line.upper() == b"QUIT":
                    stream.write(b"221 bye\r\n")
                    return
                else:
                    answer = b"250 2.0.0 ok"
                stream.write(answer + b"\r\n")
