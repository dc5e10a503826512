# SPDX-License-Identifier: GPL-2.0-or-later
"""What each action costs beside the upstream agents; how long start and stop take beyond the daemon itself."""
import os
import select
import threading
import time

import cases as made
import plots
from measure import Round, interleaved, median, told

STARTS = 9
# ratios of CPU to the baseline's, and seconds
LIMIT = {"0": 0.4, "10": 0.6, "20": None, "TLS": 1.0, "meta-data": 0.6, "webapp-health": 4.0}
START_LIMIT, STOP_LIMIT = 0.2, 0.1
ROUND = 0.2             # seconds of CPU for monitors of all seven agents


def actions(sheet, host, rounds):
    """CPU and wall of every monitor, of meta-data and validate-all, with plain endpoints."""
    with made.serving(host()) as world, made.neighbours(world) as others:
        baseline = made.dummypy(world)
        own = [(made.ours(world, name, "monitor", level), LIMIT[level])
               for level in ("0", "10", "20") for name in made.DAEMONS]
        own += [(made.ours(world, "webapp-health", "monitor", level), LIMIT["webapp-health"])
                for level in ("0", "10", "20")]
        peers = [made.interpreter(), made.lsb("server"), made.systemctl(), made.dummy(world)] + others
        peers = [(case, None) for case in peers if case]
        whole = {level: Round("depth " + level, [made.ours(world, name, "monitor", level) for name in made.AGENTS])
                 for level in ("10", "20")}
        interleaved([baseline] + [case for case, _ in peers + own] + list(whole.values()), rounds)
        sheet.section("A monitor", "Beside it the upstream agents, each watching its own real service: Apache, "
                      "Dovecot, MariaDB, nginx. The ratio is to `%s`, an agent in Python that only looks for a "
                      "file." % made.BASELINE)
        if not made.systemctl():
            sheet.words("`systemctl is-active` was not measured: no systemd runs here.")
        costs(sheet, baseline, peers + own)
        shown = [case for case, _ in peers + [(baseline, None)] + own if not case.name.endswith("depth 0")]
        sheet.plot("monitors.svg", "CPU of one monitor: ours beside others'", lambda path: plots.bars(
            path, "CPU of one monitor, ms (line: quartiles)",
            [(case.name, [1000 * value for value in case.cpu], case in [case for case, _ in own])
             for case in shown]))
        table = sheet.table("monitors of all seven agents, one after the other", "CPU ms", "target, s", "wall ms")
        for level, case in whole.items():
            table.add(case.name, told(case.cpu, 1000), sheet.judge(
                median(case.cpu), ROUND, "CPU seconds of all seven monitors at depth " + level),
                told(case.wall, 1000))
            sheet.target("CPU of a round of all seven monitors at depth %s" % level, "below 0.2 s",
                         "%.3f s" % median(case.cpu), median(case.cpu) < ROUND)
        other_actions(sheet, world, baseline.name, rounds)


