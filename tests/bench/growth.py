# SPDX-License-Identifier: GPL-2.0-or-later
"""How a monitor's cost grows: with the processes on the node, with instances, with endpoints."""
import os

import cases as made
import plots
from measure import interleaved, median, told

PROCESSES = (0, 1000, 3000, 10000)      # beside the few of the sandbox
INSTANCES = (1, 10, 25, 50)
ENDPOINTS = (1, 2, 5, 10, 20)
FLAT = 1.2              # what a monitor may cost beside so many processes, by what it costs beside few
NO_MEMORY = "/proc/nothing"             # a HA_RSCTMP where nothing can be remembered: the daemon is searched for


def processes(sheet, host, rounds):
    """Depths 10 and 20 with thousands of processes on the node: one whose pid is known needs no scan."""
    rounds = max(7, rounds // 3)
    curves, sleepers = {}, []
    sheet.section("With the number of processes on the node", "Sleeping processes were added. The agents remember "
                  "pid and start time of their daemon and look for it only when that is lost. At depth 20 those of "
                  "spooler and monitor also look for a second instance, among all processes, every 5 minutes: that "
                  "costs as much as a pid that is unknown, and is not in these medians. An init script's `pidof` "
                  "looks through all of them each time.")
    with made.serving(host()) as world:
        try:
            for count in PROCESSES:
                while len(sleepers) < count:
                    sleepers.append(os.posix_spawn("/bin/sleep", ["sleep", "1200"], {}))
                point = [made.dummypy(world)]
                point += [made.ours(world, name, "monitor", level) for level in ("10", "20")
                          for name in made.AGENTS]
                point += [made.ours(world, "server", "monitor", "10", "server monitor, depth 10, pid unknown",
                                    rsctmp=NO_MEMORY), made.lsb("server")]
                interleaved(point, rounds)
                for case in point:
                    curves.setdefault(case.name, []).append((count, case.cpu))
        finally:
            for pid in sleepers:
                os.kill(pid, 9)
            for pid in sleepers:
                os.waitpid(pid, 0)
    table = sheet.table("action", "growth to %d" % PROCESSES[-1], "target",
                        *["CPU ms beside %d" % count for count in PROCESSES])
    worst = 0
    baseline = curves[made.BASELINE]
    for name, curve in curves.items():
        # by the baseline's in the same minutes: that one never looks at other processes
        growth = (median(curve[-1][1]) / median(baseline[-1][1])) / (median(curve[0][1]) / median(baseline[0][1]))
        known = "pid unknown" not in name and name != made.BASELINE and "init script" not in name
        if known:
            worst = max(worst, growth)
        table.add(name, "%.2f" % growth, sheet.judge(growth, FLAT if known else None, name + " beside 10,000"),
                  *[told(samples, 1000) for _, samples in curve])
    sheet.target("growth of a monitor's CPU up to %d processes, the pid being known" % PROCESSES[-1],
                 "within 20 %", "%+.0f %% at worst" % (worst * 100 - 100), worst < FLAT)
    lines = [(name, [(count, median(samples) * 1000) for count, samples in curve])
             for name, curve in curves.items()
             if "monitor, depth" not in name or name.startswith(("server", "gateway", "webapp"))]
    sheet.plot("processes.svg", "CPU of one monitor by the number of processes on the node",
               lambda path: plots.curves(path, "processes on the node besides", "CPU of one monitor, ms", lines))


def instances(sheet, host, _rounds):
    """Many gateways on one node, a resource each."""
    sheet.section("With the number of instances", "Gateways, each with a configuration, a port and a resource of "
                  "its own.")
    table = sheet.table("instances", "CPU ms of one monitor", "CPU ms of all, for each")
    one, each = [], []
    with host() as world:
        world.database.start()
        made.act(world, "server", "start")
        running = 0
        for count in INSTANCES:
            while running < count:
                running += 1
                another(world, running)
            points = [made.ours(world, "gateway", "monitor", "10", str(number), instance="gateway%d" % number,
                                config=config(world, number)) for number in range(1, count + 1)]
            interleaved(points[:1], 15)
            one.append((count, list(points[0].cpu)))
            interleaved(points, 3)
            each.append((count, [sample for case in points for sample in case.cpu[-3:]]))
            table.add(count, told(one[-1][1], 1000), told(each[-1][1], 1000))
    sheet.plot("instances.svg", "CPU of one monitor by the number of instances", lambda path: plots.curves(
        path, "gateways on the node", "CPU of one monitor, ms",
        [("one of them, again and again", [(count, median(samples) * 1000) for count, samples in one]),
         ("all in turn", [(count, median(samples) * 1000) for count, samples in each])]))


def config(world, number):
    """Path of the configuration of gateway number so and so."""
    return "%s/gateway%d.cfg" % (world.etc, number)


def another(world, number):
    """One more gateway, by its agent."""
    values = dict(world.settings["gateway"], imap_listen="127.0.0.1:%d" % (20000 + number), pop3_listen="",
                  log_file="%s/gateway%d.log" % (world.log, number))
    with open(config(world, number), "w") as file:
        file.write("".join("%s = %s\n" % item for item in values.items()))
    made.act(world, "gateway", "start", instance="gateway%d" % number, params={"config": config(world, number)})


def endpoints(sheet, host, rounds):
    """A gateway with more and more endpoints, plain or with TLS."""
    sheet.section("With the number of endpoints", "A gateway with so many IMAP endpoints, all asked at once.")
    table = sheet.table("endpoints", "plain, CPU ms", "plain, wall ms", "TLS, CPU ms", "TLS, wall ms")
    curves = {"plain": [], "TLS": []}
    with host(tls=True) as world:
        world.database.start()
        made.act(world, "server", "start")
        for count in ENDPOINTS:
            row = [count]
            for kind, points in curves.items():
                where = " ".join("127.0.0.1:%d" % (21000 + number) for number in range(count))
                world.write_config("gateway", pop3_listen="", pop3s_listen="",
                                   imap_listen=where if kind == "plain" else "",
                                   imaps_listen=where if kind == "TLS" else "")
                made.act(world, "gateway", "start")
                case = made.ours(world, "gateway", "monitor", "10")
                interleaved([case], max(7, rounds // 3))
                made.act(world, "gateway", "stop")
                points.append((count, median(case.cpu) * 1000))
                row += [told(case.cpu, 1000), told(case.wall, 1000)]
            table.add(*row)
    sheet.plot("endpoints.svg", "CPU of one monitor by the number of endpoints", lambda path: plots.curves(
        path, "IMAP endpoints of the gateway", "CPU of one monitor, ms", list(curves.items())))
