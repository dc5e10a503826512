# SPDX-License-Identifier: GPL-2.0-or-later
"""Pieces that faults are made of: what stands in a daemon's way, and takes itself away again."""
import contextlib
import functools
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time

from contract.looks import SOCKET
from world import DATABASE_PASSWORD

HOSTS = "localhost", "127.0.0.1", "::1", "%"


# ---- database

def root_of(database):
    """A connection as MariaDB's own root, who is let in by the socket."""
    import pymysql

    return pymysql.connect(unix_socket=database.socket, user="root", connect_timeout=5, autocommit=True)


def throw_out(cursor):
    """End all connections of Kopano's user, so that what has changed for it holds at once."""
    cursor.execute("SELECT id FROM information_schema.processlist"
                   " WHERE id <> CONNECTION_ID() AND user = 'kopano'")
    for (number,) in cursor.fetchall():
        with contextlib.suppress(Exception):
            cursor.execute("KILL %d" % number)


@contextlib.contextmanager
def another_password(database):
    """The database takes Kopano's password no more, and nobody stays connected."""
    def set_password(word):
        for host in HOSTS:
            cursor.execute("ALTER USER 'kopano'@%s IDENTIFIED BY %s", (host, word))

    with root_of(database) as connection, connection.cursor() as cursor:
        set_password("something else")
        throw_out(cursor)
        try:
            yield
        finally:
            set_password(DATABASE_PASSWORD)


@contextlib.contextmanager
def read_only(database):
    """The database takes no changes, as after a failed disk or on a replica."""
    with root_of(database) as connection, connection.cursor() as cursor:
        for host in HOSTS:
            cursor.execute("REVOKE SUPER, READ_ONLY ADMIN ON *.* FROM 'kopano'@%s", (host,))
        throw_out(cursor)
        cursor.execute("SET GLOBAL read_only = 1")
        try:
            yield
        finally:
            cursor.execute("SET GLOBAL read_only = 0")
            for host in HOSTS:
                cursor.execute("GRANT ALL ON *.* TO 'kopano'@%s", (host,))


@contextlib.contextmanager
def slow(database, stopped=0.45, running=0.05):
    """The database does a tenth of its work: it is stopped most of the time."""
    over = threading.Event()

    def pace():
        while not over.wait(running):
            os.kill(database.pid, signal.SIGSTOP)
            over.wait(stopped)
            os.kill(database.pid, signal.SIGCONT)

    thread = threading.Thread(target=pace, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# ---- sockets

@contextlib.contextmanager
def stranger_listening(port):
    """Another program's service on a port: it greets as an SMTP server."""
    server = socket.create_server(("127.0.0.1", port))

    def serve():
        while True:
            try:
                client = server.accept()[0]
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.sendall(b"220 mail.example.com ESMTP\r\n")
                client.settimeout(1)
                while client.recv(512):
                    client.sendall(b"500 5.5.1 Command unrecognized\r\n")

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@contextlib.contextmanager
def slow_mta(seconds):
    """An MTA that is silent for so long, and then hangs up: the mail stays in the queue."""
    server = socket.create_server(("127.0.0.1", 25))

    def end():
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        end()


@contextlib.contextmanager
def half_requests(count):
    """Clients that have begun a request and don't end it; each holds a worker of the server for a minute."""
    with contextlib.ExitStack() as held:
        for _ in range(count):
            client = held.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(5)
            client.connect(SOCKET)
            client.sendall(b"POST / HTTP/1.1\r\n")
        yield


# ---- processes

@contextlib.contextmanager
def no_more_files(pid):
    """A process of Kopano's user may open no more files than it needs for itself."""
    free = []
    for _ in range(30):             # clients come and go
        used = {int(number) for number in os.listdir("/proc/%d/fd" % pid)}
        free.append(next(number for number in range(len(used) + 1) if number not in used))
        time.sleep(0.02)
    with open("/proc/%d/limits" % pid, encoding="ascii") as limits:
        before = next(int(line.split()[3]) for line in limits if line.startswith("Max open files"))
    _limit_files(pid, min(free))
    try:
        yield
    finally:
        if os.path.exists("/proc/%d" % pid):
            _limit_files(pid, before)


def _limit_files(pid, number):
    # only its own user may do that without a capability that containers lack
    subprocess.run(["prlimit", "--pid", str(pid), "--nofile=%d:" % number], user="kopano", group="kopano",
                   extra_groups=[], check=True)


# ---- the host

@contextlib.contextmanager
def small_disk(path, size="256k"):
    """A file system of its own, this small, at a directory; its owner stays."""
    owner = os.stat(path)
    options = "size=%s,uid=%d,gid=%d,mode=755" % (size, owner.st_uid, owner.st_gid)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fill(folder):
    """Leave no byte free there."""
    with contextlib.suppress(OSError), open(folder + "/full", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long jump(void) { const char *text = getenv("CLOCK_JUMP"); return text ? atol(text) : 0; }

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
        now->tv_sec += jump();
    return code;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec time;
    int code = clock_gettime(CLOCK_REALTIME, &time);
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return code;
}

time_t time(time_t *into)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into)
        *into = now.tv_sec;
    return now.tv_sec;
}
"""


@functools.lru_cache(maxsize=None)
def _clock():
    path = tempfile.mkdtemp() + "/clock.so"
    subprocess.run(["gcc", "-O", "-shared", "-fPIC", "-o", path, "-x", "c", "-"], input=_CLOCK, text=True,
                   check=True)
    return path


def jumped(seconds):
    """Variables for a program that shall see another time of day; the machine's own clock is everybody's."""
    return {"LD_PRELOAD": _clock(), "CLOCK_JUMP": "%d" % seconds}


def utc(seconds):
    """A moment so many seconds from now, as openssl wants it."""
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + seconds))
