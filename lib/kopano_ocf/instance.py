# SPDX-License-Identifier: GPL-2.0-or-later
"""This resource on this node: its process, its endpoints, what is remembered of it.
"""
import os
import time

from kopano_ocf import endpoint, process, state

LOCK_FILE = "/tmp/kopano-upgrade-lock"      # kopano-server holds it open during its schema step, on every start
_WELL_KNOWN = {143: ("imap", False), 993: ("imap", True), 110: ("pop3", False), 995: ("pop3", True)}
_TLS_PORTS = (237, 8443)


class Found:
    """What is there: the daemon itself (or None), and children that outlived one."""

    __slots__ = ("main", "orphans")

    def __init__(self, main=None, orphans=()):
        self.main, self.orphans = main, list(orphans)


def boot_id():
    """Tells one boot of this machine from the next."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as source:
            return source.read().strip()
    except OSError:
        return "-"


class Instance:
    """One resource of a daemon's type on this node; `call` is the running action (see action.Call)."""

    def __init__(self, call):
        self.call, self.agent = call, call.agent
        self.config = call.value("config")
        self.identity = process.Identity(call.value("binary"), self.config, self.agent.role,
                                         fallback="/etc/kopano/%s.cfg" % self.agent.name)
        self.folder = state.directory(call.env)
        self.path = "%s/%s" % (self.folder, state.safe_name(
            "kopano-ocf-%s-%s" % (self.agent.name, call.env.get("OCF_RESOURCE_INSTANCE") or self.config)))
        self._settings = None
        self.recall()

    # ---- memory ----------------------------------------------------------------------------------------------------

    def recall(self):
        """Read what is remembered; again under the lock, as who held it may just have started the daemon."""
        self.memory = state.read(self.path)
        if self.memory.get("config") != self.config or self.memory.get("boot") != boot_id():
            self.memory = dict((name, self.memory[name]) for name in ("verdict", "noted") if name in self.memory)
        self._kept = dict(self.memory)

    def get(self, name, default=""):
        """A remembered text."""
        return self.memory.get(name, default)

    def number(self, name):
        """A remembered number; 0.0 when there is none."""
        try:
            found = float(self.memory.get(name, "0"))
        except ValueError:
            return 0.0
        return found if 0.0 <= found < 1e15 else 0.0    # neither inf nor nan, whatever the file says

    def put(self, name, value):
        """Remember a text (None: forget it); it is written by save()."""
        if value is None:
            self.memory.pop(name, None)
        else:
            self.memory[name] = str(value).replace("\n", " ")

    def save(self):
        """Write what changed; nothing is lost but convenience when that fails."""
        if self.memory != self._kept:
            state.write(self.path, self.memory)
            self._kept = dict(self.memory)

    def remember(self, main, endpoints=None, server=None):
        """The daemon is this process now; what was known of another one is forgotten."""
        self.memory = dict((name, self.memory[name]) for name in ("verdict",) if name in self.memory)
        self.put("config", self.config)
        self.put("boot", boot_id())
        self.put("pid", main.pid)
        self.put("start", main.start)
        self.put("file", self.signature())
        if endpoints:
            self.put("endpoints", " ".join(str(entry) for entry in endpoints))
        if server:
            self.put("server", server)
        self.save()

    def forget(self):
        """The daemon is no more."""
        self.memory, self._kept = {}, {}
        state.remove(self.path)

    def lock(self, deadline):
        """Excludes a second action that starts this daemon at the same moment."""
        return state.Lock(self.path + ".lock", deadline)

    def signature(self):
        """Changes when the configuration file is replaced or edited."""
        try:
            seen = os.stat(self.config)
        except (OSError, ValueError):
            return "-"
        return "%d.%d.%d" % (seen.st_ino, seen.st_size, seen.st_mtime_ns)

    # ---- the process -----------------------------------------------------------------------------------------------

    def find(self):
        """Look for the daemon: where it is known to be, else by its pid file, else everywhere."""
        known = self._known()
        if known is not None:
            return Found(known)
        hinted = self._hinted()
        if hinted is not None:
            self.remember(hinted)
            return Found(hinted)
        main, orphans = process.main_and_orphans(process.scan(self.identity), int(self.number("pid")))
        if main is not None:
            self.remember(main)
        return Found(main, orphans)

    def find_all(self):
        """Look everywhere, whatever is remembered: what stop must not leave behind."""
        return Found(*process.main_and_orphans(process.scan(self.identity), int(self.number("pid"))))

    def others(self, main):
        """Further daemons of this very instance beside `main`: [Process]. The scan looks at every process here.

        One that was started this second may be somebody's `kopano-spooler -V`.
        """
        mains, _ = process.mains_and_orphans(process.scan(self.identity), main.pid)
        return [entry for entry in mains if entry.pid != main.pid and entry.age() > 1.0]

    def _known(self):
        pid = int(self.number("pid"))
        seen = process.look(pid) if pid else None
        if seen is None or str(seen.start) != self.get("start"):
            return None
        return seen

    def _hinted(self):
        pid = process.read_pid(self.pid_file())
        seen = process.look(pid) if pid else None
        if seen is None or seen.dead or not self.identity.is_ours(seen.identify()):
            return None
        # a pid file can name a child only by accident, but then the daemon is above it
        above = process.look(seen.ppid)
        if above is not None and self.identity.is_ours(above.identify()):
            return None
        return None if process.is_sending(seen) else seen

    def pid_file(self):
        """Path of the daemon's own pid file, a hint; "" when there is none."""
        given = self.call.value("pidfile")
        if given:
            return given
        settings = self.settings()
        return (settings.pid_file if settings else "") or "/run/kopano/%s.pid" % self.agent.name

    # ---- its configuration and endpoints ---------------------------------------------------------------------------

    def settings(self):
        """The configuration file's settings by our own parser; None when it can't be read (now)."""
        if self._settings is None:
            from kopano_ocf import kopano_cfg
            try:
                self._settings = kopano_cfg.Settings(self.agent.name, kopano_cfg.read(self.config), self.config)
            except kopano_cfg.ConfigError:
                self._settings = False
        return self._settings or None

    def configured(self):
        """Endpoints by the configuration file; [] when that can't be told."""
        from kopano_ocf import kopano_cfg
        settings = self.settings()
        try:
            return settings.endpoints() if settings else []
        except kopano_cfg.ConfigError:
            return []

    def endpoints(self, main):
        """Where to probe: the `listen` parameter, else what the process was started with, else where it listens."""
        text = self.call.value("listen") or self.get("endpoints")
        if text:
            try:
                return endpoint.parse_list(text, self.agent.listens)
            except ValueError:
                pass                        # reported by start and validate-all
        found = self.label(*process.listening(main))
        if found:
            self.put("endpoints", " ".join(str(entry) for entry in found))
        return found

    def endpoints_known(self):
        """Endpoints as remembered or configured, without a look at any process."""
        text = self.get("endpoints")
        try:
            return endpoint.parse_list(text, self.agent.listens) if text else self.configured()
        except ValueError:
            return []

    def label(self, tcp, unix):
        """Listening sockets as endpoints: the protocol comes from the configuration, else from the port."""
        protocol = self.agent.listens
        configured = self.configured() if tcp or unix else []
        by_port = dict((entry.port, entry) for entry in configured if entry.port)
        by_path = dict((entry.path, entry) for entry in configured if entry.path)
        # in the configuration's order, server.sock first: it is what other agents know this server by
        found = [by_path[path] for path in by_path if path in unix]
        found += [endpoint.Endpoint(protocol, path=path) for path in sorted(set(unix))
                  if path not in by_path and path.startswith("/")]     # others are names in the kernel's abstract space
        hosts = {}      # type: dict
        for host, port in tcp:
            hosts.setdefault(port, []).append(host)
        for port in sorted(hosts):
            known = by_port.get(port)
            if known is not None:
                kind, tls, device = known.protocol, known.tls, known.device
            elif self.agent.watch == "mailbox" and protocol == "imap":
                if port not in _WELL_KNOWN:
                    continue                # no telling which of its protocols this is
                (kind, tls), device = _WELL_KNOWN[port], ""
            else:
                kind, tls, device = protocol, port in _TLS_PORTS, ""
            wide = [host for host in hosts[port] if host in endpoint.ANY]
            for host in (["*"] if wide else sorted(set(hosts[port]))):
                found.append(endpoint.Endpoint(kind, tls, host, port, device=device))
        return found

    def server(self):
        """URL (text) of the kopano-server that this client daemon was started with."""
        known = self.get("server")
        if known:
            try:
                return str(endpoint.parse(known, "soap"))
            except ValueError:
                pass
        from kopano_ocf import kopano_cfg
        settings = self.settings()
        try:
            url = str((settings or kopano_cfg.Settings(self.agent.name, {}, self.config)).server())
        except kopano_cfg.ConfigError:
            url = "soap+unix:/run/kopano/server.sock"
        if self.get("pid"):
            self.put("server", url)
        return url

    def upgrading(self, main):
        """Whether this very process is in its schema step: it holds the lock file and has not served yet."""
        return not self.get("served") and process.holds(main, LOCK_FILE)

    def served(self):
        """It answered: from now on it is no upgrade when it is silent."""
        if not self.get("served"):
            self.put("served", "1")

    def still(self, counters, of=""):
        """Look at counters (text): (looks, seconds) that they have been the same, this look included.

        of: prefix of what is remembered, to look at several. The clock is the one of the samples (monotonic), which
        no setting of the date disturbs.
        """
        now = time.monotonic()
        since, looks = self.number(of + "since"), int(self.number(of + "looks"))
        if counters != self.get(of + "counters") or not 0 < since <= now:
            since, looks = now, 0
            self.put(of + "counters", counters)
            self.put(of + "since", "%.3f" % since)
        self.put(of + "looks", looks + 1)
        return looks + 1, now - since
