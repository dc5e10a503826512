# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix as people read it: a line per run, a table, docs/fault-matrix.md, and the totals for README.md."""
import os
import platform
import re
import statistics
import textwrap
import time

from contract.rough import ROOT

from . import nodes, webapp
from .fault import CATALOGUE, ELSEWHERE, NO_RESTART, NOTHING, RESTART
from .watch import AFTERWARDS, CLIENT, NEVER, PATIENCE
from .ways import OURS, USUAL, WAYS, Kopano

PAGE = os.path.join(ROOT, "docs/fault-matrix.md")
BEGIN, END = "<!-- matrix: written by tests/faults/matrix.py -->\n", "<!-- end of matrix -->\n"
OUR_NAMES = [way.name for way in OURS]
OTHERS = [way for way in WAYS if way not in OURS]
EARLIEST, SHARE = 1.0, 0.2          # a verdict that was waited for: seconds before the timeout, and part of it
HALF = 0.6                          # the part where others of its endpoints answer, at depth 20
NOTICED = 0.05                      # seconds: who was served sooner after the mending was never away
SLACK = 0.1                         # seconds that a process may take to come and go beside nine others
FIVE = ("ocf:kopano", "lsb:", "ocf:heartbeat:anything", "systemd, Type=simple", "port check")

CURES = {RESTART: "a restart", ELSEWHERE: "the other node", NO_RESTART: "no restart", NOTHING: "nothing to cure"}
GROUPS = {"process": "The process", "answers": "Its answers", "resources": "What it has run out of",
          "files": "Its files, the clock", "database": "The database", "server": "The server behind it"}

HEAD = """\
# Fault matrix

Written by `make matrix`, which breaks a running Kopano and lets it be looked after in six ways: %(runs)d runs, about
%(minutes).0f minutes, %(workers)d at a time.

%(where)s

## Totals

%(summary)s
"Seen" is a verdict of failure, of `ocf:kopano` also 190 (degraded); `ocf:kopano` is one resource with both monitors,
depth 10 and 20, of which the better one counts. "Restart in vain": of something that a restart doesn't cure, or that
is well. A stop that fails leaves the resource blocked, or with fencing costs the node; that of `ocf:kopano` is the
one during a schema upgrade, which it does not end, on purpose. "Told": it could be told from outside; where none is
told, the catalogue says why. "Seconds until told": until the verdict that decides, of a silent server the second one;
the median is over what each of them saw, which is not the same for all. Two rows of each kind that differ in the
daemon alone often share one cause: six of the stops that fail with `lsb:` are a frozen daemon.

%(hangs)s

## How it was measured

* One daemon is broken and looked after; what it needs runs beside it and is not looked after. In a group, as in the
  manual's configuration, each restart here also restarts all behind it.
* A look every %(interval)g s, the first one %(phase)g s after the fault. With longer intervals add half the difference,
  where one look decides; a silent server, or one that fails at a sound database, takes two (190, then 1): add one and
  a half. `ocf:kopano`'s monitors have %(timeout)g s here, so that a hang shows within that.
* Who finds a failure stops and starts the daemon, as Pacemaker does: with the advised timeouts for `ocf:kopano`,
  with %(usual)d s for `lsb:` and `anything`, whose operations the manual names no timeout for. A stop that fails
  ends it: blocked. systemd restarts on failure after 0.1 s. The port check only tells.
* "Never" means %(never)g s of watching for the others, up to %(patience)g s for `ocf:kopano`, 75 s more where
  threads that all stand still, or a spooler without sessions, are to be told, 135 s where spooler's main thread is.
* A client comes every %(client)g s: logon and getStore, LMTP greeting, IMAP login, CalDAV request; spooler: its
  sessions, monitor: it may run. "Back" is when it was served again for good, by what was done about the fault.
* Daemons are the tests' stand-ins of generation 11, or 8 where pid files or children are concerned; MariaDB is real.
* ical's configuration names the server's socket (`server_socket = file:///run/kopano/server.sock`), so its depth 20
  asks as deeply as dagent's. With the default, HTTP on port 236, it sees as little of the database as gateway does
  here, which keeps that default; `-login` rows show what a test mailbox adds.
* The others are as people run them, none at its best or worst. `lsb:` is `tests/cluster/lsb/kopano`, which finds a
  daemon by its name, so no pid file can mislead it, but a namesake can. `anything` has no monitor_hook (one could do
  what the port check does) and its pid file in /run/kopano. systemd is a model: the main process, its session,
  Restart=on-failure, which upstream's units lack, no start limit. "×3" is when the watching ended, not they.
* Nodes and networks: at the end of this page.
"""

