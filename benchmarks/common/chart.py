# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Charts as SVG, and how the plots read what Google Benchmark wrote."""

import argparse
import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLOURS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"]
TO_US = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}


def options(description, result):
    """A plot's command line: the file that it draws, `result` in words, and where to."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", help=result, type=pathlib.Path)
    parser.add_argument("--out", default=ROOT / "docs/plots", type=pathlib.Path)
    return parser.parse_args()


def load(path, program):
    """[(the parts of the name, microseconds, counters)] of the runs that succeeded, and the file's context."""
    try:
        document = json.loads(pathlib.Path(path).read_text())
        entries, context = document["benchmarks"], document.get("context", {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"plot.py: {path} is no output of {program}: {error!r}")
    runs = []
    for entry in entries:
        # Of repetitions only the runs themselves.
        if entry.get("error_occurred") or entry.get("skipped") or entry.get("run_type") == "aggregate":
            continue
        parts = [p for p in entry["name"].split("/") if p != "manual_time" and not p.startswith("iterations:")]
        runs.append((parts, entry["real_time"] * TO_US[entry["time_unit"]], entry))
    return runs, context


class chart:
    """Axes, lines, points and a legend. The x axis is logarithmic."""

    width, height = 860, 470
    left, right, top, bottom = 62, 660, 40, 420

    def __init__(self, title, x_label, y_label, x_range, y_range, y_is_log):
        self.x_range, self.y_range, self.y_is_log = x_range, y_range, y_is_log
        self.legend_rows = 0
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            'font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
        ]
        middle = (self.left + self.right) / 2
        self.text(self.left, 24, title, "start", 'font-size="15"')
        self.text(middle, self.height - 12, x_label, "middle")
        y = (self.top + self.bottom) / 2
        self.text(16, y, y_label, "middle", f'transform="rotate(-90 16 {y:.1f})"')

    def text(self, x, y, text, anchor="start", more=""):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>')

    def x(self, value):
        low, high = map(math.log2, self.x_range)
        return self.left + (math.log2(value) - low) / (high - low) * (self.right - self.left)

    def y(self, value):
        scale = math.log2 if self.y_is_log else float
        low, high = map(scale, self.y_range)
        return self.bottom - (scale(value) - low) / (high - low) * (self.bottom - self.top)

    def ticks(self, x_ticks, y_ticks):
        for value, label in x_ticks:
            self.segment(self.x(value), self.top, self.x(value), self.bottom, "#e4e4e4")
            self.text(self.x(value), self.bottom + 17, label, "middle")
        for value, label in y_ticks:
            self.segment(self.left, self.y(value), self.right, self.y(value), "#e4e4e4")
            self.text(self.left - 6, self.y(value) + 4, label, "end")

    def segment(self, x0, y0, x1, y1, colour, more=""):
        self.parts.append(f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}" {more}/>')

    def line(self, points, colour, more=""):
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6" {more}/>')

    def level(self, y):
        """A black line across."""
        self.segment(self.left, self.y(y), self.right, self.y(y), "black", 'stroke-width="1.2"')

    def dot(self, x, y, colour, hollow, title):
        style = f'fill="{"none" if hollow else colour}" stroke="{colour}"'
        self.parts.append(
            f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3" {style}><title>{escape(title)}</title></circle>'
        )

    def legend(self, label, colour, more=""):
        y = self.top + 8 + 19 * self.legend_rows
        self.legend_rows += 1
        self.segment(self.right + 14, y, self.right + 38, y, colour, f'stroke-width="2.4" {more}')
        self.text(self.right + 44, y + 4, label)

    def note(self, text):
        self.text(self.right + 14, self.top + 12 + 19 * self.legend_rows, text)
        self.legend_rows += 1

    def write(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*self.parts, "</svg>"]) + "\n")
        print(f"wrote {path}", file=sys.stderr)


def powers(low, high, step=1, text=lambda value: f"{value:g}"):
    """[(2^i, its text)] from low to high."""
    first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
    return [(2.0**i, text(2.0**i)) for i in range(first, last + 1, step)]


def multiples(low, high, step, digits=1):
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(i * step, f"{i * step:.{digits}f}") for i in range(first, last + 1)]


def power_range(values):
    """From a power of two to one that is larger."""
    low = 2.0 ** math.floor(math.log2(min(values)) + 1e-9)
    return low, max(2.0 ** math.ceil(math.log2(max(values)) - 1e-9), 2 * low)


def bytes_text(value):
    for unit, size in (("GB", 2.0**30), ("MB", 2.0**20), ("KB", 2.0**10)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g} B"


def colour_of(index):
    """The colour, and a dash where the colours start again."""
    dash = "" if index < len(COLOURS) else 'stroke-dasharray="6 3"'
    return COLOURS[index % len(COLOURS)], dash


def gpu_of(context):
    return f", {context['gpu']}" if context.get("gpu") else ""


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None
