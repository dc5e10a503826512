# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells what happens in a lab, step by step, with what Pacemaker saw and did: for demo.py and the drills."""
import signal
import sys
import textwrap
import time

from timeline import Timeline

WIDTH = 90                  # of what is told, in characters
COLOURS = {"title": "1;36", "good": "32", "warn": "33", "bad": "1;31", "dim": "2", "plain": "0"}


def paint(words, colour):
    """Coloured on a terminal, as they are elsewhere."""
    return f"\033[{COLOURS[colour]}m{words}\033[0m" if sys.stdout.isatty() else words


def clean_up_on_signals():
    """Let SIGTERM and SIGHUP end this program as Ctrl-C does: each `with` cleans up. Exit code 128 + the signal's."""
    def stop(number, _frame):
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


class Story:
    """A story, told step by step."""

    def __init__(self, lab):
        self.lab = lab
        self.timeline = Timeline(lab)
        self.begin = time.time()
        self.step_begin = self.begin
        self.steps = []                 # (words, seconds)
        self.planned = set()            # what has been told of Pacemaker's plans in this step

    def step(self, words):
        """Begin a step."""
        self.end_step()
        self.step_begin = time.time()
        self.planned = set()
        self.steps.append([words, None])
        print(paint(f"\n{len(self.steps)}. {words}", "title") +
              paint(f"   ({self.step_begin - self.begin:.0f} s since the beginning)", "dim"), flush=True)

    def end_step(self):
        """The step that is under way is done."""
        if self.steps and self.steps[-1][1] is None:
            self.steps[-1][1] = time.time() - self.step_begin

    def say(self, words, colour="plain", at=None, who=""):
        """One line: seconds since the step's begin, who, what."""
        seconds = (at or time.time()) - self.step_begin
        lines = textwrap.wrap(words, WIDTH, break_long_words=False, break_on_hyphens=False)
        print(f"  {seconds:6.1f} s  {who:<6} " + f"\n{'':19}".join(paint(line, colour) for line in lines),
              flush=True)

    def news(self):
        """Events since the last time."""
        return self.timeline.news()

    def tell_news(self):
        """What Pacemaker saw and did since the last time, in a few lines."""
        plans = {}                      # (DC, what is planned) -> events, of one decision
        for event in self.news():
            if event.at < self.step_begin - 0.05:
                continue
            if event.kind == "plan":
                plans.setdefault((event.node, event.text), []).append(event)
                continue
            if event.kind in ("probe", "monitor", "node", "notify") and event.good or event.text == "Cancelled":
                continue                # the usual
            self.tell_plans(plans)
            words = {"node": f"sees {event.subject} {event.text}",
                     "fence": f"{event.text.split()[0]} of {event.subject}, "
                              f"asked of its BMC: {event.text.rpartition(': ')[2]}"
                     }.get(event.kind, f"{event.kind} {event.subject}: {event.text}")
            colour = "good" if event.good else "warn" if event.text.startswith("degraded") else "bad"
            self.say(words, colour, event.at, event.node)
        self.tell_plans(plans)

    def tell_plans(self, plans):
        """Pacemaker's decisions, those of one kind in one line, each told once a step."""
        for (_, text), events in plans.items():
            subjects = [subject for subject in dict.fromkeys(event.subject for event in events)
                        if (subject, text) not in self.planned]
            self.planned.update((subject, text) for subject in subjects)
            verb, _, rest = text.partition(" ")
            if subjects:
                self.say(f"decides: {verb} {', '.join(subjects)} {rest}".rstrip(), "plain", events[0].at)
        plans.clear()

    def follow(self, condition, timeout, what):
        """Tell the news until `condition()`; TimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not condition():
            self.tell_news()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {timeout} s\n{self.lab.report()}")
            time.sleep(0.2)
        self.tell_news()

    def summary(self, good):
        """One line a step."""
        print()
        for number, (words, seconds) in enumerate(self.steps, 1):
            done = seconds is not None
            print(f"  {f'{seconds:5.1f} s' if done else ' failed'}  " +
                  paint(f"{number}. {words.split(':')[0]}", "good" if done else "bad"))
        print(paint(f"\n{'All went well' if good else 'It failed'}, {time.time() - self.begin:.0f} s.",
                    "good" if good else "bad"), flush=True)
