# SPDX-License-Identifier: GPL-2.0-or-later
"""From a declaration to what is printed about it: OCF 1.1 meta-data and usage.

Written without ocf.py: meta-data must work for any user on a machine that has
nothing installed yet, and ocf.py escapes no XML.
"""
from kopano_ocf import VERSION

# The DTD of OCF 1.0 is what ocf-tester validates against; this internal subset adds
# what OCF 1.1 brought, so that one document satisfies both.
_HEAD = """<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd" [
<!ATTLIST parameter unique-group CDATA #IMPLIED reloadable (0|1) "0">
<!ATTLIST action name CDATA #REQUIRED>
]>
"""


def escape(text):
    """Text for XML, attributes included; characters that XML 1.0 forbids become '?'."""
    text = "".join(c if c >= " " or c in "\t\n" else "?" for c in str(text))
    for plain, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(plain, entity)
    return text


def shown(parameter):
    """A parameter's default as a resource's configuration would give it."""
    if parameter.kind == "boolean":
        return "true" if parameter.default else "false"
    return str(parameter.default)


def description(agent):
    """The long description: what it is, and what each monitor depth checks."""
    lines = [agent.long.strip(), "", "Monitor depths (OCF_CHECK_LEVEL; 10 when none is given):"]
    for depth in sorted(agent.depths):
        lines.append("%d: %s" % (depth, agent.depths[depth]))
    return "\n".join(lines)


def xml(agent):
    """The agent's meta-data as an XML document."""
    out = [_HEAD, '<resource-agent name="%s" version="%s">\n' % (escape(agent.name), VERSION),
           "<version>1.1</version>\n",
           '<longdesc lang="en">\n%s\n</longdesc>\n' % escape(description(agent)),
           '<shortdesc lang="en">%s</shortdesc>\n' % escape(agent.short),
           "<parameters>\n"]
    for entry in agent.parameters:
        group = ' unique="1" unique-group="%s"' % escape(entry.name) if entry.unique else ' unique="0"'
        out.append('<parameter name="%s" required="0"%s reloadable="%d">\n'
                   % (escape(entry.name), group, entry.reloadable))
        out.append('<longdesc lang="en">%s</longdesc>\n' % escape(entry.long))
        out.append('<shortdesc lang="en">%s</shortdesc>\n' % escape(entry.short))
        out.append('<content type="%s" default="%s"/>\n' % (entry.kind, escape(shown(entry))))
        out.append("</parameter>\n")
    out.append("</parameters>\n<actions>\n")
    for action in agent.actions:
        extra = ""
        if action.interval is not None:
            extra = ' interval="%ds" depth="%d"' % (action.interval, action.depth)
        out.append('<action name="%s" timeout="%ds"%s/>\n' % (escape(action.name), action.timeout, extra))
    out.append("</actions>\n</resource-agent>\n")
    return "".join(out)


def usage(agent):
    """How to call the agent, for people."""
    names = []
    for action in agent.actions:
        if action.name not in names:
            names.append(action.name)
    return ("usage: %s {%s}\n\n%s\n\nBy hand, as root:\n  OCF_ROOT=/usr/lib/ocf %s monitor; echo $?\n"
            "Parameters are passed as OCF_RESKEY_NAME: %s.\n"
            % (agent.name, "|".join(names + ["usage"]), agent.short,
               "/usr/lib/ocf/resource.d/kopano/" + agent.name,
               " ".join(entry.name for entry in agent.parameters)))