LEGEND = """\
## The matrix

Each row is a fault at a daemon. Expected: the verdicts at depth 10 and 20, as the catalogue had them before any
run. Cells: the verdict and, in seconds after the fault, when it was there first; **back** when clients were served
again, by what was done about it; "well +n" so many seconds after somebody else had mended it. `·` is "all is well":
wrong where a restart is called for, or 190. ×n: stopped and started so often. Verdicts of `ocf:kopano`: 1 failed,
7 not running, 190 degraded; "190 9.1, 1 17.6" is first the one, then the other, which decides.

"""

CATALOGUE_HEAD = """\
## The catalogue

What is broken, what can be seen of it from outside, and why the verdict follows. "Facts" are observations of real
daemons, 8.7.25 and 11.0.2, by section; "contract" is what the agents promise.
"""


PAGES_HEAD = """\
### WebApp

webapp-health beside a real Apache with a page like WebApp's login. It restarts nothing: it says 190, and sets a node
attribute to 0, by which services or users can be moved. Cells: exit code, and seconds that the monitor took. "Well
again": seconds after it was mended, attribute included.

"""

NODES_HEAD = """\
## Nodes and networks

These are broken on a whole cluster, with the configuration as shipped, by `make drills`; commands for a live one are
in [drills](drills.md). "Away" is how long which service did not answer, in the last run on this machine, with short
intervals unless "at-length" is said. What the manual's configuration makes of them was measured
[beside it](against-the-manual.md), or concluded. `make chaos` breaks all that at random.

"""


def line(outcome):
    """One run, for a terminal."""
    if outcome.get("error"):
        return "%s-%s, %s: ERROR %s" % (outcome["fault"], outcome["daemon"], outcome["way"], outcome["error"])
    words = "%s-%s, %s: %s" % (outcome["fault"], outcome["daemon"], outcome["way"], cell(outcome).replace("*", ""))
    return "; ".join([words] + notes(outcome))


def cell(outcome):
    """What one way made of a fault, in a table's cell."""
    if outcome is None:
        return ""
    if outcome.get("error"):
        return "ERROR"
    if outcome["seen"] is None:
        return "·" + well_after(outcome)
    if outcome["way"] in OUR_NAMES:
        parts = [", ".join("%s %s" % (verdict, seconds(when)) for when, verdict, _, _ in deciding(outcome)
                           if verdict != "0")]
    else:
        parts = ["%s %s" % (outcome["verdict"], seconds(outcome["seen"]))]
    if outcome["back"] is not None:
        parts.append("**back %s**" % seconds(outcome["back"]))
    if outcome["blocked"]:
        parts.append("**blocked**")
    elif outcome["refused"]:
        parts.append("start refused")
    if outcome["restarts"] > 1 or in_vain(outcome):
        parts.append("×%d" % outcome["restarts"])
    return " ".join(parts) + well_after(outcome)


def deciding(outcome):
    """The looks until its verdict was there for good: [seconds, verdict, seconds it took, words]."""
    found = []
    for look in outcome["looks"]:
        found.append(look)
        if look[1] == outcome["verdict"]:
            break
    return found


def told(outcome):
    """Seconds until the verdict that counts was there; None: it never was."""
    if outcome["way"] not in OUR_NAMES or outcome["seen"] is None:
        return outcome["seen"]
    looks = [look for look in deciding(outcome) if look[1] == outcome["verdict"] != "0"]
    return looks[0][0] if looks else outcome["seen"]


def well_after(outcome):
    """How long after it was mended clients were served again by itself, where that is what cures it."""
    return " well +%s" % seconds(outcome["after"]) if was_away(outcome) and cure(outcome) == NO_RESTART else ""


def was_away(outcome):
    """Whether clients had to wait for it to be mended, and were served then."""
    return outcome["after"] is not None and outcome["after"] > NOTICED


def seconds(value):
    """A time, as exact as it is."""
    return "%.1f" % value


def in_vain(outcome):
    """Whether it was restarted though that could cure nothing, or again and again where it can't run."""
    allowed = 1 if cure(outcome) == ELSEWHERE else 0
    return outcome["restarts"] > allowed and cure(outcome) != RESTART


def cure(outcome):
    """What cures this fault at this daemon."""
    return CATALOGUE[outcome["fault"]].cured(outcome["daemon"])


def stuck(outcome):
    """Whether a stop failed."""
    return outcome["blocked"] or bool(outcome["planned"]) and outcome["planned"][0] != 0


