#!/usr/bin/env python3
# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draws what bench_gemm measured, and prints a table of geometric means.

    plot.py RESULT.json [--out FOLDER]

RESULT.json comes from bench_gemm --benchmark_out=RESULT.json --benchmark_out_format=json. FOLDER, docs/plots unless
given, gets gemm_ratio.svg (cuBLASLt's time over bi's, against the tokens) and gemm_roofline.svg.
"""

import argparse
import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

COLOURS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"]
HBM_BYTES, PEAK_FLOPS = 3.0e12, 800e12  # what an H100 sustains


def load(path):
    """Microseconds as {(dtype, n, k): {m: {implementation: us}}}, and the file's context."""
    try:
        document = json.loads(pathlib.Path(path).read_text())
        entries, context = document["benchmarks"], document.get("context", {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"plot.py: {path} is no output of bench_gemm: {error!r}")
    to_us = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}
    shapes = {}
    for entry in entries:
        parts = entry["name"].split("/")  # of repetitions only the runs themselves
        if entry.get("error_occurred") or entry.get("skipped") or entry.get("run_type") == "aggregate":
            continue
        if parts[0] != "gemm" or len(parts) < 5:
            continue
        _, implementation, dtype, shape, m = parts[:5]
        n, k = map(int, shape.split("x"))
        point = shapes.setdefault((dtype, n, k), {}).setdefault(int(m), {})
        point[implementation] = entry["real_time"] * to_us[entry["time_unit"]]
    return shapes, context


def fastest_peer(point):
    return min((point[name] for name in ("cublaslt", "cublaslt_nows") if name in point), default=None)


def ratio(point, peer):
    other = fastest_peer(point) if peer is None else point.get(peer)
    return other / point["bi"] if other and "bi" in point else None


