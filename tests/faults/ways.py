# SPDX-License-Identifier: GPL-2.0-or-later
"""Who looks after a daemon: our agents, and what people run today. Each starts, stops and looks in its own way.

A look gives a Look; a stop or start gives its exit code, None when Pacemaker's timeout ended it.
"""
import os
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass

from contract.rough import ROOT, declared
from world import PORTS, processes

SCRIPT = os.path.join(ROOT, "tests/cluster/lsb/kopano")
ANYTHING = "/usr/lib/ocf/resource.d/heartbeat/anything"
USUAL = 20                  # seconds: Pacemaker's timeout where the configuration, as the manual's, names none
UNIT_STOPS = {"server": 60, None: 90}       # TimeoutStopSec: upstream's unit of the server, systemd's default
RESTART_SEC = 0.1           # systemd's default
LISTENS = {"server": ("soap", "soaps"), "dagent": ("lmtp",), "gateway": ("imap", "pop3", "imaps", "pop3s"),
           "ical": ("caldav", "caldavs")}


@dataclass
class Look:
    """One look: the verdict in the way's own words, whether it counts as failure, what was said, seconds."""
    verdict: str
    failed: bool
    words: str = ""
    took: float = 0.0


class Way:
    """One way of supervising a daemon of a World. scene: see scene.py."""

    name = title = ""
    recovers = True             # whether somebody restarts what it finds ill
    interval = 2.0              # seconds from one look to the next
    timeouts = {}               # seconds, by action, where they are not USUAL

    def __init__(self, world, daemon, scene):
        self.world, self.daemon, self.scene = world, daemon, scene

    def applies(self):
        """Whether there is anything to look at."""
        return True

    def start(self):
        """Exit code."""
        raise NotImplementedError

    def stop(self):
        """Exit code, None when time ran out."""
        raise NotImplementedError

    def look(self):
        """A Look."""
        raise NotImplementedError

    def restarts(self, _look):
        """Whether a failed look leads to a restart."""
        return True

    def adopt(self, started):
        """Somebody else has started the daemon."""

    def _environment(self):
        return dict(self.world._environment(), **self.scene.environment)

    def _run(self, words, timeout, environment):
        """(exit code or None, what was said). What it leaves running holds no pipe of ours."""
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd="/",
                                       env=environment, process_group=0)
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = None
            said.seek(0)
            return code, said.read().decode(errors="replace")


class Kopano(Way):
    """ocf:kopano:* with one monitor, of one depth."""

    depth = 10
    monitor_timeout = 10
    agents = None               # another directory to run them from

    def __init__(self, world, daemon, scene):
        super().__init__(world, daemon, scene)
        agent = declared(daemon)
        self.timeouts = {action: agent.timeout(action) for action in ("start", "stop")}
        self.parameters = dict(scene.fault.parameters)
        if scene.fault.stop_within:
            self.timeouts["stop"] = scene.fault.stop_within

    def _agent(self, action, **how):
        result = self.world.agent(self.daemon, action, params=self.parameters, agents_dir=self.agents,
                                  env=self.scene.environment, **how)
        if result.reason and action != "monitor":
            self.scene.said.append("%s: %s" % (action, result.reason))
        return result

    def start(self):
        return self._agent("start", timeout=self.timeouts["start"]).rc

    def stop(self):
        return self._agent("stop", timeout=self.timeouts["stop"]).rc

    def adopt(self, started):
        self.look()

    def look(self):
        result = self._agent("monitor", level=self.depth, timeout=self.monitor_timeout, interval=self.interval)
        return Look(str(result.rc), result.rc not in (0, 190), result.reason, result.took)


class Kopano10(Kopano):
    name, title = "ocf10", "ocf:kopano, depth 10"


class Kopano20(Kopano):
    name, title, depth = "ocf20", "ocf:kopano, depth 20", 20


class Script(Way):
    """The manual's resource: an init script, which looks for a process of that name."""

    name, title = "lsb", "lsb:"

    def __init__(self, world, daemon, scene):
        super().__init__(world, daemon, scene)
        self.path = "/etc/init.d/kopano-" + daemon
        with open(SCRIPT, encoding="utf-8") as script, open(self.path, "w", encoding="utf-8") as out:
            out.write(script.read().replace("/usr/sbin/", world.sbin + "/"))
        os.chmod(self.path, 0o755)

    def _script(self, action):
        return self._run([self.path, action], USUAL, self._environment())[0]

    def start(self):
        return self._script("start")

    def stop(self):
        return self._script("stop")

    def look(self):
        code = self._script("status")
        return Look("running" if code == 0 else "not running", code != 0)