def notes(outcome):
    """What has to be told besides: harm, stops that fail, service that doesn't come back."""
    found = list(outcome["harm"])
    if in_vain(outcome):
        found.append("restarted in vain")
    if outcome["planned"] and outcome["planned"][0] != 0:
        asked = CATALOGUE[outcome["fault"]].asked(outcome["daemon"])
        found.append("a planned stop refuses" if outcome["planned"][0] == asked[0] else "a planned stop fails")
    if outcome["planned"] and outcome["planned"][1:] == [0, False]:
        found.append("a planned start says it succeeded, nothing serves")
    if outcome["after"] is None and not outcome["restarts"] and not outcome["planned"] \
            and cure(outcome) in (NO_RESTART, NOTHING):
        found.append("not well %d s after it was mended" % AFTERWARDS)
    return found


class Report:
    """All outcomes (as dicts), judged. .wrong has what is not as the catalogue says, of our agents.

    pages  the outcomes of webapp.py
    """

    def __init__(self, outcomes, workers, pages=()):
        self.outcomes, self.workers, self.pages = outcomes, workers, pages
        self.by = {(one["fault"], one["daemon"], one["way"]): one for one in outcomes}
        self.rows = list(dict.fromkeys((one["fault"], one["daemon"]) for one in outcomes))
        self.wrong = [words for one in outcomes for words in self._judge(one)]
        self.wrong += ["%s, webapp-health: %s" % (one["name"], words) for one in pages for words in one["wrong"]]
        self.left = [(left, one) for one in outcomes if one["way"] in OUR_NAMES for left in one.get("late", ())]

    def _judge(self, one):
        who = "%s-%s, %s: " % (one["fault"], one["daemon"], one["way"])
        if one.get("error"):
            yield who + one["error"]
        if one["way"] not in OUR_NAMES or one.get("error"):
            return
        fault = CATALOGUE[one["fault"]]
        says = fault.expected(one["daemon"], 10 if one["way"] == "ocf10" else 20)
        if one["verdict"] != str(says.rc):
            yield who + "verdict %s, expected %s: %s" % (one["verdict"], says, one["words"])
        for _, verdict, _, words in one["looks"]:
            if verdict == one["verdict"]:
                break
            if verdict not in [str(code) for code in says.before]:
                yield who + "first %s: %s" % (verdict, words)
        if one["restarts"] and cure(one) not in (RESTART, ELSEWHERE):
            yield who + "restarted, which cures nothing"
        if cure(one) == RESTART and says.rc in (1, 7) and (one["back"] is None or one["restarts"] != 1):
            yield who + "not cured by one restart: %d, back %s; %s" % (one["restarts"], one["back"], one["said"])
        if cure(one) == ELSEWHERE and not one["refused"]:
            yield who + "started where it can't be"
        asked = fault.asked(one["daemon"])
        came = (one["planned"] or [])[:2]
        if asked and not one["restarts"] and came != [code for code in asked if code is not None]:
            yield who + "planned stop and start said %s, expected %s; %s" % (one["planned"], asked, one["said"])
        for words in one["harm"]:
            yield who + words
        if one["after"] is None and not one["restarts"] and not one["planned"] \
                and cure(one) in (NO_RESTART, NOTHING):
            yield who + "not well by itself after it was mended"
        share = HALF if fault.partly and one["way"] == "ocf20" else SHARE
        for left in one["late"]:
            if not EARLIEST - SLACK <= left <= share * Kopano.monitor_timeout + SLACK:
                yield who + "a verdict %.2f s before the end of %g s" % (left, Kopano.monitor_timeout)

    # ---- totals

    def _five(self):
        """[(title, [outcomes])]: our two depths as one resource, the better of both."""
        ours = []
        for fault, daemon in self.rows:
            pair = [self.by[fault, daemon, name] for name in OUR_NAMES if (fault, daemon, name) in self.by]
            if pair:
                ours.append(self._better(pair))
        found = [(FIVE[0], ours)]
        for title, way in zip(FIVE[1:], OTHERS):
            found.append((title, [dict(one, told=told(one)) for one in self.outcomes if one["way"] == way.name]))
        return [(title, [one for one in ones if not one.get("error")]) for title, ones in found]

    @staticmethod
    def _better(pair):
        def first(key):
            known = [one[key] for one in pair if one.get(key) is not None]
            return min(known) if known else None

        known = [told(one) for one in pair if told(one) is not None]
        return dict(pair[-1], seen=first("seen"), back=first("back"), told=min(known, default=None),
                    error=pair[0].get("error") or pair[-1]["error"],
                    restarts=max(one["restarts"] for one in pair), harm=sum((one["harm"] for one in pair), []),
                    blocked=any(stuck(one) for one in pair))

    def totals(self):
        """The table of totals, as lines of Markdown."""
        five = self._five()
        lines = [[""] + [title for title, _ in five]]

        def add(title, figure):
            lines.append([title] + [figure(ones, number == 4) for number, (_, ones) in enumerate(five)])

        def part(ones, kinds, test):
            chosen = [one for one in ones if cure(one) in kinds]
            return "%d of %d" % (sum(bool(test(one)) for one in chosen), len(chosen)) if chosen else ""

        lost = (RESTART,)
        add("a restart cures it: seen", lambda ones, port: part(ones, lost, lambda one: one["seen"] is not None))
        add("… seconds until told, median", lambda ones, port: self._median(ones, "told"))
        add("… and cured by itself", lambda ones, port: "0" if port else part(
            ones, lost, lambda one: one["back"] is not None and not one["blocked"]))
        add("… seconds until served again, median", lambda ones, port: "–" if port else self._median(ones))
        easy = self._easy(five)
        add("… the same, of the %d that all four cure" % len(easy), lambda ones, port: "–" if port else
            self._median([one for one in ones if (one["fault"], one["daemon"]) in easy]))
        add("a restart doesn't, or costs more than it mends: told", lambda ones, port: part(
            [one for one in ones if self._tellable(one)], (NO_RESTART,), lambda one: one["seen"] is not None))
        add("… seconds until told, median", lambda ones, port: self._median(ones, "told", NO_RESTART))
        add("… seconds until served again once it was mended, if away, median", lambda ones, port: self._median(
            [one for one in ones if self._tellable(one) and was_away(one)], "after", NO_RESTART))
        add("not to be told from outside at once: told", lambda ones, port: part(
            [one for one in ones if not self._tellable(one)], (NO_RESTART,),
            lambda one: one["seen"] is not None))
        add("restarts in vain", lambda ones, port: "–" if port else "%d" % sum(in_vain(one) for one in ones))
        add("stops that fail: blocked, or fenced", lambda ones, port: "–" if port else "%d" % sum(
            stuck(one) for one in ones))
        add("harm to others or to data", lambda ones, port: "%d" % sum(bool(one["harm"]) for one in ones))
        return table(lines)

    @staticmethod
    def _easy(five):
        """{(fault, daemon)} that each way cures."""
        sets = [{(one["fault"], one["daemon"]) for one in ones if one["back"] is not None and cure(one) == RESTART}
                for _, ones in five[:4]]
        return set.intersection(*sets)

    @staticmethod
    def _tellable(one):
        fault = CATALOGUE[one["fault"]]
        return any(fault.expected(one["daemon"], depth).rc for depth in (10, 20))

    @staticmethod
    def _median(ones, what="back", kind=RESTART):
        known = [one[what] for one in ones if one[what] is not None and cure(one) == kind]
        return "%.1f" % statistics.median(known) if known else "–"

    # ---- texts

    def hangs(self):
        """How early the verdicts came that were waited for."""
        half = [left for left, one in self.left if CATALOGUE[one["fault"]].partly and one["way"] == "ocf20"]
        left = [left for left, one in self.left if not (CATALOGUE[one["fault"]].partly and one["way"] == "ocf20")]
        words = []
        if left:
            words.append("%d verdicts of `ocf:kopano` on something that hangs came %.2f to %.2f s before the monitor's "
                         "timeout of %g s (to be: between 1 s and 20 %% of it)."
                         % (len(left), min(left), max(left), Kopano.monitor_timeout))
        if half:
            words.append("%d more at depth 20, where one of several endpoints is silent, after half of it (%.2f to "
                         "%.2f s before the end): the rest is for what is asked behind it."
                         % (len(half), min(half), max(half)))
        return " ".join(words)

    def _table(self, rows):
        lines = [["fault", "daemon", "expected", "cure"] + [way.title for way in WAYS] + ["besides"]]
        for fault, daemon in rows:
            one = CATALOGUE[fault]
            cells = []
            for way in WAYS:
                outcome = self.by.get((fault, daemon, way.name))
                cells.append(cell(outcome))
            besides = {}
            for way in WAYS:
                outcome = self.by.get((fault, daemon, way.name))
                if outcome and not outcome.get("error"):
                    for words in notes(outcome):
                        besides.setdefault(words, []).append(way.name)
            words = "; ".join("%s: %s" % (", ".join(names), what) for what, names in besides.items())
            expected = [str(one.expected(daemon, depth)).replace("then ", "") for depth in (10, 20)]
            lines.append(["[%s](#%s)" % (fault, fault), daemon, " / ".join(expected), CURES[one.cured(daemon)]]
                         + cells + [words])
        return table(lines)

    def summary(self):
        """What README.md says, too."""
        return "%d faults, %d rows, one for each daemon that a fault hits:\n\n%s" % (
            len({fault for fault, _ in self.rows}), len(self.rows), self.totals())

    def text(self):
        """For a terminal."""
        parts = []
        if self.rows:
            parts = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", self._table(self.rows)), self.totals(), self.hangs()]
        if self.pages:
            parts.append(table(webapp.rows(self.pages)))
        if self.wrong:
            parts.append("NOT AS THE CATALOGUE SAYS:\n" + "\n".join(self.wrong))
        return "\n\n".join(parts)

    def page(self):
        """docs/fault-matrix.md."""
        values = {
            "runs": len(self.outcomes),
            "minutes": sum(one.get("took", 0) for one in self.outcomes) / self.workers / 60,
            "workers": self.workers,
            "summary": self.summary(), "hangs": fill(self.hangs()),
            "interval": Kopano.interval, "phase": Kopano.interval / 2, "timeout": Kopano.monitor_timeout,
            "usual": USUAL, "never": NEVER, "patience": PATIENCE, "client": CLIENT,
            "where": fill("On %s; machine: %d processors, %s, Linux %s, %s." % (
                time.strftime("%Y-%m-%d"), os.cpu_count(), platform.machine(), platform.release().split("-")[0],
                "Python " + platform.python_version()))}
        parts = [HEAD % values, LEGEND.rstrip("\n") + "\n"]
        for group, title in GROUPS.items():
            rows = [(fault, daemon) for fault, daemon in self.rows if CATALOGUE[fault].group == group]
            if rows:
                parts.append("### %s\n\n%s" % (title, self._table(rows)))
        parts.append(PAGES_HEAD + table(webapp.rows(self.pages)))
        parts.append("\n".join(fill("* %s: %s. Visible: %s. Fact: %s." % (one.name, one.broken, one.visible, one.fact))
                               for one in webapp.FAULTS.values()) + "\n")
        if self.wrong:
            wrong = "\n".join("* " + words for words in self.wrong)
            parts.append("## Not as the catalogue says\n\n%s\n" % wrong)
        parts.append(CATALOGUE_HEAD)
        for name in dict.fromkeys(fault for fault, _ in self.rows):
            parts.append(entry(CATALOGUE[name]))
        parts.append(NODES_HEAD + table(nodes.rows()))
        return "\n".join(parts)

    def write(self):
        """Renew the page, and README.md's totals between its markers. ValueError where these are gone."""
        path = os.path.join(ROOT, "README.md")
        with open(path, encoding="utf-8") as file:
            before, _, after = between(file.read())
        with open(PAGE, "w", encoding="utf-8") as file:
            file.write(self.page())
        with open(path, "w", encoding="utf-8") as file:
            file.write(before + BEGIN + self.summary() + END + after)


