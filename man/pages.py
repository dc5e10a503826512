#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""pages.py FOLDER VERSION EPOCH: writes the manual pages.

Those of the agents come from the declarations that also make their meta-data; the overview and the page of
kopano-ocf-report are written by hand (*.in), with what the agents say about themselves filled in.
"""
import importlib.machinery
import importlib.util
import os
import re
import sys
import textwrap
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, ROOT + "/lib")
sys.dont_write_bytecode = True

from kopano_ocf import metadata  # noqa: E402

NAMES = ("server", "dagent", "spooler", "gateway", "ical", "monitor", "webapp-health")
PACKAGE = "resource-agents-kopano"

DAEMON_ACTIONS = {
    "start": "Starts the daemon and waits until it serves. It is already running: success.@START@ Directories below "
             "/run that a reboot took away are made again.",
    "stop": "SIGTERM, so that what is under way can finish; after \\fBstop_escalate\\fR seconds once more, which ends "
            "the daemon at once; 5 seconds later SIGKILL.@STOP@ Success only when no process of this instance is left. "
            "Works without executable, configuration or valid parameters.",
    "monitor": "See MONITOR DEPTHS.",
    "reload": "SIGHUP: the daemon reads its configuration again.",
    "reload-agent": "New values of the parameters marked as reloadable take effect; the daemon is left alone.",
    "validate-all": "Silent when all is well. With OCF_CHECK_LEVEL=10 this host is looked at too. One line for each "
                    "finding: file, key, value and remedy.",
    "meta-data": "The agent's description as XML, for anybody.",
}
# what is so of one daemon only
START = {"server": " A schema upgrade that takes long counts as started."}
STOP = {
    "server": " A schema upgrade is never interrupted.",
    "dagent": " The second one comes after 2 seconds when no client is connected.",
    "gateway": " The second one comes after 2 seconds when no client is connected.",
    "ical": " The second one comes after 2 seconds when it has no child process.",
    "spooler": " The second one comes after 2 seconds when no mail is under way. A process that is in the middle of a "
               "mail is killed only when the time is up.",
}
PAGE_ACTIONS = dict(
    DAEMON_ACTIONS,
    start="Notes that the check is on and makes the first one. It starts no process.",
    stop="Removes the note and the node attribute.",
    **{"reload-agent": "New values of the parameters marked as reloadable take effect."})

DAEMON_CODES = (
    (0, "It serves (monitor); done (other actions)."),
    (1, "It is there but does not serve, and a restart cures that; the action failed."),
    (3, "No such action."),
    (4, "Not run by root."),
    (5, "From start and validate\\-all only: something is not installed on this node, or the daemon rejects its "
        "configuration."),
    (6, "From start and validate\\-all only: a parameter is wrong in itself, on every node."),
    (7, "It does not run (monitor)."),
    (190, "Degraded: it runs, something is wrong, and a restart would not help: its database or server is away, one "
          "of several endpoints does not answer, a certificate has expired, a schema upgrade is under way. For "
          "Pacemaker a success: no fail count, no restart. \\fBcrm_mon\\fR lists it with its reason."),
)
PAGE_CODES = tuple(
    {5: (5, "From start and validate\\-all only: something is not installed on this node."),
     0: (0, "The page is fine (monitor); done (other actions)."),
     1: (1, "The action failed."),
     7: (7, "The check was not started (monitor)."),
     190: (190, "Degraded: the page is bad, Apache has no free worker, or the server behind it is away. For Pacemaker "
                "a success: no fail count, no restart. \\fBcrm_mon\\fR lists it with its reason.")
     }.get(code, (code, words))
    for code, words in DAEMON_CODES)


DEGRADED = {
    "server": "its database is away, one of several endpoints does not answer, a certificate has expired, a schema "
              "upgrade is under way",
    "dagent": "its server is away or degraded itself, one of several endpoints does not answer",
    "gateway": "its server is away, one of several endpoints does not answer, a certificate has expired",
    "ical": "its server is away, one of several endpoints does not answer, a certificate has expired",
    "spooler": "its server is away, it still has no session with a server that is fine, it runs twice",
    "monitor": "it stands still while its server is away, it runs twice",
}


def declaration(name):
    """The AGENT object of an agent's file."""
    loader = importlib.machinery.SourceFileLoader("agent_" + name.replace("-", "_"), "%s/agents/%s" % (ROOT, name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module.AGENT


def escape(text):
    """Plain text for roff."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")


def lines(text):
    """Running text that is roff already, as short lines none of which is a request."""
    out = []
    for line in textwrap.wrap(" ".join(text.split()), 76, break_long_words=False, break_on_hyphens=False):
        out.append("\\&" + line if line[0] in ".'" else line)
    return out


def paragraphs(text):
    """Plain paragraphs, divided by blank lines."""
    out = []
    for paragraph in text.strip().split("\n\n"):
        out += ([".PP"] if out else []) + lines(escape(paragraph))
    return out


def item(term, body):
    """A term and what is said about it."""
    return [".TP", term] + lines(body)


def example(text):
    """Text as it is."""
    return [".PP", ".nf", ".RS 4"] + escape(text).rstrip("\n").split("\n") + [".RE", ".fi"]


def kind(parameter):
    """Type, default and properties of a parameter, in one line."""
    shown = metadata.shown(parameter)
    words = [parameter.kind, "default \\(dq%s\\(dq" % escape(shown) if shown else "empty by default"]
    if parameter.kind == "integer":
        words.append("%d to %d" % (parameter.least, parameter.most))
    if parameter.unique:
        words.append("unique")
    if parameter.reloadable:
        words.append("reloadable")
    return "(%s)" % ", ".join(words)


def advised(action):
    """The times that are advised for an action."""
    words = "timeout %ds" % action.timeout
    if action.interval is not None:
        words += ", interval %ds, depth %d" % (action.interval, action.depth)
    return words


def crm(agent):
    """The resource with its advised operations, for crmsh."""
    name = resource(agent)
    out = ["primitive %s ocf:kopano:%s" % (name, agent.name)]
    for action in operations(agent):
        out.append("op " + operation(action))
    text = "crm configure " + " \\\n    ".join(out + ["meta failure-timeout=10min"])
    return text if agent.kind == "daemon" else text + "\ncrm configure clone %s_clone %s meta interleave=true" % (
        name, name)


def pcs(agent):
    """The same for pcs."""
    out = ["pcs resource create %s ocf:kopano:%s op" % (resource(agent), agent.name)]
    for action in operations(agent):
        out.append(operation(action))
    text = " \\\n    ".join(out + ["meta failure-timeout=10min"])
    return text if agent.kind == "daemon" else text + " \\\n    clone interleave=true"


def resource(agent):
    """What such a resource is called in the cluster configurations that come along."""
    return "kopano-" + agent.name if agent.kind == "daemon" else agent.name


def operations(agent):
    """The advised operations that a configuration names."""
    return [action for action in agent.actions if action.name in ("start", "stop", "monitor")]


def operation(action):
    """An operation in the words that crmsh and pcs have in common."""
    words = "%s interval=%ds timeout=%ds" % (action.name, action.interval or 0, action.timeout)
    return words if action.depth is None else "%s OCF_CHECK_LEVEL=%d" % (words, action.depth)


def page(agent, names):
    """The lines of an agent's page."""
    own = "ocf_kopano_" + agent.name
    daemon = agent.kind == "daemon"
    actions, codes = (DAEMON_ACTIONS, DAEMON_CODES) if daemon else (PAGE_ACTIONS, PAGE_CODES)
    if daemon:
        actions = {name: words.replace("@START@", START.get(agent.name, "")).replace("@STOP@", STOP.get(agent.name, ""))
                   for name, words in actions.items()}
        # kopano-ocf(7) names them all, the page of an agent its own
        codes = [(code, re.sub("(would not help: ).*?(?=\\. For)", lambda found: found.group(1) + DEGRADED[agent.name],
                               words)) for code, words in codes]
    unique = list(dict.fromkeys(action.name for action in agent.actions))
    out = [".SH NAME"] + lines("%s \\- %s" % (escape(own), escape(agent.short)))
    out += [".SH SYNOPSIS", ".B ocf:kopano:%s" % escape(agent.name)]
    out += lines("[ %s ]" % " | ".join(map(escape, unique + ["usage"])))
    out += [".SH DESCRIPTION"] + paragraphs(agent.long)
    out += [".SH PARAMETERS"] + lines(
        "All are optional. A reloadable one takes effect without a restart; no two resources may have the same value "
        "of a unique one.")
    for entry in agent.parameters:
        out += item(".B " + escape(entry.name), kind(entry)) + [".br"] + lines(escape(entry.long))
    out += [".SH ACTIONS"] + lines("Timeouts and intervals are what is advised, and what \\fBpcs\\fR sets by itself.")
    for name in unique:
        times = "; ".join(advised(action) for action in agent.actions if action.name == name)
        out += item("\\fB%s\\fR (%s)" % (escape(name), times), actions[name].replace("reload-agent", "reload\\-agent"))
    out += [".SH MONITOR DEPTHS"] + lines(
        "A monitor is as deep as its OCF_CHECK_LEVEL says; 10 when it says nothing. A level between two of these "
        "is the lower one.")
    for depth in sorted(agent.depths):
        out += item(".B %d" % depth, escape(sentence(agent.depths[depth])))
    out += [".SH EXIT CODES"]
    for code, words in codes:
        out += item(".B %d" % code, words)
    out += [".SH EXAMPLES", "With", ".BR crm (8):"] + example(crm(agent))
    out += [".PP", "With", ".BR pcs (8):"] + example(pcs(agent))
    out += [".PP"] + lines("By hand, as root; at a terminal it says what it looked at:")
    out += example("OCF_ROOT=/usr/lib/ocf /usr/lib/ocf/resource.d/kopano/%s monitor; echo $?" % agent.name)
    out += [".SH FILES"] + item(".I /usr/lib/ocf/resource.d/kopano/%s" % escape(agent.name), "The agent.")
    for entry in agent.parameters:
        if entry.form == "absolute" and entry.default:
            out += item(".I " + escape(entry.default), escape(entry.short) + ".")
    out += item(".I /run/resource\\-agents/kopano\\-ocf\\-%s\\-*" % escape(agent.name),
                "What the agent remembers between two calls; it may be lost.")
    out += item(".I /usr/share/%s/crm/" % escape(PACKAGE), "Whole clusters, for crmsh and pcs.")
    out += [".SH SEE ALSO"]
    others = ["ocf_kopano_" + name for name in names if name != agent.name]
    pages = [("kopano-ocf", 7)] + [(name, 7) for name in others] + [("kopano-ocf-report", 8), ("crm", 8), ("pcs", 8)]
    out += [".BR %s (%d)%s" % (escape(name), section, "" if (name, section) == pages[-1] else ",")
            for name, section in pages]
    return own, out


def sentence(text):
    """With a capital letter."""
    return text[0].upper() + text[1:]


def head(title, section, version, day):
    """The first lines of a page."""
    return ['.\\" SPDX-License-Identifier: GPL-2.0-or-later',
            '.TH %s %d %s "%s %s" "OCF resource agents"' % (escape(title.upper()), section, day, PACKAGE, version),
            ".nh", ".ad l"]


def write(folder, name, text):
    """Put a page there, whole or not at all."""
    path = os.path.join(folder, name)
    with open("%s.%d" % (path, os.getpid()), "w") as file:
        file.write(text)
    os.rename(file.name, path)


def main(folder, version, epoch):
    """Write all pages."""
    day = time.strftime("%Y-%m-%d", time.gmtime(int(epoch)))
    os.makedirs(folder, exist_ok=True)
    agents = [declaration(name) for name in NAMES]
    for agent in agents:
        own, body = page(agent, NAMES)
        write(folder, own + ".7", "\n".join(head(own, 7, version, day) + body) + "\n")
    table = []
    for agent in agents:
        table += item(".BR ocf_kopano_%s (7)" % escape(agent.name), escape(agent.short) + ".")
    filled = {"@AGENTS@": "\n".join(table),
              "@CODES@": "\n".join(line for code, words in DAEMON_CODES for line in item(".B %d" % code, words)),
              "@ALSO@": "\n".join(".BR ocf_kopano_%s (7)," % escape(name) for name in NAMES)}
    for source in ("kopano-ocf.7", "kopano-ocf-report.8"):
        with open("%s/%s.in" % (HERE, source)) as file:
            text = file.read()
        for mark, value in filled.items():
            text = text.replace(mark, value)
        name, _, section = source.rpartition(".")
        write(folder, source, "\n".join(head(name, int(section), version, day)) + "\n" + text)


if __name__ == "__main__":
    main(*sys.argv[1:])