def ratios(shapes, peer=None):
    """[(ratio, m, label)] of every point that has both; above 1 bi is the faster one."""
    found = []
    for (dtype, n, k), points in shapes.items():
        for m, point in points.items():
            r = ratio(point, peer)
            if r is not None:
                found.append((r, m, f"{dtype} {n}x{k}, M = {m}"))
    return found


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def table(shapes):
    lines = [
        "| bi against | M <= 64 | 64 < M < 2048 | M >= 2048 | all | minimum |",
        "|---|---|---|---|---|---|",
    ]
    peers = [
        ("the faster of cuBLASLt with and without workspace", None),
        ("cuBLASLt, default heuristic", "cublaslt"),
        ("cuBLASLt, without workspace", "cublaslt_nows"),
        ("cuBLASLt, fastest of 8", "cublaslt_best8"),
        ("bi, launched serially", "bi_serial"),
    ]
    for name, peer in peers:
        found = ratios(shapes, peer)
        if not found:
            continue
        groups = [lambda m: m <= 64, lambda m: 64 < m < 2048, lambda m: m >= 2048, lambda m: True]
        means = [geometric_mean([r for r, m, _ in found if group(m)]) for group in groups]
        least = min(found)
        cells = ["" if mean is None else f"{mean:.3f}" for mean in means] + [f"{least[0]:.3f} ({least[2]})"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


class chart:
    """Axes, lines, points and a legend, as SVG."""

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
        path.write_text("\n".join([*self.parts, "</svg>"]) + "\n")
        print(f"wrote {path}", file=sys.stderr)


def powers(low, high, step=1):
    """[(2^i, its text)] from low to high."""
    first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
    return [(2.0**i, f"{2.0**i:g}") for i in range(first, last + 1, step)]


def colour_of(index):
    """The colour, and a dash where the colours start again."""
    dash = "" if index < len(COLOURS) else 'stroke-dasharray="6 3"'
    return COLOURS[index % len(COLOURS)], dash


def name_of(key, shapes):
    dtype, n, k = key
    return f"{n}x{k}" if len({d for d, _, _ in shapes}) == 1 else f"{dtype} {n}x{k}"


def draw_ratio(shapes, gpu, path):
    values = [r for r, _, _ in ratios(shapes)]
    tokens = [m for points in shapes.values() for m in points]
    low, high = math.floor(min(0.8, *values, 1.0) * 10) / 10, math.ceil(max(1.2, *values, 1.0) * 10) / 10
    step = 0.1 if high - low <= 1.2 else 0.5
    x_range = (min(tokens), max(max(tokens), 2 * min(tokens)))
    c = chart(
        f"bi's speed relative to the faster of cuBLASLt with and without workspace{gpu}",
        "M (tokens)",
        "cuBLASLt's time / bi's",
        x_range,
        (low, high),
        False,
    )
    first = math.ceil(low / step - 1e-9)
    y_ticks = [(i * step, f"{i * step:.1f}") for i in range(first, math.floor(high / step + 1e-9) + 1)]
    c.ticks(powers(*x_range), y_ticks)
    c.segment(c.left, c.y(1.0), c.right, c.y(1.0), "black", 'stroke-width="1.2"')
    for index, (key, points) in enumerate(shapes.items()):
        colour, dash = colour_of(index)
        line = [(m, r) for m, point in sorted(points.items()) if (r := ratio(point, None)) is not None]
        if not line:
            continue
        c.line(line, colour, dash)
        for m, r in line:
            c.dot(m, r, colour, False, f"{name_of(key, shapes)}, M = {m}: {r:.3f}")
        c.legend(name_of(key, shapes), colour, dash)
    c.write(path)


def draw_roofline(shapes, gpu, path):
    def intensity(key, m):
        _, n, k = key
        return 2 * m * n * k / (2 * (n * k + m * k + m * n))

    def teraflops(key, m, us):
        return 2 * m * key[1] * key[2] / us * 1e-6

    dots = []  # (x, y, shape's index, hollow, title)
    for index, (key, points) in enumerate(shapes.items()):
        for m, point in points.items():
            times = [(point.get("bi"), False, "bi"), (fastest_peer(point), True, "cuBLASLt")]
            for us, hollow, who in times:
                if us:
                    y = teraflops(key, m, us)
                    title = f"{who}, {name_of(key, shapes)}, M = {m}: {y:.1f} TFLOP/s"
                    dots.append((intensity(key, m), y, index, hollow, title))
    x_low, x_high = min(d[0] for d in dots), max(d[0] for d in dots)
    y_low, y_high = min(d[1] for d in dots), max(d[1] for d in dots)
    x_range = (2.0 ** math.floor(math.log2(x_low)), 2.0 ** (math.floor(math.log2(x_high)) + 1))
    y_range = (2.0 ** math.floor(math.log2(y_low)), max(1024.0, y_high))
    c = chart(f"bi's matrix product under the roof{gpu}", "FLOP / byte", "TFLOP/s", x_range, y_range, True)
    c.ticks(powers(*x_range), powers(*y_range))
    corner = PEAK_FLOPS / HBM_BYTES
    inside = [x for x in (x_range[0], corner, x_range[1]) if x_range[0] <= x <= x_range[1]]
    roof = [(x, min(PEAK_FLOPS, x * HBM_BYTES) / 1e12) for x in inside]
    roof = [(x, y) for x, y in roof if y >= y_range[0]]
    c.line(roof, "black")
    c.legend(f"{HBM_BYTES / 1e12:.1f} TB/s, {PEAK_FLOPS / 1e12:.0f} TFLOP/s", "black")
    for x, y, index, hollow, title in sorted(dots, key=lambda d: not d[3]):
        c.dot(x, y, colour_of(index)[0], hollow, title)
    for index, key in enumerate(shapes):
        c.legend(name_of(key, shapes), colour_of(index)[0])
    c.note("filled: bi, hollow: cuBLASLt")
    c.write(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", help="the JSON file that bench_gemm wrote")
    parser.add_argument("--out", default=pathlib.Path(__file__).resolve().parents[2] / "docs/plots", type=pathlib.Path)
    options = parser.parse_args()
    shapes, context = load(options.result)
    if not ratios(shapes):
        sys.exit(f"plot.py: {options.result} has no point with both bi and cuBLASLt")
    gpu = f", {context['gpu']}" if context.get("gpu") else ""
    options.out.mkdir(parents=True, exist_ok=True)
    draw_ratio(shapes, gpu, options.out / "gemm_ratio.svg")
    draw_roofline(shapes, gpu, options.out / "gemm_roofline.svg")
    print(table(shapes))


if __name__ == "__main__":
    main()
