# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole Kopano host for tests: database, configuration, daemons, mail, and agents as Pacemaker runs them.

Meant for a sandbox (namespaces of its own): it uses the default paths and ports. The daemons are stand-ins
of a generation, or real ones where KOPANO_SBIN points; what only stand-ins can do raises StandinOnly.
"""

import contextlib
import fcntl
import glob
import http.client
import imaplib
import os
import poplib
import re
import select
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "standin"))
import build  # noqa: E402
import fault  # noqa: E402

try:
    from _pytest.outcomes import Skipped as _Skipped
except ImportError:
    _Skipped = Exception

DAEMONS = build.DAEMONS
CACHE = "/var/tmp/kopano-world-%d" % os.getuid()
PORTS = {
    "soap": 236, "soaps": 237, "lmtp": 2003, "imap": 143, "imaps": 993, "pop3": 110, "pop3s": 995,
    "caldav": 8080, "caldavs": 8443
}
DATABASE_PASSWORD = "s3cret of kopano"
_REASON = re.compile(r"ocf-exit-reason:(.*)")


class StandinOnly(_Skipped):
    """Real daemons can't be made to do this: under pytest the test is skipped."""


class Timeout(AssertionError):
    """What a test waited for did not happen in time."""


def wait_for(condition, timeout=10, what=""):
    """Call condition() until it returns something true; return that. Raises Timeout after so many seconds."""
    deadline = time.monotonic() + timeout
    while True:
        asked = time.monotonic()
        found = condition()
        if found:
            return found
        now = time.monotonic()
        if now > deadline:
            raise Timeout("after %g s: %s" %
                          (timeout, what or getattr(condition, "__doc__", None) or condition))
        time.sleep(max(0.01, now - asked))          # to ask takes half of the time at most


class Result:
    """What an agent did: rc (None when Pacemaker's timeout killed it), out, err, reason.

    took, cpu: seconds by the clock, and of CPU (the agent's children included)
    """

    def __init__(self, rc, out, err, took, cpu=0.0):
        self.rc, self.out, self.err, self.took, self.cpu = rc, out, err, took, cpu
        found = _REASON.findall(err)
        self.reason = found[-1].strip() if found else ""

    def __repr__(self):
        return "Result(rc=%s, reason=%r, took=%.2f, out=%r, err=%r)" % (self.rc, self.reason, self.took,
                                                                        self.out[-500:], self.err[-800:])


class Started:
    """A daemon started by hand. pid is what the shell's $! would be; rc is None while that process lives.

    reap: collect it as soon as it ends; else it stays a zombie until reap() is called.
    """

    def __init__(self, process, output, reap=True):
        self._process, self._output = process, output
        self.pid = process.pid
        self._over = threading.Event()
        if reap:
            self.reap()

    def reap(self):
        """Collect it when it ends, as any parent should."""
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self):
        self._process.wait()
        self._over.set()

    @property
    def rc(self):
        """Exit code, negative for a signal, None while it runs."""
        return self._process.returncode if self._over.is_set() else None

    def wait(self, timeout=30):
        """Exit code once it has ended. Raises Timeout."""
        if not self._over.wait(timeout):
            raise Timeout("pid %d still runs after %g s" % (self.pid, timeout))
        return self._process.returncode

    @property
    def output(self):
        """What it wrote to stdout and stderr."""
        with open(self._output, errors="replace") as file:
            return file.read()


def processes():
    """pid -> (executable, state letter, parent, command line words) of everything in this pid namespace.

    A process on its way out loses its memory, and with it executable and command line, before its sockets
    are closed: it then goes by "(NAME)". A zombie main thread while other threads run is given as X.
    """
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % entry) as file:
                head, _, rest = file.read().rpartition(")")
            rest = rest.split()
            state = "X" if rest[0] == "Z" and rest[17] not in "01" else rest[0]
            with open("/proc/%s/cmdline" % entry, "rb") as file:
                words = file.read().decode(errors="replace").split("\0")[:-1]
            try:
                executable = os.readlink("/proc/%s/exe" % entry)
            except OSError:
                executable = "(%s)" % head.partition("(")[2]
        except OSError:
            continue
        if executable.endswith(" (deleted)"):
            executable = executable[:-10]
        found[int(entry)] = (executable, state, int(rest[1]), words)
    return found


