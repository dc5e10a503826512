# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-server: SOAP over HTTP, TLS and unix sockets; a pool of workers; its data in MariaDB."""

import collections
import os
import pwd
import select
import signal
import sys
import threading
import time

import _launcher

from . import generation, soap
from .config import Bindspec
from .counters import Counters
from .database import Database, DatabaseError, hashed
from .log import ALWAYS, CRIT, ERROR, INFO, WARNING
from .net import Disturbed, Line, listen, peer_credentials, tls_context
from .process import Daemon, Failure

UPGRADE_LOCK = "/tmp/kopano-upgrade-lock"
_FAILED = 255
_TRIES, _PAUSE = 9, 10  # at the database; seconds
_HELPERS = 14  # threads that real servers have besides main, workers, watchdog and cleaner
_NOTIFY_TIMEOUT = 60  # seconds a call for notifications is held
_IDLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT


class Connection(Line):
    """A client: source is what its sessions are bound to."""

    def __init__(self, sock, address, listener, faults, idle):
        super().__init__(sock, listener, faults, idle)
        self.tls = listener.spec.tls
        self.uid = None
        if listener.spec.path:
            pid, self.uid = peer_credentials(sock)
            self.source = "pid-%d" % pid
        else:
            self.source = address[0]
        self.session = None
        self.parked = False


class Session:

    def __init__(self, user, source):
        self.user, self.source, self.used = user, source, time.monotonic()


