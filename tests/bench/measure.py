# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command costs: CPU seconds of it and of its own children, and seconds by the wall clock."""
import os
import random
import statistics
import time


class Case:
    """One command to measure.

    expected    its exit code; None: whatever it is
    cpu, wall   samples in seconds
    """

    def __init__(self, name, words, environment, expected=0):
        self.name, self.words, self.environment, self.expected = name, words, environment, expected
        self.cpu, self.wall = [], []

    def run(self):
        """(CPU seconds, wall seconds) of one run. Raises AssertionError for an unexpected exit code."""
        silent = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
        begin = time.perf_counter()
        pid = os.posix_spawn(self.words[0], self.words, self.environment, file_actions=silent, setpgroup=0)
        _, status, usage = os.wait4(pid, 0)
        took = time.perf_counter() - begin
        code = os.waitstatus_to_exitcode(status)
        assert self.expected in (code, None), "%s: exit code %s instead of %s" % (self.name, code, self.expected)
        return usage.ru_utime + usage.ru_stime, took


class Round(Case):
    """Several commands, one after the other, as one."""

    def __init__(self, name, cases):
        super().__init__(name, [], {})
        self._cases = cases

    def run(self):
        """(CPU seconds, wall seconds) of all of them."""
        cpu, wall = zip(*[case.run() for case in self._cases])
        return sum(cpu), sum(wall)


def interleaved(cases, rounds, seed=0):
    """Runs every case once a round, each round in another order, so that what disturbs one disturbs all."""
    order = random.Random(seed)
    for case in cases:
        for _ in range(2):          # files cached, byte code written, state of the first call remembered
            case.run()
    for _ in range(rounds):
        for case in order.sample(cases, len(cases)):
            cpu, wall = case.run()
            case.cpu.append(cpu)
            case.wall.append(wall)


def median(samples):
    """The middle one."""
    return statistics.median(samples)


def quartiles(samples):
    """What a quarter of the samples stay below, and what three quarters do."""
    if len(samples) < 2:
        return samples[0], samples[0]
    first, _, third = statistics.quantiles(samples, n=4, method="inclusive")
    return first, third


def told(samples, factor=1.0, form="%.1f"):
    """Median and quartiles in one cell of a table, as in 24.1 (23.8-25.0)."""
    return "%s (%s-%s)" % tuple(form % (value * factor) for value in (median(samples), *quartiles(samples)))
