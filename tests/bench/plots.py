# SPDX-License-Identifier: GPL-2.0-or-later
"""Plots as SVG files: the same bytes for the same figures, text left as text, colours that all eyes tell apart."""
from measure import median, quartiles

# Okabe and Ito's palette
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777"
STYLES = ((BLUE, "o", "-"), (ORANGE, "s", "-"), (GREY, "^", "--"), (RED, "D", ":"), (GREEN, "v", "-."))


def _figure(width, height, rows=1):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams.update({
        "svg.hashsalt": "kopano-ocf", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False,
        "axes.spines.right": False, "legend.frameon": False, "font.family": "sans-serif"})
    from matplotlib import pyplot
    return pyplot.subplots(rows, 1, figsize=(width, height), squeeze=False, layout="constrained")


def _save(figure, path):
    from matplotlib import pyplot
    figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def bars(path, label, rows):
    """Horizontal bars of medians with their quartiles. rows: [(name, samples, whether it is ours)]"""
    figure, ((axes,),) = _figure(8, 0.26 * len(rows) + 0.9)
    for place, (_, samples, own) in enumerate(rows):
        low, high = quartiles(samples)
        axes.barh(place, median(samples), color=BLUE if own else GREY, height=0.7)
        axes.plot([low, high], [place, place], color="black", linewidth=1.2)
        axes.text(max(high, median(samples)), place, "  %.0f" % median(samples), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    _save(figure, path)


def curves(path, across, up, lines):
    """Lines through points. lines: [(name, [(x, y)])]"""
    figure, ((axes,),) = _figure(8, 4)
    for (name, points), (colour, marker, style) in zip(lines, STYLES * 3):
        axes.plot(*zip(*points), color=colour, marker=marker, linestyle=style, label=name)
    axes.set_xticks([x for x, _ in lines[0][1]])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(axis="y", color="#dddddd")
    axes.legend(fontsize=8)
    _save(figure, path)


def dots(path, across, up, groups):
    """Every sample as a dot, the median as a line. groups: [(name, {x: samples})], x in the same steps for all"""
    figure, ((axes,),) = _figure(8, 4)
    places = sorted({x for _, by_x in groups for x in by_x})
    for number, ((name, by_x), (colour, marker, _)) in enumerate(zip(groups, STYLES)):
        shift = (number - (len(groups) - 1) / 2) * 0.22
        for x, samples in by_x.items():
            middle = places.index(x) + shift
            axes.plot([middle] * len(samples), samples, marker, color=colour, alpha=0.6, markersize=5,
                      label=name if x == places[0] else None)
            axes.plot([middle - 0.08, middle + 0.08], [median(samples)] * 2, color=colour, linewidth=2)
    axes.set_xticks(range(len(places)), ["%g" % place for place in places])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(axis="y", color="#dddddd")
    axes.legend(fontsize=8)
    _save(figure, path)


def outages(path, panels):
    """What happened, in seconds from the fault. panels: [(title, [(row, begin, end, colour, words)], rows)]"""
    figure, columns = _figure(9, 1.9 * len(panels), len(panels))
    for (axes,), (title, spans, rows) in zip(columns, panels):
        last = max(end for _, _, end, _, _ in spans)
        for row, begin, end, colour, words in spans:
            axes.barh(rows.index(row), max(end - begin, last / 400), left=begin, color=colour, height=0.62)
            if words:
                axes.text(max(begin, end), rows.index(row), " " + words, va="center", fontsize=8)
        axes.axvline(0, color="black", linewidth=1)
        axes.set_yticks(range(len(rows)), rows)
        axes.invert_yaxis()
        axes.set_title(title, loc="left", fontsize=10)
        axes.margins(x=0.06)
    columns[-1][0].set_xlabel("seconds since the fault")
    _save(figure, path)