def _ended(process, timeout):
    """Wait for a child: (exit code, CPU seconds). After so many seconds it is killed, and the code is None."""
    handle, ended = os.pidfd_open(process.pid), select.poll()
    ended.register(handle, select.POLLIN)
    in_time = ended.poll(timeout * 1000)
    os.close(handle)
    if not in_time:
        process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode if in_time else None, usage.ru_utime + usage.ru_stime


def _stand_still(pids):
    """SIGSTOP takes a moment where there are many threads."""
    wait_for(lambda: all(entry[1] in "TZX" for pid, entry in processes().items() if pid in pids))


class Client(socket.socket):
    """A connected client; greeting is what the service said first."""

    greeting = b""


class Database:
    """A real mariadbd on a private data directory, with a user for Kopano."""

    def __init__(self, folder):
        self.folder = folder
        self.socket = "/run/mysqld/mysqld.sock"
        self.port = 3306
        self._process = None

    @staticmethod
    def _options(data, sock, *more):
        return [
            "mariadbd", "--no-defaults", "--user=mysql", "--datadir=" + data, "--socket=" + sock,
            "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M",
            "--innodb-flush-log-at-trx-commit=2", "--innodb-use-native-aio=0", "--skip-name-resolve",
            "--performance-schema=OFF", "--key-buffer-size=1M", "--aria-pagecache-buffer-size=1M",
            "--table-open-cache=64", "--max-connections=500", "--skip-log-bin", "--thread-stack=256K"
        ] + list(more)

    def _template(self):
        """Data directory to copy: made once per version of MariaDB, with Kopano's user in it."""
        version = subprocess.run(["mariadbd", "--version"], capture_output=True, text=True, check=True).stdout
        name = re.sub(r"[^0-9A-Za-z.]+", "-", version.split("Ver ")[-1].split(" ")[0])
        place = os.path.join(CACHE, "mariadb-" + name)
        os.makedirs(CACHE, exist_ok=True)
        with open(os.path.join(CACHE, "lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.isdir(place):
                work = tempfile.mkdtemp(dir=CACHE)
                os.chmod(work, 0o755)
                data = os.path.join(work, "data")
                subprocess.run([
                    "mariadb-install-db", "--no-defaults", "--user=mysql", "--datadir=" + data,
                    "--skip-test-db", "--innodb-log-file-size=8M", "--innodb-use-native-aio=0",
                    "--skip-name-resolve"
                ], check=True, capture_output=True)
                hosts = "localhost", "127.0.0.1", "::1", "%"
                script = "FLUSH PRIVILEGES;\n" + "".join(
                    "CREATE USER 'kopano'@'%s' IDENTIFIED BY '%s';\nGRANT ALL ON *.* TO 'kopano'@'%s';\n"
                    % (host, DATABASE_PASSWORD, host) for host in hosts)
                subprocess.run(self._options(data, os.path.join(work, "none.sock"), "--bootstrap"),
                               input=script, text=True, check=True, capture_output=True)
                os.rename(data, place)
                shutil.rmtree(work, ignore_errors=True)
        return place

    def start(self, wait=True):
        """Start it; the first time from the template."""
        if self.running:
            self.thaw()
            return self
        if not os.path.isdir(self.folder):
            os.makedirs(os.path.dirname(self.folder), exist_ok=True)
            subprocess.run(["cp", "-a", self._template(), self.folder], check=True)
        os.makedirs("/run/mysqld", exist_ok=True)
        shutil.chown("/run/mysqld", "mysql", "mysql")
        with open(self.folder + ".log", "ab") as log:
            self._process = subprocess.Popen(
                self._options(self.folder, self.socket, "--pid-file=/run/mysqld/mysqld.pid",
                              "--bind-address=127.0.0.1", "--port=%d" % self.port), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True)
        if wait:
            wait_for(self.answers, 30, "MariaDB does not start, see %s.log" % self.folder)
        return self

    @property
    def pid(self):
        return self._process.pid

    @property
    def started(self):
        """Whether start() was ever called."""
        return self._process is not None

    @property
    def running(self):
        return self._process is not None and self._process.poll() is None

    def answers(self):
        """Whether a login succeeds."""
        try:
            self.connect(timeout=1).close()
            return True
        except Exception:
            return False

    def connect(self, timeout=10):
        """A PyMySQL connection as kopano."""
        import pymysql

        return pymysql.connect(unix_socket=self.socket, user="kopano", password=DATABASE_PASSWORD,
                               connect_timeout=timeout, read_timeout=timeout, autocommit=True)

    def _end(self, signum):
        if self.running:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signum)
            self._process.wait(60)

    def stop(self):
        """An orderly stop."""
        self._end(signal.SIGTERM)

    def kill(self):
        self._end(signal.SIGKILL)

    def freeze(self):
        """SIGSTOP: accepts connections, says nothing."""
        self._process.send_signal(signal.SIGSTOP)
        _stand_still([self.pid])

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)