class Refusal(Exception):
    """A call fails with this result code."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Server(Daemon):
    name = "server"
    listens = (("server_listen", False), ("server_listen_tls", True))
    config_failed = bind_failed = user_failed = _FAILED
    version_code = 0
    daemonizes_early = False
    open_files = 8192

    def dumped(self):
        sys.stderr.write("[=======] Server shutdown complete.\n")

    def bind(self):
        super().bind()
        if self.config.flag("server_pipe_enabled"):
            for key, mode in (("server_pipe_priority", 0o660), ("server_pipe_name", 0o666)):
                if self.config[key]:
                    self.listeners.append(
                        listen(Bindspec("unix:" + self.config[key], False, key), mode, self.user))

    def bind_went_wrong(self):
        if generation.NUMBER == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    def prepare(self):
        self.context = None
        if any(listener.spec.tls for listener in self.listeners):
            key = self.config["server_ssl_key_file"]
            try:
                self.context = tls_context(key, None, self.config["server_ssl_key_pass"])
            except OSError as error:
                self.log(CRIT, "K-2170: Could not set up TLS with server_ssl_key_file \"%s\": %s" %
                         (key, error))
                raise Failure(_FAILED)
        if self.config["attachment_storage"].startswith("files"):
            try:
                os.makedirs(self.config["attachment_path"], exist_ok=True)
            except OSError as error:
                self.log(
                    CRIT, "Unable to create attachment_path \"%s\": %s" %
                    (self.config["attachment_path"], error.strerror))
                raise Failure(_FAILED)

    # -- start

    def serve(self):
        self.counters = Counters(self.name, "sessions", "workers", "db_calls", "logons", "logoffs",
                                 "requests")
        self.database = Database(self.config, self.log, self.counters, self.faults)
        self._connect_database()
        self.into_background()
        self.counters.publish()
        _launcher.ignore(signal.SIGHUP)
        _launcher.ignore(signal.SIGUSR1)
        self.catch_signals(reload=False)
        try:
            settings = self._schema()
        except DatabaseError as error:
            self.log(CRIT, str(error))
            return _FAILED
        if settings["attachment_storage"] != self.config["attachment_storage"]:
            self.log(
                CRIT, "Attachments are stored with option '%s', but '%s' is selected." %
                (settings["attachment_storage"], self.config["attachment_storage"]))
            return _FAILED
        self.server_guid = soap.packed(bytes.fromhex(settings["server_guid"]))
        self.store_guid = bytes.fromhex(settings["store_guid"])
        self.slow_start()
        self.check_signals()
        if not self.stopping:
            _launcher.catch(signal.SIGHUP, False)
            self._run()
        sys.stderr.write("[=======] Server shutdown complete.\n")
        return 0

    def _connect_database(self):
        pause = self.faults.value("retry", _PAUSE)
        for _try in range(_TRIES):
            try:
                self.database.open()
                return
            except DatabaseError as error:
                self.log(ERROR, str(error))
                self.log(INFO, "Unable to connect, retrying in %gs" % pause)
                time.sleep(pause)
        sys.stderr.write("An error occurred: disk error (0x80000007). Please check the log for details.\n")
        self.log(CRIT, "Unable to connect to the database server")
        raise Failure(_FAILED)

    def _schema(self):
        """The schema step, under the lock file that every start makes."""
        lock = None
        try:
            lock = os.open(UPGRADE_LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self.log(WARNING, "Unable to create %s: %s" % (UPGRADE_LOCK, error.strerror))
        try:
            settings = self.database.schema()
            until = time.monotonic() + self.faults.value("upgrade", 0)
            while time.monotonic() < until and self.faults.get("upgrade") is not None:
                time.sleep(0.02)
            return settings
        finally:
            if lock is not None:
                os.unlink(UPGRADE_LOCK)
                os.close(lock)

    # -- life

    def _run(self):
        self.sessions, self._lock = {}, threading.RLock()
        self._queue, self._work = collections.deque(), threading.Condition()
        self._executing = self._workers = self._resting = 0
        self._connections, self._parked = {}, {}
        self._admins = self._admin_uids()
        self.epoll = select.epoll()
        self._registered = {}
        for fd in (self._signals, self._watch):
            if fd is not None and fd >= 0:
                self.epoll.register(fd, select.EPOLLIN)
        self._register_listeners()
        for _number in range(self.config.number("threads")):
            self._add_worker()
        for target in (self._watchdog, self._cleaner) + (threading.Event().wait,) * _HELPERS:
            threading.Thread(target=target, daemon=True).start()
        self.log(ALWAYS, "Startup succeeded on pid %d" % os.getpid())
        while not self.stopping:
            for fd, event in self.epoll.poll():
                if fd == self._signals or fd == self._watch:
                    self.check_signals()
                elif fd in self._registered:
                    self._accept(self._registered[fd])
                else:
                    self._readable(fd, event)
        with self._work:
            while self._executing:  # a request that waits for a hung database keeps the server from leaving
                self._work.wait()

    def _admin_uids(self):
        uids = {os.geteuid()}
        for name in self.config["local_admin_users"].split():
            try:
                uids.add(pwd.getpwnam(name).pw_uid)
            except KeyError:
                pass
        return uids

    def faults_changed(self):
        if getattr(self, "epoll", None) is not None:
            self._register_listeners()

    def _register_listeners(self):
        for fd in self._registered:
            try:
                self.epoll.unregister(fd)
            except OSError:
                pass
        self._registered = {}
        for listener in self.listeners:
            if not listener.refusing:
                listener.sock.setblocking(False)
                self._registered[listener.fileno()] = listener
                self.epoll.register(listener.fileno(), select.EPOLLIN)

    def _accept(self, listener):
        try:
            sock, address = listener.sock.accept()
        except OSError:
            return
        connection = Connection(sock, address, listener, self.faults,
                                self.config.number("server_read_timeout"))
        fd = sock.fileno()
        self._connections[fd] = connection
        self.epoll.register(fd, _IDLE)

    def _readable(self, fd, event):
        connection = self._connections.get(fd)
        if connection is None:
            return
        if connection.parked:
            self._unpark(connection, gone=True)
        elif event & select.EPOLLHUP:
            self._drop(connection)
        else:
            self._enqueue(connection)

    def _enqueue(self, connection):
        with self._work:
            self._queue.append((time.monotonic(), connection))
            self._work.notify()

    def _drop(self, connection):
        fd = connection.sock.fileno()
        if fd >= 0:
            self._connections.pop(fd, None)
            try:
                self.epoll.unregister(fd)
            except OSError:
                pass
        connection.close()

    # -- workers

    def _add_worker(self):
        self._workers += 1
        self.counters.set("workers", self._workers)
        threading.Thread(target=self._worker, daemon=True).start()

    def _watchdog(self):
        pause = 1 / (self.config.number("watchdog_frequency") or 1)
        oldest = self.config.number("watchdog_max_age") / 1000
        while True:
            time.sleep(pause)
            with self._work:
                for waiting in list(self._queue)[:2]:
                    if time.monotonic() - waiting[0] > oldest and self._workers < self.config.number(
                            "thread_limit"):
                        self._add_worker()

    def _cleaner(self):
        timeout = self.config.number("session_timeout")
        while True:
            time.sleep(1)
            now = time.monotonic()
            with self._lock:
                for number in [n for n, session in self.sessions.items() if now - session.used > timeout]:
                    del self.sessions[number]
                self.counters.set("sessions", len(self.sessions))
                late = [connection for connection, until in self._parked.items() if until < now]
            for connection in late:
                self._unpark(connection)

    def _worker(self):
        while True:
            with self._work:
                self._resting += 1
                while not self._queue or self.stopping:
                    if self._resting > self.config.number(
                            "threads"):  # added by the watchdog, not needed any more
                        self._resting -= 1
                        self._workers -= 1
                        self.counters.set("workers", self._workers)
                        return
                    self._work.wait()
                self._resting -= 1
                connection = self._queue.popleft()[1]
            try:
                keep = self._request(connection)
            except (OSError, EOFError, ValueError, Disturbed):
                keep = False
            except Exception as error:
                self.log(ERROR, "%s: %s" % (type(error).__name__, error))
                keep = False
            if not keep:
                self._drop(connection)
            elif connection.parked:
                self._rearm(connection, select.EPOLLRDHUP | select.EPOLLONESHOT)
            elif connection.pending:
                self._enqueue(connection)
            else:
                self._rearm(connection, _IDLE)

    def _rearm(self, connection, events):
        try:
            self.epoll.modify(connection.sock.fileno(), events)
        except (OSError, ValueError):
            self._drop(connection)

    def _request(self, connection):
        """Answer one request. Returns whether the connection stays open."""
        if connection.tls:
            fd = connection.sock.fileno()
            connection.tls = False
            del self._connections[fd]
            connection.wrap(self.context)
            self._connections[connection.sock.fileno()] = connection
        line = connection.readline()
        while b" HTTP/1." not in line:
            line = connection.readline()
        method, _, version = line.decode("latin-1").partition(" ")
        keep = not version.endswith("HTTP/1.0")
        length = 0
        while True:
            header = connection.readline().decode("latin-1")
            if not header:
                break
            key, _, value = header.partition(":")
            key, value = key.lower(), value.strip()
            if key == "content-length":
                length = int(value)
            elif key == "connection":
                keep = value.lower() == "keep-alive" or keep and value.lower() != "close"
        body = connection.read(length) if length else b""
        self.counters.add("requests")
        with self._work:
            if self.stopping:
                return False
            self._executing += 1
        try:
            if method in ("HEAD", "OPTIONS"):
                status, answer = "200 OK", b""
            elif method == "POST":
                status, answer = self._post(connection, body)
                if answer is None:
                    return True
            else:
                status = "405 Method Not Allowed"
                answer = soap.fault("SOAP-ENV:Client", "HTTP GET method not implemented")
            head = (
                "HTTP/1.1 %s\r\nServer: gSOAP/2.8\r\nX-Frame-Options: SAMEORIGIN\r\nContent-Type: "
                "text/xml; charset=utf-8\r\n"
                "Content-Length: %d\r\nConnection: %s\r\n\r\n" %
                (status, len(answer), "keep-alive" if keep else "close"))
            connection.send(head.encode() + answer)
        finally:
            with self._work:
                self._executing -= 1
                if self.stopping:
                    self._work.notify_all()
        return keep

    # -- calls

    def _post(self, connection, body):
        try:
            call, content = soap.called(body)
        except ValueError:
            return "500 Internal Server Error", soap.fault("SOAP-ENV:Client", "No XML element tag")
        method = getattr(self, "call_" + call, None)
        if method is None:
            return "500 Internal Server Error", soap.fault(
                "SOAP-ENV:Client",
                "Method '%s' not implemented: method name or namespace not recognized" % call)
        try:
            if call == "logon":
                pairs = self.call_logon(connection, content)
            else:
                number = soap.element(content, "ulSessionId") or ""
                connection.session = number
                user = self._session(connection, number)
                pairs = method(connection, user, content)
            if pairs is None:
                return "", None
        except Refusal as refusal:
            pairs = self._refused(call, refusal.code)
        except DatabaseError as error:
            self.log(ERROR, str(error))
            pairs = self._refused(call, soap.DATABASE_ERROR)
        return "200 OK", soap.answer(call, pairs)

    @staticmethod
    def _refused(call, code):
        empty = {
            "logon": (("ulSessionId", 0), ("lpszVersion", ""), ("ulCapabilities", 0)),
            "getStore": (("sStoreId", ""), ("sRootId", ""), ("guid", ""))
        }
        return (("result" if call == "logoff" else "er", code),) + empty.get(call, ())

    def _session(self, connection, number):
        """The user of a session, when it belongs to this peer. Raises Refusal."""
        with self._lock:
            session = self.sessions.get(number)
            if session is None:
                raise Refusal(soap.END_OF_SESSION)
            if session.source != connection.source and self.config.flag("session_ip_check"):
                self.log(
                    WARNING,
                    "Denying access to session from source \"*:%s\" due to unmatched establishing source "
                    "\"*:%s\""
                    % (connection.source, session.source))
                raise Refusal(soap.END_OF_SESSION)
            session.used = time.monotonic()
            return session.user

    def call_logon(self, connection, content):
        user = soap.element(content, "szUsername") or ""
        self.counters.add("logons")
        if soap.element(content, "szImpersonateUser") is None:
            self.log(ERROR, "Invalid argument \"impuser\"")
            raise Refusal(soap.LOGON_FAILED)
        if not int(soap.element(content, "ulCapabilities") or 0) & soap.UNICODE:
            raise Refusal(soap.LOGON_FAILED if generation.NUMBER == 8 else soap.BAD_CHARWIDTH)
        if not self._known(connection, user, soap.element(content, "szPassword") or ""):
            self.log(
                WARNING, "Failed to authenticate user \"%s\" from \"%s\" using program \"%s\"" %
                (user, connection.source, soap.element(content, "szClientApp") or ""))
            raise Refusal(soap.LOGON_FAILED)
        with self._lock:
            number = str(1 << 24 | int.from_bytes(os.urandom(4), "big"))
            self.sessions[number] = Session(user, connection.source)
            self.counters.set("sessions", len(self.sessions))
        return (("er", 0), ("ulSessionId", number), ("lpszVersion", generation.WIRE_VERSION),
                ("ulCapabilities", 39592), ("sLicenseResponse", ""), ("sServerGuid", self.server_guid))

    def _known(self, connection, user, password):
        if user == "SYSTEM":
            return connection.uid is not None and connection.uid in self._admins
        try:
            rows = self.database.query("SELECT salt, password FROM users WHERE name = %s", (user,))
        except DatabaseError as error:
            self.log(ERROR, str(error))
            return False
        return bool(rows) and hashed(rows[0][0], password) == rows[0][1]

    def call_logoff(self, connection, user, content):
        with self._lock:
            del self.sessions[connection.session]
            self.counters.set("sessions", len(self.sessions))
        self.counters.add("logoffs")
        return (("result", 0),)

    def call_getStore(self, connection, user, content):
        if user != "SYSTEM" and not self.database.query("SELECT 1 FROM users WHERE name = %s AND store",
                                                        (user,)):
            raise Refusal(soap.NOT_FOUND)
        self.database.query("SELECT 1 FROM settings LIMIT 1")

        def entry(kind, number):
            return soap.packed(b"\0" * 4 + self.store_guid + b"\0" * 4 + bytes((kind, 0, 0, 0, number))
                               + b"\0" * 7)

        return (("er", 0), ("sStoreId", entry(1, 1)), ("sRootId", entry(3, 2)),
                ("guid", soap.packed(self.store_guid)), ("lpszServerPath", "pseudo://Unknown"))

    def _touch(self, connection, user, content):
        self.database.query("SELECT 1 FROM settings LIMIT 1")
        return (("er", 0),)

    call_resolveUserStore = call_getUserList = call_purgeDeferredUpdates = _touch

    def call_resolveUsername(self, connection, user, content):
        raise Refusal(soap.NOT_FOUND)  # says so with the database dead, too

    def call_getStoreName(self, connection, user, content):
        raise Refusal(soap.INVALID_ENTRYID)  # likewise

    def call_notifyGetItems(self, connection, user, content):
        """Held without a worker until there is something to tell."""
        with self._lock:
            connection.parked = True
            self._parked[connection] = time.monotonic() + _NOTIFY_TIMEOUT

    def _unpark(self, connection, gone=False):
        """Answer a held call for notifications, or forget it when its client is gone."""
        with self._lock:
            if self._parked.pop(connection, None) is None:
                return
            connection.parked = False
        if gone:
            self._drop(connection)
            return
        body = soap.answer("notifyGetItems", (("er", 0),))
        try:
            connection.sock.sendall(
                b"HTTP/1.1 200 OK\r\nServer: gSOAP/2.8\r\nX-Frame-Options: SAMEORIGIN\r\nContent-Type: "
                b"text/xml; "
                b"charset=utf-8\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n" % len(body) + body)
            self._rearm(connection, _IDLE)
        except OSError:
            self._drop(connection)

    # -- our own calls: mail

    def call_standinResolve(self, connection, user, content):
        """A recipient's address or name -> user."""
        address = soap.element(content, "szAddress") or ""
        rows = self.database.query(
            "SELECT name, store, disabled FROM users WHERE email = %s OR name = %s OR name = %s",
            (address, address, address.partition("@")[0]))
        if not rows:
            raise Refusal(soap.NOT_FOUND)
        return (("er", 0), ("szUsername", rows[0][0]), ("ulStore", rows[0][1]), ("szDisabled", rows[0][2]),
                ("szDisabledHere", self.config["disabled_features"]))

    def call_standinDeliver(self, connection, user, content):
        data = soap.unpacked(soap.element(content, "sData"))
        number = self.database.query(
            "INSERT INTO messages (user, folder, received, size, content) VALUES (%s, %s, %s, %s, %s)",
            (soap.element(content, "szUsername"), soap.element(content, "szFolder"), int(
                time.time()), len(data), data))
        return (("er", 0), ("ulMessage", number))

    def call_standinList(self, connection, user, content):
        rows = self.database.query(
            "SELECT id, size, received, flags FROM messages WHERE user = %s AND folder = %s ORDER BY id",
            (user, soap.element(content, "szFolder")))
        return (("er", 0), ("szMessages", "\n".join("%d %d %d %s" % row for row in rows)))

    def call_standinFetch(self, connection, user, content):
        rows = self.database.query("SELECT content FROM messages WHERE user = %s AND id = %s",
                                   (user, int(soap.element(content, "ulMessage"))))
        if not rows:
            raise Refusal(soap.NOT_FOUND)
        return (("er", 0), ("sData", soap.packed(rows[0][0])))

    def call_standinFlag(self, connection, user, content):
        self.database.query("UPDATE messages SET flags = %s WHERE user = %s AND id = %s",
                            (soap.element(content, "szFlags"), user, int(soap.element(content, "ulMessage"))))
        return (("er", 0),)

    def call_standinDelete(self, connection, user, content):
        self.database.query("DELETE FROM messages WHERE user = %s AND id = %s",
                            (user, int(soap.element(content, "ulMessage"))))
        return (("er", 0),)

    def call_standinSubmit(self, connection, user, content):
        """Put a mail into the outgoing queue; whoever waits for notifications is told."""
        data = soap.unpacked(soap.element(content, "sData"))
        sender = soap.element(content, "szSender") or user
        number = self.database.query("INSERT INTO outgoing (user, recipient, content) VALUES (%s, %s, %s)",
                                     (sender, soap.element(content, "szRecipient"), data))
        with self._lock:
            parked = list(self._parked)
        for waiting in parked:
            self._unpark(waiting)
        return (("er", 0), ("ulMessage", number))

    def call_standinQueue(self, connection, user, content):
        rows = self.database.query("SELECT id, user FROM outgoing ORDER BY id")
        return (("er", 0), ("szMessages", "\n".join("%d %s" % row for row in rows)))

    def call_standinQueued(self, connection, user, content):
        rows = self.database.query(
            "SELECT o.recipient, IFNULL(u.email, o.user), o.content FROM outgoing o LEFT JOIN users u"
            " ON u.name = o.user WHERE o.id = %s", (int(soap.element(content, "ulMessage")),))
        if not rows:
            raise Refusal(soap.NOT_FOUND)
        recipient, sender, data = rows[0]
        return (("er", 0), ("szRecipient", recipient), ("szSender", sender),
                ("sData", soap.packed(data)))

    def call_standinSent(self, connection, user, content):
        self.database.query("DELETE FROM outgoing WHERE id = %s", (int(soap.element(content, "ulMessage")),))
        return (("er", 0),)

    # -- our own calls: users (kopano-admin)

    def _only_system(self, user):
        if user != "SYSTEM":
            raise Refusal(soap.LOGON_FAILED)

    def call_standinAddUser(self, connection, user, content):
        self._only_system(user)
        name, salt = soap.element(content, "szUsername"), os.urandom(8)
        if self.database.query("SELECT 1 FROM users WHERE name = %s", (name,)):
            raise Refusal(soap.COLLISION)
        self.database.query(
            "INSERT INTO users VALUES (%s, %s, %s, %s, %s, %s, '')",
            (name, soap.element(content, "szEmail"), salt,
             hashed(salt,
                    soap.element(content, "szPassword") or ""), soap.element(content, "szFullname")
             or name, int(soap.element(content, "ulStore") or 1)))
        return (("er", 0),)

    def call_standinDeleteUser(self, connection, user, content):
        self._only_system(user)
        name = soap.element(content, "szUsername")
        if not self.database.query("SELECT 1 FROM users WHERE name = %s", (name,)):
            raise Refusal(soap.NOT_FOUND)
        for table, column in (("messages", "user"), ("outgoing", "user"), ("users", "name")):
            self.database.query("DELETE FROM %s WHERE %s = %%s" % (table, column), (name,))
        return (("er", 0),)

    def call_standinUsers(self, connection, user, content):
        self._only_system(user)
        rows = self.database.query("SELECT name, email FROM users ORDER BY name")
        return (("er", 0), ("szUsers", "\n".join("%s %s" % row for row in rows)))
