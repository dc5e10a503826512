# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of an agent: which action, with which parameters, how deep, how much time; and its exit code.
"""
import os
import sys
import time

from kopano_ocf import verdict

MYPY = False
if MYPY:
    from typing import Any, Dict, Tuple  # noqa: F401

_SYNONYMS = {"status": "monitor", "help": "usage", "methods": "usage", "--help": "usage", "-h": "usage",
             "metadata": "meta-data", "validate": "validate-all"}
_TRUE, _FALSE = ("1", "y", "yes", "t", "true", "on", "ja"), ("0", "n", "no", "f", "false", "off", "nein")
DEPTHS = (0, 10, 20)


class Call:
    """What is asked for.

    agent     the declaration
    action    start, stop, monitor, reload, reload-agent, validate-all
    timeout   seconds until Pacemaker kills us; deadline: when to be done, by time.monotonic()
    interval  seconds between recurring monitors, 0 for a probe or a single call
    depth     0, 10 or 20
    """

    def __init__(self, agent, action, env):
        self.agent, self.action, self.env = agent, action, env
        from kopano_ocf import process
        # by hand, a script may have become this process long after that was born
        self.begun = time.monotonic() - (process.own_age() if "OCF_RESKEY_CRM_meta_timeout" in env else 0.0)
        self.interval = _milliseconds(env.get("OCF_RESKEY_CRM_meta_interval"), 0.0)
        self.depth = _depth(env.get("OCF_CHECK_LEVEL"), 0 if action == "validate-all" else 10)
        advised = agent.timeout(action, self.depth)
        self.timeout = _milliseconds(env.get("OCF_RESKEY_CRM_meta_timeout"), advised * 1000.0)
        # The verdict is out between 1 s and 20 % of the timeout before Pacemaker kills us.
        margin = min(max(1.4, 0.1 * self.timeout), 0.2 * self.timeout)
        self.deadline = self.begun + self.timeout - margin
        self.reserve = min(1.0, 0.05 * self.timeout)    # kept for a second question, as to the database
        self.by_hand = "OCF_RESKEY_CRM_meta_timeout" not in env and _terminal()
        self.notes = []

    @property
    def probe(self):
        """Whether Pacemaker asks if it runs here, where perhaps nothing is installed."""
        return self.action == "monitor" and self.interval == 0

    def raw(self, name):
        """A parameter's text as it came; None when it is not set or empty."""
        return self.env.get("OCF_RESKEY_" + name) or None

    def value(self, name):
        """A parameter's value, typed; the default when it is not set, wrong, or not of this agent (None then).

        Monitor and stop must work with whatever is configured; start and validate-all say what is wrong with it.
        """
        parameter = self.agent.parameter(name)
        if parameter is None:
            return None
        text = self.raw(name)
        if text is None:
            return "" if parameter.empty and "OCF_RESKEY_" + name in self.env else parameter.default
        if parameter.kind == "boolean":
            word = text.strip().lower()
            return True if word in _TRUE else False if word in _FALSE else parameter.default
        if parameter.kind == "integer":
            word = text.strip()
            if _digits(word) and len(word) < 10 and parameter.least <= int(word) <= parameter.most:
                return int(word)
            return parameter.default
        if parameter.form == "absolute" and not text.startswith("/"):
            return parameter.default
        return parameter.default if "\n" in text else text

    def secret(self, name):
        """First line of the file that a parameter names. Raises ValueError with one line that never shows it."""
        path = self.value(name)
        if not path:
            raise ValueError("%s is not set" % name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_mode & 0o170000 != 0o100000:
                    raise ValueError("%s: %s is not a regular file" % (name, path))
                data = os.read(fd, 4096)
            finally:
                os.close(fd)
        except OSError as err:
            raise ValueError("%s: %s: %s" % (name, path, err.strerror))
        line = data.split(b"\n")[0].rstrip(b"\r").decode("utf-8", "surrogateescape")
        if not line:
            raise ValueError("%s: %s: its first line is empty" % (name, path))
        if len(line) > 255:                 # kopano-gateway hangs up on one, as if it were broken itself
            raise ValueError("%s: %s: its first line is too long for a password" % (name, path))
        return line

    def step(self, words, took=None):
        """Something was looked at: told to a person at a terminal, and to nobody else."""
        if self.by_hand:
            from kopano_ocf import report
            report.say("  %s%s" % (words, "" if took is None else "  [%.0f ms]" % (took * 1000)))

    def note(self, words):
        """Something that the log should tell, though it changes no verdict."""
        self.notes.append(words)
        self.step("note: " + words)

    def timeout_used(self):
        """Seconds since Pacemaker started us."""
        return time.monotonic() - self.begun

    def left(self):
        """Seconds until the deadline, never negative."""
        return max(0.0, self.deadline - time.monotonic())


def _digits(text):
    # str.isdigit() knows more digits than int()
    return text.encode("ascii", "replace").isdigit()


def _milliseconds(text, default):
    if text is not None and _digits(text) and len(text) < 13:
        return int(text) / 1000.0
    return default / 1000.0


def _depth(text, default):
    if text is None or not _digits(text.strip()) or len(text) > 9:
        return default
    return max(depth for depth in DEPTHS if depth <= int(text))


def _terminal():
    try:
        return sys.stderr.isatty() or sys.stdout.isatty()
    except (AttributeError, ValueError):
        return False


def _known(agent, action):
    return action in ("meta-data", "usage") or any(entry.name == action for entry in agent.actions)


def main(agent):
    """Run the action that the command line names; exits with its code."""
    _streams()
    try:
        code = _run(agent, sys.argv[1:], os.environ)
    except KeyboardInterrupt:
        code = verdict.GENERIC
    except Exception as err:                # pylint: disable=broad-except
        code = _broken(err)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        pass
    os._exit(code)                          # nothing is left to clean up; a thread may still wait for DNS


def _streams():
    """Put something where a standard stream was closed, else it would be the next file that is opened."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        fd = os.open(os.devnull, os.O_RDWR)
        while fd < 3:
            fd = os.dup(fd)
        os.close(fd)
        sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))


def _run(agent, words, env):
    # the argument decides, not an __OCF_ACTION that was left in somebody's shell
    action = words[0] if words else env.get("__OCF_ACTION", "")
    action = _SYNONYMS.get(action, action)
    if not _known(agent, action):
        from kopano_ocf import metadata, report
        if _terminal():
            report.output(metadata.usage(agent))
        report.exit_reason("%s: no such action%s" % (action or "(none)", "" if action else "; one must be given"),
                           log=False)
        return verdict.UNIMPLEMENTED
    if action in ("meta-data", "usage"):
        from kopano_ocf import metadata, report
        if report.output(metadata.xml(agent) if action == "meta-data" else metadata.usage(agent)):
            return verdict.SUCCESS
        report.exit_reason("%s can't be written to the standard output" % action, log=False)
        return verdict.GENERIC
    call = Call(agent, action, env)
    if os.geteuid() != 0 and not (action == "validate-all" and call.depth < 10):
        from kopano_ocf import report
        report.exit_reason("%s must be run by root" % action, log=False)
        return verdict.PERMISSION
    if action == "validate-all":
        return _validate(call)
    room, thing = _room(call)
    if action == "monitor":
        return _tell_state(call, thing, room["monitor"](call, thing))
    return _tell_outcome(call, room[action](call, thing))


def _room(call):
    # type: (Call) -> Tuple[Dict[str, Any], Any]
    """The functions that do this agent's actions, and what they work on; each is loaded when it is called for."""
    if call.agent.kind == "page":
        from kopano_ocf import page
        return page.ACTIONS, page.Health(call)
    from kopano_ocf import instance
    if call.action == "monitor":
        from kopano_ocf import monitor
        return {"monitor": monitor.look}, instance.Instance(call)
    from kopano_ocf import lifecycle
    return lifecycle.ACTIONS, instance.Instance(call)


def _tell_state(call, thing, result):
    """One log line per change of state, remembered between calls; none per good monitor."""
    if call.by_hand:
        from kopano_ocf import report
        report.say("%s: %s%s" % (call.agent.name, verdict.NAMES.get(result.rc, result.rc),
                                 ": " + result.words if result.words else ""))
        return result.rc
    kind = "%d %s" % (result.rc, "".join(c for c in result.words if not c.isdigit()))
    before = thing.get("verdict") or "0 "
    changed = kind != before and not (call.probe and result.rc == verdict.NOT_RUNNING)
    if result.rc == verdict.SUCCESS:
        if changed or call.notes:
            from kopano_ocf import report
            if changed:
                report.log("info", "%s is good again" % call.agent.name)
    elif not (call.probe and result.rc == verdict.NOT_RUNNING):
        from kopano_ocf import report
        report.exit_reason(result.words, log=changed)
    if call.notes:
        from kopano_ocf import report
        for words in call.notes:
            report.log("warning", words)
    if changed:
        thing.put("verdict", kind)
        thing.save()
    return result.rc


def _tell_outcome(call, result):
    """What start, stop or reload came to."""
    from kopano_ocf import report
    for words in call.notes:
        report.log("warning", words)
    if result.rc == verdict.SUCCESS:
        if result.words:
            report.log("info", "%s: %s: %s" % (call.agent.name, call.action, result.words))
        if call.by_hand:
            report.say("%s: %s: done%s" % (call.agent.name, call.action, ": " + result.words if result.words else ""))
    else:
        report.exit_reason(result.words)
    return result.rc


def _validate(call):
    """Findings one a line: ERROR sets the code, WARNING does not; silent and 0 when all is well."""
    from kopano_ocf import report, validate
    findings = validate.validate(call.agent, call, call.depth)
    code = 0
    for finding in findings:
        report.say("%s: %s" % (finding.severity, finding.text))
        if finding.severity == "ERROR" and not code:
            code = finding.code
            report.exit_reason(finding.text, log=False)
    return code


def _broken(err):
    """An error of our own making: one line, and for a monitor no restart of a daemon that may be well."""
    from kopano_ocf import report
    frame = err.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = "%s:%d" % (os.path.basename(frame.tb_frame.f_code.co_filename), frame.tb_lineno) if frame else "?"
    report.exit_reason("error in the agent itself (%s: %s at %s); please report it"
                       % (type(err).__name__, err, where))
    monitoring = len(sys.argv) > 1 and _SYNONYMS.get(sys.argv[1], sys.argv[1]) == "monitor"
    return verdict.DEGRADED if monitoring else verdict.GENERIC