class World:
    """See the module's text. settings: {"server": {"log_level": "6"}, ...}; None takes a line away."""

    _current = None

    def __init__(self, generation=11, sbin=None, root="/", tls=False, settings=None):
        if World._current is not None:
            World._current.close()
        World._current = self
        self._made_by = (generation, sbin, root, tls, settings)
        self._started, self._held, self.users = [], [], {}
        self.database = None
        self.root = root
        sbin = sbin or os.environ.get("KOPANO_SBIN")
        self.real = bool(sbin)
        self.etc, self.run, self.log, self.lib = [
            os.path.join(root, part, "kopano") for part in ("etc", "run", "var/log", "var/lib")
        ]
        self._private()
        self.prefix = os.path.join(root, "run/kopano-world")
        shutil.rmtree(self.prefix, ignore_errors=True)
        os.makedirs(self.prefix)
        if self.real:
            self.sbin = sbin
            self.generation = self._real_generation()
        else:
            self.generation = generation
            self.sbin = build.build(self.prefix, generation)
        self.tls = tls
        self.rsctmp = "/run/resource-agents"
        os.makedirs(self.rsctmp, exist_ok=True)
        self._sweep()
        self.database = Database(os.path.join(self.prefix, "mysql"))
        self.settings = {name: self._default_settings(name) for name in DAEMONS}
        if tls:
            self._certificates()
        for name, changes in (settings or {}).items():
            self.settings[name].update(changes)
        for name in DAEMONS:
            self.write_config(name)
        self.outputs = 0
        self._pristine = {name: dict(values) for name, values in self.settings.items()}

    @classmethod
    def shared(cls, generation=11, sbin=None, root="/", tls=False, settings=None):
        """For fixtures: the world that is there, reset, when it was made with the same words; "
        "else a new one."""
        current = cls._current
        if current is not None and current._made_by == (generation, sbin, root, tls, settings):
            current.reset()
            return current
        return cls(generation, sbin, root, tls, settings)

    # -- the host

    def _private(self):
        """Directories with their owners; the sandbox has made them ours alone."""
        if self.root == "/" and os.environ.get("KOPANO_OCF_SANDBOX") != "1":
            raise RuntimeError("World uses the default paths and ports: run it inside the tests' sandbox")
        for path in (self.etc, self.log, self.lib):
            os.makedirs(path, exist_ok=True)
        os.makedirs(self.run, exist_ok=True)
        for path in (self.run, self.log, self.lib):
            shutil.chown(path, "kopano", "kopano")
        os.chmod(self.run, 0o775)

    def _real_generation(self):
        out = subprocess.run([os.path.join(self.sbin, "kopano-server"), "-V"], capture_output=True,
                             text=True).stdout
        major = int(re.search(r"(\d+)\.\d+\.\d+", out).group(1))
        return 8 if major <= 8 else 9 if major == 9 else 11

    def _default_settings(self, name):
        found = {"log_method": "file", "log_file": "%s/%s.log" % (self.log, name), "log_level": "5"}
        if self.generation < 10:
            found["pid_file"] = "%s/%s.pid" % (self.run, name)
        if name == "server":
            found.update({
                "local_admin_users": "root kopano", "mysql_host": "127.0.0.1",
                "mysql_port": str(self.database.port), "mysql_user": "kopano",
                "mysql_password": DATABASE_PASSWORD, "mysql_database": "kopano",
                "attachment_path": self.lib + "/attachments",
                "user_plugin": "db", "disabled_features": "", "search_enabled": "no", "surveyclient_url": ""
            })
            found.update({
                "%s%s_script" % (verb, what): "/bin/true"
                for verb in ("create", "delete")
                for what in ("user", "group", "company")
            })
        if name == "spooler":
            found.update({"smtp_server": "127.0.0.1", "smtp_port": "25"})
        if self.root != "/":
            if name == "server":
                found.update(server_pipe_name=self.run + "/server.sock",
                             server_pipe_priority=self.run + "/prio.sock")
            else:
                found["server_socket"] = "file://%s/server.sock" % self.run
        return found

    def _certificates(self):
        """A self-signed certificate for all TLS listeners, made once."""
        pem = os.path.join(CACHE, "localhost.pem")
        os.makedirs(CACHE, exist_ok=True)
        if not os.path.exists(pem):
            work = tempfile.mkdtemp(dir=CACHE)
            key, crt = os.path.join(work, "key"), os.path.join(work, "crt")
            subprocess.run([
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-nodes", "-days", "3650", "-subj", "/CN=localhost", "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", crt
            ], check=True, capture_output=True)
            with open(pem + ".new", "w") as out:
                out.write(open(key).read() + open(crt).read())
            os.rename(pem + ".new", pem)
            shutil.rmtree(work)
        self.certificate = self.etc + "/localhost.pem"
        shutil.copy(pem, self.certificate)
        os.chmod(self.certificate, 0o640)
        shutil.chown(self.certificate, "root", "kopano")
        self.settings["server"].update(server_listen_tls="*:237", server_ssl_key_file=self.certificate,
                                       server_ssl_key_pass="", server_ssl_ca_file="")
        for name, more in (("gateway", {"imaps_listen": "*:993",
                                        "pop3s_listen": "*:995"}), ("ical", {"icals_listen": "*:8443"})):
            self.settings[name].update(more, ssl_certificate_file=self.certificate,
                                       ssl_private_key_file=self.certificate)

    def config(self, name):
        """Path of a daemon's configuration."""
        return "%s/%s.cfg" % (self.etc, name)

    def write_config(self, name, **changes):
        """Write a daemon's configuration, with changes to it that stay; None takes a key away."""
        self.settings[name].update(changes)
        with open(self.config(name), "w") as file:
            file.write("".join("%s = %s\n" % item for item in self.settings[name].items()
                               if item[1] is not None))
        os.chmod(self.config(name), 0o640)
        shutil.chown(self.config(name), "root", "kopano")

    def binary(self, name):
        return os.path.join(self.sbin, "kopano-" + name)

    # -- daemons by hand

    def start_daemon(self, name, foreground=True, config=None, words=(), path=None, reap=True, session=True):
        """Start a daemon as a unit (foreground) or a System V script of generation 8 (foreground=False) does.

        path: another executable. session: in a session of its own. reap: see Started.
        Returns a Started; whether it serves is another question: wait_ready().
        """
        mode = ["-l"] if name == "dagent" else ["-F"]
        if not foreground:
            mode = ["-d"] if name == "dagent" else []
        self.outputs += 1
        output = os.path.join(self.prefix, "%s.%d.out" % (name, self.outputs))
        with open(output, "wb") as out:
            process = subprocess.Popen(
                [path or self.binary(name)] + mode + ["-c", config or self.config(name)] + list(words),
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd="/",
                start_new_session=session, env=self._environment())
        started = Started(process, output, reap)
        self._started.append(started)
        return started

    @staticmethod
    def _environment():
        return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

    def pids(self, name):
        """Living processes (no zombies) of a daemon in the order of their pids, children included."""
        return sorted(pid for pid, (executable, state, _parent, _words) in processes().items()
                      if executable in (self.binary(name), "(kopano-%s)" % name) and state != "Z")

    def main_pid(self, name):
        """The daemon's main process: the one whose parent is none of them. None when there is none."""
        table = processes()
        mine = self.pids(name)
        mains = [pid for pid in mine if pid in table and table[pid][2] not in mine]
        return mains[0] if mains else None

    def ready(self, name):
        """Whether a daemon answers its protocol; spooler and monitor: catches TERM, spooler: has "
        "its sessions."""
        try:
            if name == "server":
                return self.head() == 200
            if name == "dagent":
                return self._greeting(PORTS["lmtp"], b"QUIT\r\n").startswith(b"220")
            if name == "gateway":
                return self._greeting(PORTS["imap"], b"a LOGOUT\r\n").startswith(b"* OK")
            if name == "ical":
                connection = http.client.HTTPConnection("127.0.0.1", PORTS["caldav"], timeout=2)
                connection.request("OPTIONS", "/")
                return connection.getresponse().status == 200
            if name == "spooler":
                return self.catches_term(name) and len(self.server_connections(name)) == 2
            return self.catches_term(name)
        except (OSError, http.client.HTTPException):
            return False

    def catches_term(self, name):
        """Whether the daemon's main process has its handler for TERM: before, TERM simply kills."""
        with contextlib.suppress(OSError):
            with open("/proc/%s/status" % self.main_pid(name)) as file:
                mask = int(re.search(r"SigCgt:\s*([0-9a-f]+)", file.read()).group(1), 16)
            return bool(mask & 1 << signal.SIGTERM - 1)
        return False

    def server_connections(self, name):
        """Inodes of a daemon's stream sockets that are connected by unix socket."""
        pid, found = self.main_pid(name), set()
        with open("/proc/net/unix") as file:
            streams = {
                words[6]
                for words in map(str.split, file) if len(words) > 6 and words[4:6] == ["0001", "03"]
            }
        with contextlib.suppress(OSError):
            for link in glob.glob("/proc/%d/fd/*" % pid):
                with contextlib.suppress(OSError):
                    target = os.readlink(link)
                    if target.startswith("socket:") and target[8:-1] in streams:
                        found.add(target[8:-1])
        return found

    def wait_ready(self, *names, timeout=20):
        for name in names:
            wait_for(lambda: self.ready(name), timeout, "kopano-%s does not serve; %s" %
                     (name, self.last_words(name)))

    def last_words(self, name, size=800):
        """The end of a daemon's log, for messages."""
        try:
            with open("%s/%s.log" % (self.log, name), errors="replace") as file:
                return file.read()[-size:]
        except OSError:
            return "no log"

    def up(self, *names):
        """Database and these daemons (all six when none is named), by hand, until they serve."""
        self.database.start()
        for name in names or DAEMONS:
            if self.main_pid(name) is None:
                started = self.start_daemon(name, foreground=self.generation != 8)
                if self.generation == 8:
                    started.wait()  # until it is in the background
            if name == "server":
                self.wait_ready("server")
        self.wait_ready(*(names or DAEMONS))

    def signal(self, name, signum):
        """Send a signal to a daemon's main process; returns its pid."""
        pid = self.main_pid(name)
        os.kill(pid, signum)
        return pid

    def freeze(self, name):
        """SIGSTOP all processes of a daemon."""
        pids = self.pids(name)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        _stand_still(pids)

    def thaw(self, name):
        for pid in self.pids(name):
            os.kill(pid, signal.SIGCONT)

    def gone(self, name):
        """Whether no process of the daemon is left."""
        return not self.pids(name)

    def stop_daemon(self, name, timeout=80):
        """TERM, and wait until nothing is left."""
        if self.main_pid(name) is not None:
            self.signal(name, signal.SIGTERM)
        wait_for(lambda: self.gone(name), timeout, "kopano-%s does not stop" % name)

    def kill_daemon(self, name):
        """SIGKILL whatever there is of it; what init has to bury is buried on return."""
        killed = self.pids(name)
        orphans = {pid for pid, entry in processes().items() if entry[2] == 1}.intersection(killed)
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.gone(name) and not any(os.path.exists("/proc/%d" % pid) for pid in orphans), 10,
                 "kopano-%s survives SIGKILL" % name)

    def reset(self):
        """As after a reboot: daemons killed, faults off, /run/kopano and HA_RSCTMP empty, configuration anew.

        Database and users stay; the database runs when it has ever been started.
        """
        self.release()
        if not self.real:
            for name in DAEMONS:
                self.clear_faults(name)
        for name in DAEMONS:
            self.kill_daemon(name)
        self._sweep()
        self.settings = {name: dict(values) for name, values in self._pristine.items()}
        for name in DAEMONS:
            self.write_config(name)
        if self.database.started:
            self.database.start()
            self.database.thaw()

    def _sweep(self):
        """Remove what daemons and agents left behind."""
        for folder in (self.run, self.log, self.rsctmp):
            for path in glob.glob(folder + "/*") + glob.glob(folder + "/.[!.]*"):
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink("/tmp/kopano-upgrade-lock")

    def close(self):
        """End everything; the world can't be used any more."""
        if World._current is self:
            World._current = None
        self.release()
        for name in DAEMONS:
            self.kill_daemon(name)
        if self.database is not None:
            self.database.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    # -- agents

    def agent(self, name, action, timeout=20, level=None, interval=None, instance=None, params=None, env=None,
              agents_dir=None, on_start=None):
        """Run an agent as Pacemaker does: clean environment, own process group, SIGKILL at the timeout.

        timeout, interval: seconds (interval 0 is a probe; None leaves monitor at 10 s and others at 0).
        params: {"config": ...}; env: further variables, None takes one away. on_start: called with the pid.
        """
        if interval is None:
            interval = 10 if action == "monitor" else 0
        variables = {
            "PATH": self.sbin + ":/usr/sbin:/usr/bin:/sbin:/bin", "OCF_ROOT": "/usr/lib/ocf",
            "OCF_RA_VERSION_MAJOR": "1", "OCF_RA_VERSION_MINOR": "1", "OCF_RESOURCE_INSTANCE": instance
            or "kopano-" + name, "OCF_RESOURCE_TYPE": name, "OCF_RESOURCE_PROVIDER": "kopano",
            "OCF_RESKEY_crm_feature_set": "3.16.2", "OCF_RESKEY_CRM_meta_name": action,
            "OCF_RESKEY_CRM_meta_timeout": str(int(timeout * 1000)), "OCF_RESKEY_CRM_meta_interval": str(
                int(interval * 1000)), "OCF_RESKEY_CRM_meta_on_node": "bob",
            "OCF_RESKEY_CRM_meta_on_node_uuid": "1", "HA_RSCTMP": self.rsctmp, "HA_debug": "0",
            "HA_logfacility": "none", "HA_LOGFACILITY": "none", "HA_cluster_type": "corosync",
            "HA_quorum_type": "corosync", "HA_mcp": "true", "HA_use_logd": "off", "PCMK_debug": "0",
            "PCMK_logfacility": "none", "PCMK_mcp": "true", "PCMK_cluster_type": "corosync",
            "PCMK_quorum_type": "corosync", "PCMK_service": "pacemaker-execd"
        }
        if level is not None:
            variables["OCF_CHECK_LEVEL"] = str(level)
        params = dict(params or {})
        if self.root != "/" and name in DAEMONS:
            params.setdefault("config", self.config(name))
        variables.update(
            {"OCF_RESKEY_" + key: str(value)
             for key, value in params.items() if value is not None})
        variables.update(env or {})
        variables = {key: value for key, value in variables.items() if value is not None}
        agent = os.path.join(agents_dir or os.path.join(os.path.dirname(HERE), "agents"), name)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            before = time.monotonic()
            process = subprocess.Popen([agent, action], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                       env=variables, cwd="/", process_group=0)
            if on_start:
                on_start(process.pid)
            rc, cpu = _ended(process, timeout)
            took = time.monotonic() - before
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return Result(rc, texts[0], texts[1], took, cpu)

    # -- users and mail

    def add_user(self, name, password="secret", email=None, store=True):
        """Create a user with a store, through the server."""
        words = [
            self._tool("kopano-admin"), "-c", name, "-p", password, "-e", email or name + "@example.com",
            "-f", name
        ]
        if not self.real and not store:
            words.append("--no-store")
        env = self._environment()
        if self.root != "/":
            env["KOPANO_SOCKET"] = "file://%s/server.sock" % self.run
        subprocess.run(words, check=True, capture_output=True, timeout=20, env=env)
        if self.real and store:
            subprocess.run([self._tool("kopano-storeadm"), "-C", "-n", name], check=True, capture_output=True,
                           timeout=20, env=env)
        self.users[name] = password

    def _tool(self, name):
        beside = os.path.join(self.sbin, name)
        return beside if os.path.exists(beside) else name

    def deliver(self, user, text, subject="test", timeout=10, host="127.0.0.1", port=PORTS["lmtp"]):
        """Deliver a mail by LMTP; returning means 250. Raises smtplib.SMTPException, OSError."""
        address = user if "@" in user else user + "@example.com"
        message = (
            "From: sender@example.org\r\nTo: %s\r\nSubject: %s\r\nMessage-ID: <%d.%d@test>\r\n\r\n%s\r\n" %
            (address, subject, os.getpid(), time.monotonic_ns(), text))
        with smtplib.LMTP(host, port, local_hostname="test", source_address=None) as lmtp:
            lmtp.sock.settimeout(timeout)
            lmtp.sendmail("sender@example.org", [address], message)

    def imap(self, user=None, password=None, tls=False, timeout=10):
        """An imaplib connection, logged in when a user is named."""
        if tls:
            import ssl

            imap = imaplib.IMAP4_SSL("127.0.0.1", PORTS["imaps"],
                                     ssl_context=ssl._create_unverified_context(), timeout=timeout)
        else:
            imap = imaplib.IMAP4("127.0.0.1", PORTS["imap"], timeout=timeout)
        if user:
            imap.login(user, password or self.users.get(user, "secret"))
        return imap

    def read_imap(self, user, password=None, tls=False, timeout=10):
        """All mails in a user's INBOX, as bytes."""
        imap = self.imap(user, password, tls, timeout)
        try:
            imap.select("INBOX", readonly=True)
            numbers = imap.search(None, "ALL")[1][0].split()
            return [imap.fetch(number, "(RFC822)")[1][0][1] for number in numbers]
        finally:
            imap.logout()

    def read_pop3(self, user, password=None, tls=False, timeout=10):
        """All mails in a user's INBOX, as bytes."""
        if tls:
            import ssl

            pop3 = poplib.POP3_SSL("127.0.0.1", PORTS["pop3s"], context=ssl._create_unverified_context(),
                                   timeout=timeout)
        else:
            pop3 = poplib.POP3("127.0.0.1", PORTS["pop3"], timeout=timeout)
        try:
            pop3.user(user)
            pop3.pass_(password or self.users.get(user, "secret"))
            return [b"\r\n".join(pop3.retr(number)[1]) for number in range(1, pop3.stat()[0] + 1)]
        finally:
            with contextlib.suppress(poplib.error_proto, OSError):
                pop3.quit()

    def submit(self, user, recipient, text, subject="outgoing"):
        """Put a mail into the outgoing queue, as a client would. Stand-ins only."""
        self._standin("submit")
        import base64

        data = "From: %s\r\nTo: %s\r\nSubject: %s\r\n\r\n%s\r\n" % (user, recipient, subject, text)
        with self.soap() as client:
            client.call("standinSubmit", szSender=user, szRecipient=recipient,
                        sData=base64.b64encode(data.encode()).decode())

    # -- raw looks

    def _greeting(self, port, goodbye, timeout=2):
        with socket.create_connection(("127.0.0.1", port), timeout) as sock:
            greeting = sock.recv(512)
            sock.sendall(goodbye)
            while sock.recv(512):
                pass
            return greeting

    def hold(self, protocol, greeting=True, timeout=10):
        """An idle client: a connected socket that has read its greeting; release() closes all of them."""
        sock = Client(socket.AF_INET)
        sock.settimeout(timeout)
        self._held.append(sock)
        sock.connect(("127.0.0.1", PORTS[protocol]))
        if greeting:
            sock.greeting = sock.recv(512)
        return sock

    def release(self):
        """Close all idle clients."""
        while self._held:
            self._held.pop().close()

    def head(self, path=None, timeout=2):
        """Status code of HEAD over server.sock. Raises OSError."""
        with Soap(path or self.run + "/server.sock", timeout) as soap:
            return int(soap.exchange(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", body=False)[0].split()[1])

    def soap(self, path=None, timeout=10, logon=True):
        """A Soap connection with a SYSTEM session: with world.soap() as client: client.er("getStore")."""
        client = Soap(path or self.run + "/server.sock", timeout)
        if logon:
            client.logon()
        return client

    # -- faults and figures, stand-ins only

    def _standin(self, what):
        if self.real:
            raise StandinOnly("needs a stand-in: " + what)

    def fault(self, name, what, *arguments, endpoint=None, pid=None):
        """Switch a fault on (see standin/README.md), or all of a daemon off with None. pid: for this process only."""
        self._standin("fault " + str(what))
        if what is None:
            self.clear_faults(name)
            return
        words = [what] + [str(argument) for argument in arguments] + (["@%s" % endpoint] if endpoint else [])
        words += ["pid=%d" % pid] if pid else []
        fault.write(self.prefix, name, fault.read(self.prefix, name) + [" ".join(words)])

    def clear_faults(self, name):
        fault.write(self.prefix, name, [])

    def counters(self, name):
        """Figures of a running stand-in. server: sessions, workers, db_calls, logons, logoffs, requests;
        dagent, gateway, ical: clients, accepted; spooler: sending, sent."""
        self._standin("counters")
        pid = self.main_pid(name)
        with open(os.path.join(self.prefix, "lib/kopano-standin/state/%s.%s" % (name, pid)), "rb") as file:
            return {
                key: int(value)
                for key, value in (line.split() for line in file.read().decode().splitlines())
            }


class Soap:
    """SOAP over a unix socket, for tests."""

    def __init__(self, path, timeout=10):
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(timeout)
        try:
            self._sock.connect(path)
        except OSError:
            self._sock.close()
            raise
        self.session = None

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        with contextlib.suppress(OSError, AssertionError):
            if self.session:
                self.call("logoff")
        self._sock.close()

    def close(self):
        """Leave without logoff."""
        self._sock.close()

    def send(self, data):
        """Send bytes, as a part of a request. Raises OSError."""
        self._sock.sendall(data)

    def exchange(self, request, body=True):
        """Send bytes; returns head and body of the answer. Raises OSError."""
        self.send(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, rest = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: *(\d+)", head).group(1)) if body else 0
        while len(rest) < length:
            rest += self._more()
        return head.decode("latin-1"), rest

    def _more(self):
        data = self._sock.recv(65536)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return data

    def call(self, name, **values):
        """Body of the answer to a call; the session is put in front."""
        if self.session and name != "logon":
            values = {"ulSessionId": self.session, **values}
        inner = "".join("<%s>%s</%s>" % (key, value, key) for key, value in values.items())
        body = (
            '<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" '
            'xmlns:ns="urn:zarafa">'
            '<SOAP-ENV:Body><ns:%s>%s</ns:%s></SOAP-ENV:Body></SOAP-ENV:Envelope>' %
            (name, inner, name)).encode()
        return self.exchange(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n"
            b"Connection: keep-alive\r\n\r\n" % len(body) + body)[1].decode()

    def er(self, name, **values):
        """Result code of a call."""
        return int(re.search(r"<(?:er|result)>(\d+)<", self.call(name, **values)).group(1))

    def logon(self, user="SYSTEM", password=""):
        """Open a session; returns the result code."""
        answer = self.call("logon", szUsername=user, szPassword=password, szImpersonateUser="",
                           szVersion="8.7.0", ulCapabilities=512, szClientApp="test")
        code = int(re.search(r"<er>(\d+)<", answer).group(1))
        self.session = re.search(r"<ulSessionId>(\d+)<", answer).group(1) if code == 0 else None
        return code