def write_nodes():
    """Renew the page's last section, of nodes and networks, from what `make drills` has measured."""
    with open(PAGE, encoding="utf-8") as file:
        before = file.read().partition(NODES_HEAD.partition("\n")[0] + "\n")[0]
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(before + NODES_HEAD + table(nodes.rows()))


def between(text):
    """README.md: what is before the markers, between, and after. Raises ValueError."""
    before, begin, rest = text.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("README.md has no place for the totals: %s...%s" % (BEGIN, END))
    return before, inside, after


def entry(one):
    """A fault in words."""
    lines = ["Broken: %s." % one.broken, "Visible: %s." % one.visible, "Fact: %s." % one.fact]
    if one.blind:
        lines.append("Not to be told from its health: %s." % one.blind)
    return "### %s\n" % one.name + "\n".join(fill("* " + words) for words in lines) + "\n"


def table(lines):
    """Markdown of rows of cells."""
    text = ["| %s |" % " | ".join(cells) for cells in lines]
    text.insert(1, "|%s" % (" --- |" * len(lines[0])))
    return "\n".join(text) + "\n"


def fill(words):
    """Lines of 116 characters."""
    return textwrap.fill(words, 116, subsequent_indent="  " if words.startswith("* ") else "",
                         break_long_words=False, break_on_hyphens=False)
