# SPDX-License-Identifier: GPL-2.0-or-later
"""What all six daemons do alike: command line, configuration, privileges, pid file, signals, shutdown."""

import os
import select
import signal
import sys
import time

import _launcher

from . import generation
from .config import Bindspec, Config, bindspecs
from .faults import FOLDER as FAULTS_FOLDER, Faults
from .log import ALWAYS, CRIT, ERROR, REOPEN, WARNING, Log
from .net import BindError, Listener, listen

_REEXEC = "KC_REEXEC_DONE"  # "PID SPEC=FD SPEC=FD...", set for the second life of the process
_OK = 0


class Failure(Exception):
    """The daemon can't start: code is its exit code; the reason is logged already."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Daemon:
    """Base class; a daemon overrides the constants, prepare() and serve()."""

    name = ""
    listens = ()  # (setting, TLS) of its listeners
    config_failed = bind_failed = user_failed = 1
    version_code = 1
    default_config_optional = True
    pid_file_mode = 0o644
    refuses_second = False  # "already running" is fatal
    daemonizes_early = True  # before prepare(); the server does it by itself, once the database has answered
    term_once = True  # the second TERM kills
    main_works = True  # the main thread is what the faults spin and wedge-main are about
    open_files = None  # RLIMIT_NOFILE it asks for

    def __init__(self):
        self.program = "kopano-" + self.name
        self.config = Config(self.name)
        self.log = Log(self.program)
        self.faults = Faults(self.name)
        self.listeners = []
        self.foreground = not generation.DAEMONIZES
        self.config_path, self.config_given, self.ignore_unknown = "", False, False
        self.stopping = False
        self._signals = self._watch = None

    # -- command line

    def options(self, argv):
        """Parse the command line, alike in all but dagent. Returns an exit code or None."""
        import getopt

        try:
            words, _rest = getopt.gnu_getopt(argv[1:], "c:hiFVu:a:", [
                "config=", "help", "version", "foreground", "dump-config", "ignore-unknown-config-options",
                "restart-searches", "ignore-attachment-storage-conflict", "override-multiserver-lock",
                "ignore-database-version-conflict", "ignore-unknown-config-options", "force-database-upgrade",
                "ignore-da", "send-message-entryid=", "send-username=", "log-fd=", "host=", "port="
            ])
        except getopt.GetoptError as error:
            print("%s: %s" % (argv[0], error.msg), file=sys.stderr)
            return 1
        return self.understand(words)

    def understand(self, words):
        """Apply parsed options. Returns an exit code when there is nothing else to do."""
        self.wants_dump = False
        for word, value in words:
            if word in ("-c", "--config"):
                self.config_path, self.config_given = value, True
            elif word in ("-V", "--version"):
                print("%s %s" % (self.program, generation.VERSION))
                return self.version_code
            elif word in ("-h", "--help"):
                print("usage: %s [-F] [-c FILE]" % self.program)
                return self.version_code
            elif word in ("-F", "--foreground"):
                self.foreground = True
            elif word == "--dump-config":
                self.wants_dump = True
            elif word == "--ignore-unknown-config-options":
                self.ignore_unknown = True
            else:
                self.option(word, value)
        return None

    def option(self, word, value):
        """A word that only this daemon knows."""

    # -- start

    def main(self, argv):
        """Run the daemon; returns its exit code."""
        self.argv = argv
        code = self.options(argv)
        if code is not None:
            return code
        if not self.config_given:
            folder = os.environ.get("KOPANO_CONFIG_PATH") or "/etc/kopano"
            self.config_path = os.path.join(folder, self.name + ".cfg")
        self.config_path = os.path.abspath(self.config_path)
        self._load()
        if self.config.errors:
            for line in self.config.errors:
                self.log(CRIT, line)
            return self.config_failed
        if self.wants_dump:
            sys.stdout.write(self.config.dump())
            sys.stdout.flush()
            self.dumped()
            return _OK
        try:
            self._start()
            code = self.serve()
        except Failure as failure:
            code = failure.code
        return code

    def dumped(self):
        """After --dump-config."""

    def _load(self):
        self.config.load(self.config_path, optional=self.default_config_optional and not self.config_given,
                         ignore_unknown=self.ignore_unknown)

    def _start(self):
        again = self._second_life()
        self.user = self._run_as()
        self.log.open(self.config, self.user if os.geteuid() == 0 else None)
        for line in self.config.warnings:
            self.log(WARNING, line)
        self.log(
            ALWAYS, "Starting %s version %s (pid %d uid %d)" %
            (self.program, generation.VERSION, os.getpid(), os.geteuid()))
        if not again:
            failure = self.faults.get("exit")
            if failure is not None:
                sys.stderr.write(" ".join(failure[1:]) + "\n")
                raise Failure(int(failure[0]) if failure else 1)
            self._limits()
            try:
                self.bind()
            except (BindError, ValueError) as error:
                self.log(CRIT, str(error))
                self.bind_went_wrong()
                raise Failure(self.bind_failed)
            self._drop_privileges()
        if os.path.isdir(FAULTS_FOLDER):
            self._watch = _launcher.watch(FAULTS_FOLDER)
        self.prepare()
        if self.daemonizes_early:
            self.into_background()
        os.chdir("/")

    def bind_went_wrong(self):
        """A listener could not be bound; the daemon is about to leave."""

    def bind(self):
        """Open the listeners, still as root. Raises BindError, ValueError."""
        for key, tls in self.listens:
            for spec in bindspecs(self.config, key, tls):
                self.listeners.append(listen(spec))

    def prepare(self):
        """Before it goes into the background, with the final user. May raise Failure."""

    def serve(self):
        """The daemon's life; returns its exit code."""
        raise NotImplementedError

    def _run_as(self):
        """(uid, gid) of run_as_user, or None to stay who we are."""
        if os.geteuid() != 0 or not self.config["run_as_user"]:
            return None
        import grp
        import pwd

        user, group = self.config["run_as_user"], self.config["run_as_group"]
        try:
            entry = pwd.getpwnam(user)
            return entry.pw_uid, grp.getgrnam(group).gr_gid if group else entry.pw_gid
        except KeyError:
            self.log(CRIT, "Looking up user \"%s\" or group \"%s\" failed" % (user, group))
            raise Failure(self.user_failed)

    def _drop_privileges(self):
        """Become run_as_user and execute ourselves anew: same pid, same command line."""
        if self.user is None:
            return
        import grp

        uid, gid = self.user
        name = self.config["run_as_user"]
        os.setgroups([entry.gr_gid for entry in grp.getgrall() if name in entry.gr_mem] + [gid])
        os.setgid(gid)
        os.setuid(uid)
        if uid == 0:
            return
        words = [str(os.getpid())]
        for listener in self.listeners:
            os.set_inheritable(listener.fileno(), True)
            spec = listener.spec
            words.append("%s=%d=%d=%s" % (spec.key, spec.tls, listener.fileno(), spec.text))
        environment = dict(os.environ)
        environment[_REEXEC] = "\n".join(words)
        os.execve(os.readlink("/proc/self/exe"), self.argv, environment)

    def _second_life(self):
        """Take over the listeners when this is the process after its re-execution."""
        words = os.environ.pop(_REEXEC, "").split("\n")
        if words[0] != str(os.getpid()):
            return False
        import socket

        for word in words[1:]:
            key, tls, fd, text = word.split("=", 3)
            os.set_inheritable(int(fd), False)
            self.listeners.append(Listener(Bindspec(text, tls == "1", key), socket.socket(fileno=int(fd))))
        return True

    def _limits(self):
        if self.open_files:
            import resource

            _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(self.open_files, hard), hard))

    def into_background(self):
        """Generation 8: double fork without -F, setsid() with it; then the pid file, where there is one."""
        if generation.DAEMONIZES and not self.foreground:
            self._double_fork()
        elif generation.NEW_SESSION:
            try:
                os.setsid()
            except OSError:
                pass  # it leads a session already
        self._write_pid_file()

    def _double_fork(self):
        sys.stdout.flush()
        sys.stderr.flush()
        if os.fork():
            os._exit(_OK)
        os.setsid()
        if os.fork():
            os._exit(_OK)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)

    def _write_pid_file(self):
        path = self.config["pid_file"]
        if not generation.PID_FILES or not path:
            return
        try:
            with open(path) as file:
                old = int(file.read(32))
            with open("/proc/%d/cmdline" % old, "rb") as file:
                running = old != os.getpid() and self.argv[0].encode() in file.read()
        except (OSError, ValueError):
            running = False
        if running:
            self.log(WARNING, "Warning: Process %s is probably already running." % self.argv[0])
            if self.refuses_second:
                self.log(ERROR, "If you are sure the process is stopped, please remove pidfile %s" % path)
                raise Failure(1)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, self.pid_file_mode)
            os.write(fd, b"%d\n" % os.getpid())
            os.close(fd)
        except OSError as error:
            self.log(ERROR, "Unable to open pidfile '%s': %s" % (path, error.strerror))

    # -- signals and waiting

    def catch_signals(self, reload=True):
        """TERM and INT end the main loop, HUP reloads."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._signals = _launcher.catch(signum, self.term_once)
        if reload:
            _launcher.catch(signal.SIGHUP, False)
        self._follow_faults()

    def _follow_faults(self):
        """Apply what a change of the faults means to the main thread."""
        self.stuck()
        for listener in self.listeners:
            listener.refuse(self.faults.get("refuse", listener) is not None)
        unkillable = self.faults.get("no-term") is not None
        if unkillable != getattr(self, "_unkillable", False):
            self._unkillable = unkillable
            for signum in (signal.SIGTERM, signal.SIGINT):
                _launcher.ignore(signum) if unkillable else _launcher.catch(signum, self.term_once)
        self.faults_changed()

    def stuck(self):
        """Never return from a deadlock, nor from a livelock until it is off, in the main thread."""
        self.faults.wedged()
        if self.main_works:
            self.faults.only_here()

    def faults_changed(self):
        """A fault was switched on or off."""

    def wait(self, ready=(), timeout=None):
        """Wait for one of the given file objects, a signal or a fault; returns those that are ready.

        timeout: seconds, None for ever. After TERM self.stopping is true.
        """
        poll = select.poll()
        objects = {}
        for item in ready:
            if not getattr(item, "refusing", False):
                objects[item.fileno()] = item
                poll.register(item.fileno(), select.POLLIN)
        for fd in (self._signals, self._watch):
            if fd is not None and fd >= 0:
                poll.register(fd, select.POLLIN)
        found = []
        for fd, _event in poll.poll(None if timeout is None else max(0, timeout * 1000)):
            if fd == self._signals:
                self._signalled(os.read(fd, 64))
            elif fd == self._watch:
                os.read(fd, 65536)
                self._follow_faults()
            else:
                found.append(objects[fd])
        return found

    def check_signals(self):
        """Handle signals that came meanwhile, without waiting."""
        self.wait((), 0)

    def _signalled(self, numbers):
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self.stopping = True
            elif number == signal.SIGHUP:
                self._reload()
            else:
                self.signalled(number)

    def signalled(self, number):
        """A signal that only this daemon catches."""

    def _reload(self):
        """HUP: log_level and the log file."""
        fresh = Config(self.name)
        fresh.load(self.config_path, optional=not self.config_given, ignore_unknown=True)
        if fresh.errors:
            self.log(ERROR, "Unable to reload configuration file, continuing with current settings.")
            return
        self.log.level = fresh.number("log_level")
        self.log.reopen()
        self.reloaded(fresh)
        self.log(WARNING, "Log connection was reset")

    def reloaded(self, fresh):
        """The configuration was read again."""

    def slow_start(self):
        """The fault slow-start SECONDS: bound already, but not serving yet."""
        pause = self.faults.value("slow-start", 0)
        if pause:
            time.sleep(pause)


class LogProcess:
    """The fork model's permanent logger child: writes what comes through a pipe until all "
    "writers are gone."""

    def __init__(self, daemon):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(reading)
            daemon.log.through(writing)
            return
        os.close(writing)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
                       signal.SIGPIPE):
            _launcher.ignore(signum)
        for listener in daemon.listeners:
            listener.close()
        try:
            while True:
                data = os.read(reading, 65536)
                if not data:
                    break
                if REOPEN in data:
                    data = data.replace(REOPEN, b"")
                    daemon.log.reopen()
                daemon.log.write(data)
        finally:
            os._exit(_OK)