def other_actions(sheet, world, name, rounds):
    """meta-data, validate-all, reload and reload-agent."""
    baseline = made.dummypy(world, name)
    cases = [(made.ours(world, agent, "meta-data"), LIMIT["meta-data"]) for agent in made.AGENTS]
    cases += [(made.heartbeat(world, agent, "meta-data"), None)
              for agent in ("dummypy", "Dummy", "apache", "dovecot", "mysql", "nginx")]
    looks = [(made.ours(world, agent, "validate-all", "0"), None) for agent in made.AGENTS]
    looks += [(made.ours(world, agent, action), None) for action in ("reload", "reload-agent")
              for agent in made.AGENTS if action in made.actions_of(agent)]
    interleaved([baseline] + [case for case, _ in cases + looks], max(9, rounds // 2))
    sheet.section("meta-data, validate-all, reload and reload-agent", "reload tells the daemon to read its "
                  "configuration again; reload-agent only takes note of new parameters.")
    costs(sheet, baseline, cases + looks)
    baseline = made.dummypy(world, name)
    deep = [made.ours(world, agent, "validate-all", "10") for agent in made.AGENTS]
    for case in deep:           # what it finds depends on this host; here is measured what that costs
        case.expected = None
    interleaved([baseline] + deep, max(5, rounds // 8))
    sheet.words("validate-all at level 10 looks at the whole host: it runs the daemon for its configuration, asks "
                "systemd, the cluster, Postfix and Apache. People run it, and start does not.")
    costs(sheet, baseline, [(case, None) for case in deep])


def tls(sheet, host, rounds):
    """CPU and wall of depth 10 with TLS endpoints beside the plain ones."""
    with made.serving(host(tls=True)) as world:
        baseline = made.dummypy(world)
        cases = [(made.ours(world, name, "monitor", "10", name + " monitor, depth 10, with TLS"), LIMIT["TLS"])
                 for name in ("server", "gateway", "ical")]
        interleaved([baseline] + [case for case, _ in cases], rounds)
        sheet.section("A monitor with plain and TLS endpoints")
        costs(sheet, baseline, cases)


def costs(sheet, baseline, cases):
    """A table of costs, ratios first to be judged."""
    table = sheet.table("action", "ratio", "target", "CPU ms", "wall ms")
    for case, limit in [(baseline, None)] + cases:
        ratio = median(case.cpu) / median(baseline.cpu)
        table.add(case.name, "%.2f" % ratio, sheet.judge(ratio, limit, case.name), told(case.cpu, 1000),
                  told(case.wall, 1000))


# ---- how long start and stop take beyond the daemon itself -----------------------------------------------

def overshoot(sheet, host, _rounds):
    """start's return after the first moment of service, stop's after the end of the last process; their CPU."""
    sheet.section("Start and stop", "What they add to the daemon's own time: start from the first good answer to "
                  "its return, stop from the end of the last process; %d runs each. CPU is the agent's with what "
                  "it runs, not the daemon's." % STARTS)
    table = sheet.table("daemon", "start adds s", "most", "target", "stop adds s", "most", "target",
                        "serves after s", "gone after s", "start, CPU ms", "stop, CPU ms", "start, ratio",
                        "stop, ratio")
    with host() as world:
        upstream = made.started_and_stopped(world, STARTS)
        baseline = upstream[0][1:]
        world.database.start()
        for name in made.DAEMONS:
            made.act(world, name, "start")
            world.wait_ready(name)
            made.act(world, name, "stop")
            starts, stops = [], []
            for _ in range(STARTS):
                starts.append(timed_start(world, name))
                stops.append(timed_stop(world, name))
            made.act(world, name, "start")
            world.wait_ready(name)
            row = [name]
            for samples, limit, what in ((starts, START_LIMIT, "start"), (stops, STOP_LIMIT, "stop")):
                added = [sample[1] for sample in samples]
                row += [told(added, 1, "%.3f"), "%.3f" % max(added),
                        sheet.judge(max(added), limit, "%s of %s, seconds added" % (what, name))]
            row += ["%.3f" % median([sample[0] for sample in samples]) for samples in (starts, stops)]
            row += both([sample[2] for sample in starts], [sample[2] for sample in stops], baseline)
            table.add(*row)
        starts, stops = [], []
        for _ in range(STARTS):
            starts.append(made.act(world, "webapp-health", "start"))
            stops.append(made.act(world, "webapp-health", "stop"))
        table.add("webapp-health", *[""] * 6,
                  *["%.3f" % median([result.took for result in results]) for results in (starts, stops)],
                  *both([result.cpu for result in starts], [result.cpu for result in stops], baseline))
        for title, *cpu in upstream:
            table.add(title, *[""] * 8, *both(*cpu, baseline))
    sheet.words("The ratio is to the CPU of `ocf:heartbeat:dummypy`'s start and stop, which write and remove a file. "
                "Ours wait until the daemon serves, or is gone, and load psutil and ocf.py for that.")


def both(starts, stops, baseline):
    """Cells: CPU ms of start and stop, and their ratios to the baseline's (two lists of samples)."""
    return [told(starts, 1000), told(stops, 1000)] + [
        "%.2f" % (median(mine) / median(its)) for mine, its in zip((starts, stops), baseline)]


def timed_start(world, name):
    """(seconds to the first good answer, seconds from there to start's return, CPU seconds)"""
    begin = time.monotonic()
    over, served = threading.Event(), []

    def watch():
        while not over.is_set() or not served:
            if world.main_pid(name) is not None and world.ready(name):
                served.append(time.monotonic())
                return
            time.sleep(0.002)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    result = made.act(world, name, "start")
    end = time.monotonic()
    over.set()
    watcher.join(20)
    return served[0] - begin, max(0.0, end - served[0]), result.cpu


def timed_stop(world, name):
    """(seconds to the end of the last process, seconds from there to stop's return, CPU seconds)"""
    handles = [os.pidfd_open(pid) for pid in world.pids(name)]
    ends = []

    def watch(handle):
        select.select([handle], [], [], 100)
        ends.append(time.monotonic())
        os.close(handle)

    watchers = [threading.Thread(target=watch, args=(handle,), daemon=True) for handle in handles]
    for watcher in watchers:
        watcher.start()
    begin = time.monotonic()
    result = made.act(world, name, "stop")
    end = time.monotonic()
    for watcher in watchers:
        watcher.join(20)
    return max(ends) - begin, max(0.0, end - max(ends)), result.cpu
