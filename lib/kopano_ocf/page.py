# SPDX-License-Identifier: GPL-2.0-or-later
"""The health of a web page: webapp-health's start, stop and monitor.

It owns no process.  That it was started is remembered in a state file, what it
sees is told in a transient node attribute, and it never fails because of the page.
"""
import time

from kopano_ocf import backend, state, talk, verdict
from kopano_ocf.verdict import Verdict

_REPEAT = 300.0             # seconds after which the attribute is set again, in case the cluster lost it


class Health:
    """This resource on this node: whether it was started, and which attribute value was set last."""

    def __init__(self, call):
        self.call = call
        self.folder = state.directory(call.env)
        self.path = "%s/%s" % (self.folder, state.safe_name(
            "kopano-ocf-%s-%s" % (call.agent.name, call.env.get("OCF_RESOURCE_INSTANCE") or call.value("url"))))
        self.memory = state.read(self.path)
        self._kept = dict(self.memory)

    @property
    def started(self):
        """Whether it was started in this boot and not stopped since."""
        from kopano_ocf.instance import boot_id
        return self.memory.get("started") == boot_id()

    def get(self, name):
        """A remembered text, "" when there is none."""
        return self.memory.get(name, "")

    def put(self, name, value):
        """Remember a text; written by save()."""
        self.memory[name] = str(value)

    def save(self):
        """Write what changed; False when that is not possible."""
        if self.memory == self._kept:
            return True
        self._kept = dict(self.memory)
        return state.write(self.path, self.memory)

    def attribute(self, value):
        """Set the node attribute to value (text; None: delete it) when it is not known to be so."""
        name = self.call.value("attribute")
        before = self.get("attribute")
        if before and before != name:
            self._update(before, None)      # it was renamed
        if not name:
            return
        now = time.monotonic()
        try:
            fresh = 0 <= now - float(self.get("told") or "-1") < _REPEAT
        except ValueError:
            fresh = False
        if value is not None and fresh and before == name and self.get("value") == value:
            return
        if self._update(name, value) and value is not None:
            self.put("attribute", name)
            self.put("value", value)
            self.put("told", "%.3f" % now)

    def _update(self, name, value):
        import subprocess
        words = ["attrd_updater", "-n", name] + (["-D"] if value is None else ["-U", value])
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, timeout=min(5.0, max(0.5, self.call.left()))).returncode
        except (OSError, ValueError, subprocess.TimeoutExpired) as err:
            done = -1
            self.call.step("attrd_updater: %s" % type(err).__name__)
        if done != 0:
            self.call.step("node attribute %s not set (attrd_updater: exit code %s)" % (name, done))
        return done == 0


def start(call, health):
    """0 once the state file says so; the first look sets the attribute."""
    from kopano_ocf import report, validate
    lacking = report.lacking("requests")
    if lacking:
        return Verdict(verdict.INSTALLED, lacking)
    for finding in validate.validate(call.agent, call, 0):
        if finding.severity == "ERROR":
            return Verdict(finding.code, finding.text)
    from kopano_ocf.instance import boot_id
    health.put("started", boot_id())
    if not health.save():
        return Verdict(verdict.GENERIC, "%s can't be written" % health.path)
    seen = monitor(call, health)
    return Verdict(verdict.SUCCESS, ("degraded: " + seen.words) if seen.words else "the page is fine")


def stop(call, health):
    """0 once neither state file nor attribute is left."""
    if health.started or health.get("value"):
        health.attribute(None)
    if not state.remove(health.path) and health.started:
        return Verdict(verdict.GENERIC, "%s can't be removed" % health.path)
    health.memory = {}
    return Verdict(verdict.SUCCESS, "")


def reload_agent(call, health):
    """New values of parameters: they are read at each action anyway."""
    return verdict.GOOD if health.started else Verdict(verdict.GENERIC, "not started")


def monitor(call, health):
    """7 when not started; else 0, or 190 with what users would see."""
    if not health.started:
        return Verdict(verdict.NOT_RUNNING, "not started")
    if call.depth < 10:
        return verdict.GOOD
    try:
        from kopano_ocf.probe import webapp
        page = _page(call, webapp)
    except ImportError:
        return Verdict(verdict.DEGRADED, "the Python module requests is missing; install the package python3-requests")
    health.attribute("1" if page.how == talk.FINE else "0")
    health.save()
    if page.how != talk.FINE:
        return Verdict(verdict.DEGRADED, "%s: %s" % (call.value("url"), page.words))
    worries = _status(call, webapp)
    if call.depth >= 20:
        worries = _behind(call, health, webapp) or worries
    return Verdict(verdict.DEGRADED, worries) if worries else verdict.GOOD


def _glance(call, url, probe):
    """Seen of the usual good answer, got without loading much; None when webapp has to look."""
    from kopano_ocf.probe import glance
    where = glance.place(url)
    if where is None:
        return None
    seen = talk.run([(where[0], getattr(glance, probe)(*where[1:]))], min(call.deadline, time.monotonic() + 2.0),
                    local_only=False)[0]
    if seen.how != talk.FINE:
        return None
    call.step("%s: %s" % (url, seen.words), seen.took)
    return seen


def _page(call, webapp):
    if call.value("match") in (None, "", webapp.LOGIN_FORM):
        seen = _glance(call, call.value("url"), "page")
        if seen is not None:
            return seen
    seen = webapp.page(call.value("url"), call.value("match") or webapp.LOGIN_FORM, call.deadline - call.reserve,
                       call.value("ca_file") or None, call.value("tls_verify"))
    call.step("%s: %s" % (call.value("url"), seen.words), seen.took)
    return seen


def _status(call, webapp):
    """What is wrong with Apache's own status, in words; the page users see is fine all the same."""
    url = call.value("status_url")
    if not url:
        return ""
    if _glance(call, url, "status") is not None:
        return ""
    seen = webapp.status(url, call.deadline, call.value("ca_file") or None, call.value("tls_verify"))
    call.step("%s: %s" % (url, seen.words), seen.took)
    if seen.how == talk.FINE:
        return ""
    return "%s: %s; enable mod_status for this host, or set status_url to an empty value" % (url, seen.words)


def _behind(call, health, webapp):
    """What is wrong with the server that WebApp is configured for, in words."""
    from kopano_ocf import kopano_cfg
    try:
        server = str(kopano_cfg.default_server(call.value("config")))
    except kopano_cfg.ConfigError as err:
        return str(err)
    seen = backend.reach(health.folder, server, call.deadline, call.value("ca_file") or None)
    call.step("server %s: %s" % (server, seen.words), seen.took)
    if seen.how != talk.FINE:
        return "the server behind it: %s" % seen.words
    user = call.value("test_user")
    if not user:
        return ""
    try:
        password = call.secret("test_password_file")
    except ValueError as err:
        return str(err)
    seen = backend.guarded(health.folder, server, lambda: webapp.login(
        call.value("url"), user, password, call.deadline, call.value("ca_file") or None, call.value("tls_verify")),
        call.deadline)
    call.step("test login: %s" % seen.words, seen.took)
    return "" if seen.how == talk.FINE else "test login: %s" % seen.words


ACTIONS = {"start": start, "stop": stop, "monitor": monitor, "reload-agent": reload_agent}
