# SPDX-License-Identifier: GPL-2.0-or-later
"""WebApp behind Apache, broken: what webapp-health makes of it, and what a port check does. A table of its own.

webapp-health restarts nothing, so there is no recovery to be measured: only what is told, and when.
"""
import contextlib
import os
import signal
import socket
import tempfile
import time
from dataclasses import dataclass, field
from typing import Callable

from bench.webserver import PAGE, apache
from world import World, wait_for

ATTRIBUTE = "kopano-webapp-health"
TIMEOUT = 10
CONFIG = "/etc/kopano/webapp/config.php"
EARLIEST, SHARE = 1.0, 0.2          # a verdict on something that hangs: seconds before the timeout, and part of it
SLACK = 0.1

FAULTS = {}


@dataclass(frozen=True)
class PageFault:
    """One fault. act(scene) breaks, yields, and mends.

    at10, at20  exit codes of the monitors;  attribute  what the node attribute must be then
    port        whether port 80 still takes connections;  waits  whether the verdict takes the whole monitor
    """
    name: str
    broken: str
    visible: str
    fact: str
    at10: int
    at20: int
    attribute: str
    port: bool
    act: Callable = field(repr=False)
    waits: bool = False


def fault_of_page(name, **words):
    """Put a function into FAULTS."""
    def enter(act):
        FAULTS[name] = PageFault(name, act=act, **words)
        return act
    return enter


@fault_of_page("apache-killed", at10=190, at20=190, attribute="0", port=False,
               broken="Apache is killed",
               visible="port 80 refuses",
               fact="contract: a bad page is attribute 0 and 190; Apache's own agent restarts it")
def apache_killed(scene):
    scene.signal(signal.SIGKILL)
    scene.web.wait()
    yield
    scene.serve()


@fault_of_page("apache-hung", at10=190, at20=190, attribute="0", port=True, waits=True,
               broken="Apache hangs: all its processes are stopped (SIGSTOP)",
               visible="port 80 takes connections, by the kernel, and answers nothing",
               fact="contract: no answer in time is attribute 0 and 190")
def apache_hung(scene):
    scene.signal(signal.SIGSTOP)
    yield
    scene.signal(signal.SIGCONT)


@fault_of_page("wrong-page", at10=190, at20=190, attribute="0", port=True,
               broken="WebApp finds its installation at fault, and says so instead of the login form",
               visible="status 200, and a page with \"Invalid configuration\"",
               fact="contract: that page is never a healthy one, whatever its status")
def wrong_page(scene):
    scene.page("<html><h1>Invalid configuration</h1><p>The php-mapi extension is not loaded</p></html>")
    yield
    scene.page(PAGE)


@fault_of_page("server-behind-down", at10=0, at20=190, attribute="1", port=True,
               broken="the kopano-server that WebApp uses is killed",
               visible="the login page is fine, nobody can log in",
               fact="the login page is rendered without a call to kopano-server; contract: depth 20 says 190 of the "
               "server, and leaves the attribute: it is about this node's web server, and moving would not help")
def server_behind_down(scene):
    scene.world.kill_daemon("server")
    yield
    scene.world.up("server")


