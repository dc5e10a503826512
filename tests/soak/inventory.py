# SPDX-License-Identifier: GPL-2.0-or-later
"""What daemons and agents hold: descriptors, sockets, threads, sessions, slots, memory, files, processes."""
import collections
import contextlib
import os
import time

from world import DAEMONS, StandinOnly, processes

SETTLED = 90        # seconds after which nothing that a client has left is still closed down
THREADS, SPARE = 8, 10          # kopano-server's threads; MaxSpareServers of Apache's prefork: the defaults of both
# A figure may grow by so much; all others not at all. Memory in kB: a heap keeps what many clients at a time took.
# Each thread of kopano-server makes its connection to MariaDB when it first needs it, and so does the main one.
GROWTH = {"memory": lambda before: before * 0.25 + 4096,
          "MariaDB connections": lambda before: max(0, THREADS + 1 - before),
          "processes of apache2": lambda before: max(0, SPARE + 1 - before)}
FOLDERS = ("/tmp", "/run/kopano", "/dev/shm")


def _lines(path):
    with contextlib.suppress(OSError):
        with open(path, errors="replace") as file:
            return list(file)
    return []


def _of_process(pid):
    """Descriptors, sockets, threads, memory of its own (kB) of a process."""
    links = []
    with contextlib.suppress(OSError):
        for number in os.listdir("/proc/%d/fd" % pid):
            with contextlib.suppress(OSError):
                links.append(os.readlink("/proc/%d/fd/%s" % (pid, number)))
    status = dict(line.split(":", 1) for line in _lines("/proc/%d/status" % pid))
    return {"descriptors": len(links), "sockets": sum(link.startswith("socket:") for link in links),
            "threads": int(status.get("Threads", "0")), "memory": int(status.get("RssAnon", "0").split()[0])}


def connections():
    """Ends of TCP connections in this network namespace that somebody still holds."""
    rows = [line.split()[3] for table in ("tcp", "tcp6") for line in _lines("/proc/net/" + table)[1:]]
    return sum(state not in ("06", "0A") for state in rows)        # TIME_WAIT, LISTEN


def database_clients(world):
    """Connections to MariaDB as user kopano, beside the one that asks."""
    with contextlib.closing(world.database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM information_schema.processlist"
                       " WHERE user = 'kopano' AND id <> CONNECTION_ID()")
        return cursor.fetchone()[0]


def take(world):
    """{figure: value} of this moment; a figure of files or processes is named after each, with how many."""
    found = {}
    for name in DAEMONS:
        pids = world.pids(name)
        found["%s: processes" % name] = len(pids)
        for pid in pids[:1]:
            found.update(("%s: %s" % (name, what), value) for what, value in _of_process(pid).items())
    with contextlib.suppress(StandinOnly):
        found["server: sessions"] = world.counters("server")["sessions"]
        for name in ("dagent", "gateway", "ical"):
            found["%s: clients" % name] = world.counters(name)["clients"]
    found["server: MariaDB connections"] = database_clients(world)
    found["TCP connections"] = connections()
    for name in os.listdir(world.rsctmp):
        found["file %s/%s" % (world.rsctmp, name)] = 1
    for folder in FOLDERS:
        found["files in %s" % folder] = len(os.listdir(folder)) if os.path.isdir(folder) else 0
    counted = collections.Counter((executable, " (zombie)" if state == "Z" else "")
                                  for executable, state, _, _ in processes().values())
    for (executable, zombie), count in counted.items():
        apache = os.path.basename(executable) == "apache2"
        found["processes of %s%s" % ("apache2" if apache else executable, zombie)] = count
    return found


def grown(before, after):
    """["figure: before -> after"] of all that is more than it was, by more than it may be."""
    worse = []
    for figure, value in sorted(after.items()):
        old = before.get(figure, 0)
        allowed = GROWTH.get(figure.rpartition(": ")[2], lambda _: 0)
        if value > old + allowed(old):
            worse.append("%s: %d -> %d" % (figure, old, value))
    return worse


def settled(world, before=None):
    """What is held once clients are gone: when it is no more than before, or else does not shrink any more."""
    limit, last = time.monotonic() + SETTLED, None
    while True:
        now = take(world)
        if now == last and not (before and grown(before, now)) or time.monotonic() > limit:
            return now
        last = now
        time.sleep(0.5)
