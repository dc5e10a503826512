# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-spooler: no port, two permanent connections to the server, outgoing mail by SMTP.

Main thread: the request connection and the queue, every 60 s or when told. Notification thread: its own
connection, looked at once a second. A mail is sent by a thread, or by a child that ignores TERM (fork model).
"""

import os
import select
import signal
import threading
import time

import _launcher

from . import soap
from .config import server_url
from .counters import Counters
from .log import DEBUG, ERROR, INFO, WARNING
from .process import Daemon, LogProcess

_TICK, _RETRY, _LOOK = 60, 3, 1  # seconds
_DRAIN = 60


class Spooler(Daemon):
    name = "spooler"
    refuses_second = True
    pid_file_mode = 0o600
    _message = None  # in a mail child: what it sends

    def option(self, word, value):
        if word == "--send-message-entryid":
            self._message = int(value, 16)

    def _start(self):
        if self._message is None:
            super()._start()
        else:
            self.user = None
            self.log.open(self.config)

    def _client(self):
        return soap.Client(server_url(self.config), self.program)

    def serve(self):
        if self._message is not None:
            return 0 if self._send(self._message) else 1
        self.forking = self.config["process_model"] == "fork"
        self._sending, self._lock = {}, threading.Lock()
        if self.forking:
            LogProcess(self)
        self.counters = Counters(self.name, "sending", "sent")
        self.counters.publish()
        self.slow_start()
        self.catch_signals()
        _launcher.catch(signal.SIGUSR2, False)
        if self.forking:
            _launcher.catch(signal.SIGCHLD, False)
        self._woken = os.pipe()
        self._notify = None  # the notification connection, once there is a session
        self._requests = self._client()
        for target in (self._notifications, threading.Event().wait):
            threading.Thread(target=target, daemon=True).start()
        connected = self._log_on()
        while not self.stopping:
            self._queue()
            if self._lost:
                connected = self._log_on()
                continue
            self._pause(_TICK)
        return self._leave() if connected else 1

    _lost = False

    def _pause(self, seconds):
        """Until something happens. True when the notification thread woke us."""
        for fd in self.wait((_Fd(self._woken[0]),), seconds):
            os.read(fd.fileno(), 64)

    def _wake(self):
        os.write(self._woken[1], b"!")

    def _log_on(self):
        """Until it succeeds or TERM comes. Returns whether it did."""
        retries = 0
        while not self.stopping:
            self.stuck()
            try:
                self._disconnect()
                if self.faults.get("offline") is not None:
                    raise soap.NetworkError("fault")
                self._requests.logon()
                self._requests.call("getStore")
                self._lost = False
                notify = self._client()
                notify.session = self._requests.session
                notify.connect()
                notify.ask("notifyGetItems", (("ulSessionId", notify.session),))
                self._notify = notify
                if retries:
                    self.log(INFO, "Connection to storage server succeeded after %d retries" % retries)
                return True
            except (soap.NetworkError, soap.CallFailed) as error:
                self._disconnect()
                if not retries:
                    self.log(ERROR, ("Unable to open admin session: network error (80040115)" if isinstance(
                        error, soap.NetworkError) else "Unable to open admin session: %s" % error))
                    self.log(WARNING, "Server connection lost. Reconnecting in 3 seconds...")
                retries += 1
                until = time.monotonic() + _RETRY
                while not self.stopping and time.monotonic() < until:
                    self.wait((), until - time.monotonic())
        return False

    def _disconnect(self):
        notify, self._notify = self._notify, None
        if notify is not None:
            notify.close()
        self._requests.close()

    def _notifications(self):
        while True:
            time.sleep(_LOOK)
            self.faults.wedged()
            notify = self._notify
            if notify is None:
                continue
            try:
                if notify._sock is None:  # the server went away: try to get the session back
                    notify.ask("notifyGetItems", (("ulSessionId", notify.session),))
                if not select.select([notify], [], [], 0)[0]:
                    continue
                notify.hear()
                notify.ask("notifyGetItems", (("ulSessionId", notify.session),))
                self._wake()
            except soap.CallFailed:  # a server, but not our session any more
                self._lost = True
                self._notify = None
                notify.close()
                self._wake()
            except (soap.NetworkError, OSError, ValueError):
                pass  # closed by now; the main thread notices at its next tick

    # -- mail

    def _queue(self):
        """Send what waits in the queue."""
        self.stuck()
        if self.faults.get("offline") is not None:
            self._lost = True
            return
        try:
            answer = self._requests.call("standinQueue")
        except soap.NetworkError:
            self._lost = True
            return
        except soap.CallFailed as failure:
            self._lost = (failure.code == soap.END_OF_SESSION
                          )  # a dead database: nothing is noticed, nothing is logged
            return
        for line in (soap.element(answer, "szMessages") or "").split("\n"):
            if not line:
                continue
            number, _, user = line.partition(" ")
            number = int(number)
            with self._lock:
                if number in self._sending.values() or len(
                        self._sending) >= self.config.number("max_threads"):
                    continue
            self._hand_over(number, user)

    def _hand_over(self, number, user):
        if self.forking:
            words = [
                self.argv[0], "--send-message-entryid",
                "%048x" % number, "--send-username", user, "--log-fd", "2", "--config", self.config_path
            ]
            child = os.fork()
            if not child:
                for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    _launcher.ignore(signum)
                _launcher.default(signal.SIGCHLD)
                os.execv(os.readlink("/proc/self/exe"), words)
            self._register(child, number)
        else:

            def run():
                sent = False
                try:
                    sent = self._send(number)
                finally:
                    self._done(threading.get_ident(), sent)

            thread = threading.Thread(target=run, daemon=True)
            with self._lock:
                thread.start()
                self._sending[thread.ident] = number
                self.counters.set("sending", len(self._sending))

    def _register(self, key, number):
        with self._lock:
            self._sending[key] = number
            self.counters.set("sending", len(self._sending))

    def _done(self, key, sent):
        """A mail's thread or child is through; what was not sent waits for the next tick."""
        with self._lock:
            self._sending.pop(key, None)
            self.counters.set("sending", len(self._sending))
        if sent:
            self.counters.add("sent")
        if sent or self.stopping:
            self._wake()

    def signalled(self, number):
        if number == signal.SIGUSR2:
            self.log(DEBUG, "%d mails are being sent" % len(self._sending))
            return
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self._sending:
                self._done(pid, status == 0)

    def _send(self, number):
        """Send one mail. Returns whether it is gone from the queue."""
        import smtplib

        client = self._client()
        try:
            client.logon()
            answer = client.call("standinQueued", ("ulMessage", number))
            with smtplib.SMTP(self.config["smtp_server"], self.config.number("smtp_port")) as smtp:
                smtp.sendmail(soap.element(answer, "szSender"), [soap.element(answer, "szRecipient")],
                              soap.unpacked(soap.element(answer, "sData")))
            client.call("standinSent", ("ulMessage", number))
            return True
        except (soap.NetworkError, soap.CallFailed, OSError, smtplib.SMTPException) as error:
            self.log(ERROR, "E-mail %d could not be sent: %s" % (number, error))
            return False
        finally:
            client.logoff()

    def _leave(self):
        until = time.monotonic() + self.faults.value("drain", _DRAIN)
        if self._sending:
            self.log(WARNING, "Waiting for %d mails that are being sent" % len(self._sending))
        while self._sending and time.monotonic() < until:
            self._pause(max(0, until - time.monotonic()))
        try:
            self._requests.call("logoff")
        except (soap.NetworkError, soap.CallFailed):
            return 1
        return 0


class _Fd:

    def __init__(self, fd):
        self._fd = fd

    def fileno(self):
        return self._fd
