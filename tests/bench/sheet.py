# SPDX-License-Identifier: GPL-2.0-or-later
"""What was measured, as a page: tables, plots, and how it compares with the targets."""
import os
import platform
import time


class Table:
    """Rows of text, for a terminal and for Markdown."""

    def __init__(self, *columns):
        self.columns, self.rows = columns, []

    def add(self, *cells):
        """One more row."""
        self.rows.append([str(cell) for cell in cells])

    def text(self):
        """The table as people read it in a terminal or as Markdown."""
        lines = [list(self.columns)] + self.rows
        width = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]

        def line(cells):
            figures = [cell.rjust(size) for cell, size in zip(cells[1:], width[1:])]
            return "| %s |" % " | ".join([cells[0].ljust(width[0])] + figures)

        rule = "|%s|" % "|".join(["-" * (width[0] + 2)] + ["-" * (size + 1) + ":" for size in width[1:]])
        return "\n".join([line(lines[0]), rule] + [line(row) for row in self.rows])


class Sheet:
    """Sections with their tables and plots, in the order of the measurements; and the targets.

    missed  what has not reached its target, in words
    """

    def __init__(self):
        self.parts, self.missed, self._targets = [], [], []
        self.plots = {}         # file name -> function that draws it on a path

    def section(self, title, words=""):
        """A new section begins."""
        self.parts.append("## " + title + ("\n\n" + words if words else ""))

    def words(self, text):
        """A paragraph."""
        self.parts.append(text)

    def table(self, *columns):
        """A new table, to be filled."""
        self.parts.append(Table(*columns))
        return self.parts[-1]

    def plot(self, name, title, draw):
        """A plot: draw(path) writes the SVG file."""
        self.plots[name] = draw
        self.parts.append("![%s](benchmarks/%s)" % (title, name))

    def judge(self, value, limit, what):
        """How a figure compares with its target: a cell for its table. limit None: no target."""
        if limit is None:
            return ""
        if value > limit:
            self.missed.append("%s: %.3g, target %g" % (what, value, limit))
            return "%g missed" % limit
        return "%g" % limit

    def target(self, what, target, measured, reached):
        """One of the aims that the page begins with."""
        self._targets.append((what, target, measured, "yes" if reached else "**no**"))
        if not reached:
            self.missed.append("%s: %s, target %s" % (what, measured, target))

    def text(self, rounds):
        """The whole page."""
        head = ["# What the agents cost", "",
                "`make bench` measured this and wrote it, on %s: %s, %s, %d cores." % (
                    time.strftime("%Y-%m-%d"), _first_line("/etc/os-release", "PRETTY_NAME="),
                    "Python " + platform.python_version(), os.cpu_count()),
                "All commands of a table ran once a round, %d rounds at most, each round in another order. CPU is "
                "user and system time of the command and its children, not of the daemons (stand-ins of "
                "generation 11). Figures are medians, with the quartiles in brackets." % rounds]
        parts = ["\n".join(head)]
        if self._targets:
            table = Table("what", "target", "measured", "reached")
            for row in self._targets:
                table.add(*row)
            parts.append(table.text())
        parts.append("All targets reached, those in the tables below too." if not self.missed
                     else "Missed:\n\n" + "\n".join("* " + what for what in self.missed))
        parts += [part.text() if isinstance(part, Table) else part for part in self.parts]
        return "\n\n".join(parts) + "\n"

    def write(self, path):
        """Write the plots, in a directory beside the page."""
        folder = os.path.splitext(path)[0]
        os.makedirs(folder, exist_ok=True)
        for name, draw in self.plots.items():
            draw(os.path.join(folder, name))


def _first_line(path, prefix):
    with open(path) as file:
        return next(line[len(prefix):].strip().strip('"') for line in file if line.startswith(prefix))