class PageScene:
    """A server, Apache with a login page like WebApp's, webapp-health beside it, and a place for its attribute."""

    def __init__(self, world):
        self.world, self.web = world, None
        self._stack = contextlib.ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(dir="/run"))
        self._record = folder + "/attributes"
        with open(folder + "/attrd_updater", "w", encoding="ascii") as file:
            file.write("#!/bin/sh\nprintf '%%s\\n' \"$*\" >> %s\n" % self._record)
        os.chmod(folder + "/attrd_updater", 0o755)
        self._environment = {"PATH": "%s:/usr/bin:/bin" % folder}
        world.reset()
        world.database.start()
        world.up("server")
        os.makedirs(os.path.dirname(CONFIG), exist_ok=True)
        with open(CONFIG, "w", encoding="ascii") as file:
            file.write('<?php define("DEFAULT_SERVER", "default:");\n')
        self.serve()

    def serve(self):
        """Apache is started."""
        self._run = "/run/faults-apache-%d" % time.monotonic_ns()
        self.web = self._stack.enter_context(apache(self._run))

    def signal(self, number):
        """To all of Apache's processes."""
        os.killpg(self.web.pid, number)

    def page(self, text):
        """Another page in WebApp's place."""
        with open(self._run + "/htdocs/webapp/index.php", "w", encoding="utf-8") as file:
            file.write(text)

    def agent(self, action, level=None):
        """A Result."""
        return self.world.agent("webapp-health", action, timeout=TIMEOUT, level=level, env=self._environment)

    @property
    def attribute(self):
        """What the node attribute would be."""
        with open(self._record, encoding="ascii") as lines:
            words = [line.split() for line in lines][-1]
        return words[words.index("-U") + 1] if ATTRIBUTE in words and "-U" in words else None

    def close(self):
        """Undo all of it."""
        with contextlib.suppress(OSError):
            self.signal(signal.SIGCONT)
        self.agent("stop")
        self._stack.close()


def port_answers():
    """What a port check sees."""
    with socket.socket() as client:
        client.settimeout(2)
        return client.connect_ex(("127.0.0.1", 80)) == 0


def run(one, world=None):
    """Break, look, mend: a dict of plain values; `wrong` says what is not as it is written down."""
    found = {"name": one.name, "looks": {}, "wrong": []}
    wrong = found["wrong"].append
    scene = PageScene(world or World.shared(11, tls=True))
    try:
        for level, code in ((None, scene.agent("start").rc), (10, scene.agent("monitor", 10).rc),
                            (20, scene.agent("monitor", 20).rc)):
            if code != 0:
                raise AssertionError("%s before the fault: %s" % ("start" if level is None else level, code))
        acting = one.act(scene)
        next(acting)
        for level, expected in ((10, one.at10), (20, one.at20)):
            result = scene.agent("monitor", level)
            found["looks"][str(level)] = [result.rc, result.took, result.reason]
            if result.rc != expected:
                wrong("depth %d: %s, expected %d: %s" % (level, result.rc, expected, result.reason))
            if one.waits and not EARLIEST - SLACK <= TIMEOUT - result.took <= SHARE * TIMEOUT + SLACK:
                wrong("depth %d: a verdict %.2f s before the end of %d s" % (level, TIMEOUT - result.took, TIMEOUT))
        found["attribute"], found["port"] = scene.attribute, port_answers()
        if (found["attribute"], found["port"]) != (one.attribute, one.port):
            wrong("attribute %s, port 80 %s" % (found["attribute"], "open" if found["port"] else "refuses"))
        for _ in acting:
            raise AssertionError("%s: more than one yield" % one.name)
        mended = time.monotonic()
        wait_for(lambda: scene.agent("monitor", 20).rc == 0 and scene.attribute == "1", 30, "well again")
        found["after"] = time.monotonic() - mended
    except Exception as error:              # one must not end the others
        wrong("%s: %s" % (type(error).__name__, error))
    finally:
        scene.close()
    return found


def rows(outcomes):
    """Cells: a line of titles, then one for each fault."""
    lines = [["fault", "expected, attribute", "webapp-health, depth 10", "depth 20", "attribute", "port check",
              "well again"]]
    for found in outcomes:
        one = FAULTS[found["name"]]
        looks = ["·" if look[0] == 0 else "%s %.1f" % tuple(look[:2]) for look in (
            found["looks"].get("10"), found["looks"].get("20")) if look] or ["ERROR"]
        lines.append([one.name, "%d / %d, %s" % (one.at10, one.at20, one.attribute)] + (looks + [""])[:2]
                     + [str(found.get("attribute", "")), "·" if found.get("port") else "down",
                        "+%.1f" % found["after"] if "after" in found else ""])
    return lines