class Anything(Way):
    """ocf:heartbeat:anything, configured as in most how-tos: the pid file is the agent's own."""

    name, title = "anything", "ocf:heartbeat:anything"

    def __init__(self, world, daemon, scene):
        super().__init__(world, daemon, scene)
        self.pid_file = "%s/%s.pid" % (world.run, daemon)

    def _agent(self, action):
        mode = "-l" if self.daemon == "dagent" else "-F"
        environment = dict(
            self._environment(), OCF_ROOT="/usr/lib/ocf", OCF_RESOURCE_INSTANCE="kopano-" + self.daemon,
            OCF_RESOURCE_TYPE="anything", OCF_RESOURCE_PROVIDER="heartbeat", HA_logfacility="none",
            OCF_RESKEY_CRM_meta_timeout=str(USUAL * 1000),
            OCF_RESKEY_CRM_meta_interval=str(int(self.interval * 1000)),
            OCF_RESKEY_binfile=self.world.binary(self.daemon), OCF_RESKEY_pidfile=self.pid_file,
            OCF_RESKEY_cmdline_options="%s -c %s" % (mode, self.world.config(self.daemon)))
        return self._run([ANYTHING, action], USUAL, environment)[0]

    def start(self):
        return self._agent("start")

    def stop(self):
        return self._agent("stop")

    def look(self):
        code = self._agent("monitor")
        return Look("running" if code == 0 else "not running" if code == 7 else "failed", code != 0)

    def adopt(self, started):
        with open(self.pid_file, "w", encoding="ascii") as file:
            file.write("%d\n" % started.pid)


class Unit(Way):
    """What systemd makes of Type=simple with Restart=on-failure: the main process is there, or how it ended."""

    name, title = "unit", "systemd, Type=simple"
    interval = 0.05             # it is told by the kernel, and doesn't poll

    _CLEAN = (0, -signal.SIGHUP, -signal.SIGINT, -signal.SIGTERM, -signal.SIGPIPE)

    def __init__(self, world, daemon, scene):
        super().__init__(world, daemon, scene)
        self.main = None

    def start(self):
        time.sleep(RESTART_SEC if self.main else 0)
        self.main = self.world.start_daemon(self.daemon)
        return 0

    def adopt(self, started):
        self.main = started

    def _group(self):
        """What would be in its control group: what it forked, unless that began a session of its own."""
        found = []
        for pid in processes():
            try:
                if os.getsid(pid) == self.main.pid:
                    found.append(pid)
            except OSError:
                pass
        return found

    def stop(self):
        patience = UNIT_STOPS.get(self.daemon, UNIT_STOPS[None])
        for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5)):
            until = time.monotonic() + seconds
            for pid in self._group():
                try:
                    os.kill(pid, number)
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass
            while self._group():
                if time.monotonic() > until:
                    break
                time.sleep(0.05)
            else:
                return 0
        return 1

    def look(self):
        code = self.main.rc
        if code is None:
            return Look("active", False)
        return Look("inactive" if code in self._CLEAN else "failed", True, str(code))

    def restarts(self, look):
        return look.verdict == "failed"


class Port(Way):
    """A check from monitoring: every port and socket of the daemon takes a connection. Nobody acts on it."""

    name, title = "port", "port check"
    recovers = False

    def applies(self):
        return self.daemon in LISTENS

    def start(self):
        self.world.start_daemon(self.daemon)
        return 0

    def stop(self):
        return 0

    def look(self):
        places = [("127.0.0.1", PORTS[protocol]) for protocol in LISTENS[self.daemon]]
        if self.daemon == "server":
            places.append(self.world.run + "/server.sock")
        for place in places:
            with socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET) as sock:
                sock.settimeout(2)
                try:
                    sock.connect(place)
                except OSError as error:
                    return Look("down", True, "%s: %s" % (place, error))
        return Look("up", False)


WAYS = (Kopano10, Kopano20, Script, Anything, Unit, Port)
OURS = (Kopano10, Kopano20)
