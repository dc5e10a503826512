# SPDX-License-Identifier: GPL-2.0-or-later
"""What chaos breaks in daemons and MariaDB, and what clients do to them.

A fault is a generator `fault(run, *words)`: it breaks something, yields, and mends it (where that is not the
cluster's own business). It runs in a thread of its own, and things go on happening meanwhile: what it wants to
touch may be gone (Skip), and mending must work in any state.
"""
import imaplib
import signal
import smtplib

from chaos import decoys
from chaos.targets import Skip, daemons, database, listed, send
from kopano_site import ADDRESS, PORTS
from node import processes


def kill(run, name, *names):
    """Daemons die."""
    hit = [process for process in daemons(run, names) if send(getattr(signal, f"SIG{name}"), process)]
    run.broke(f"SIG{name} to {listed(hit)}")
    yield


def stop(run, how_long, found):
    """Processes hang, for a while or until the cluster ends them."""
    hit = [process for process in found if send(signal.SIGSTOP, process)]
    run.broke(f"SIGSTOP to {listed(hit)}, for {how_long}")
    yield
    if how_long == "a while":
        woken = [process for process in hit if send(signal.SIGCONT, process)]
        run.mended(f"SIGCONT to {listed(woken) or 'nobody: they have been replaced'}")


def hang(run, how_long, *names):
    """Daemons hang."""
    yield from stop(run, how_long, daemons(run, names))


def hang_database(run, how_long):
    """MariaDB hangs."""
    yield from stop(run, how_long, [database(run)])


def kill_database(run, knocks):
    """MariaDB dies; each client that knocks at dagent before it is back costs dagent a slot."""
    hit = [process for process in [database(run)] if send(signal.SIGKILL, process)]
    run.broke(f"SIGKILL to {listed(hit)}")
    if int(knocks):
        knock_at_dagent(run, int(knocks))
    yield


def hold_database(run):
    """MariaDB dies and can't start, on no node."""
    run.site.database_may_start(False)
    hit = [process for process in processes(run.lab, "mariadbd") if send(signal.SIGKILL, process)]
    run.broke(f"MariaDB can't start; SIGKILL to {listed(hit)}")
    yield
    run.site.database_may_start(True)
    run.mended("MariaDB can start")


def replace(run, name):
    """A daemon dies, and an innocent process of its name gets its pid, which stands in its pid file."""
    victim = daemons(run, [name])[0]
    node, pid = run.lab[victim.node], decoys.inner_pid(victim.pid)
    if pid is None or not send(signal.SIGKILL, victim):
        raise Skip("it ended just now")
    got = run.guard.add(node, victim.name, pid)
    run.broke(f"SIGKILL to {listed([victim])}; an innocent process has its name"
              f"{' and its pid' if got else ', but not its pid: another one was faster'}")
    yield


# ---- clients -------------------------------------------------------------------------------------------------

def knock_at_dagent(run, times):
    """Connect to dagent and go again; what it said, counted."""
    def talk():
        said = {}
        for _ in range(times):
            if run.over():
                break
            try:
                with smtplib.LMTP(ADDRESS, PORTS["dagent"], timeout=0.5):
                    words = "220"
            except smtplib.SMTPConnectError as error:
                words = str(error.smtp_code)
            except (OSError, smtplib.SMTPException):
                words = "nothing"
            said[words] = said.get(words, 0) + 1
        return said
    said = run.lab.outside(talk)
    run.say(f"{times} clients knocked at dagent, which said: " +
            ", ".join(f"{words} {count} times" for words, count in sorted(said.items())))


def knock(run, times):
    """Many clients knock at dagent, whatever state it is in."""
    run.broke(f"{times} clients knock at dagent")
    knock_at_dagent(run, int(times))
    yield


def idle_clients(run, count):
    """Clients of dagent and gateway connect and say nothing."""
    connections = []

    def connect():
        for _ in range(int(count)):
            for make, name in ((smtplib.LMTP, "dagent"), (imaplib.IMAP4, "gateway")):
                try:
                    connections.append(make(ADDRESS, PORTS[name], timeout=2))
                except (OSError, smtplib.SMTPException, imaplib.IMAP4.error):
                    pass
    run.lab.outside(connect)
    run.broke(f"{len(connections)} clients are connected to dagent and gateway, and idle")
    yield
    for connection in connections:
        if connection.sock:
            connection.sock.close()
    run.mended("idle clients are gone")
