#!/usr/bin/env python3
# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draws what bench_gemm measured, and prints a table of geometric means.

    plot.py RESULT.json [--out FOLDER]

RESULT.json comes from bench_gemm --benchmark_out=RESULT.json --benchmark_out_format=json. FOLDER, docs/plots unless
given, gets gemm_ratio.svg (cuBLASLt's time over bi's, against the tokens) and gemm_roofline.svg.
"""

import math
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "common"))
import chart as charts  # noqa: E402

HBM_BYTES, PEAK_FLOPS = 3.0e12, 800e12  # what an H100 sustains


def load(path):
    """Microseconds as {(dtype, n, k): {m: {implementation: us}}}, and the file's context."""
    runs, context = charts.load(path, "bench_gemm")
    shapes = {}
    for parts, us, _ in runs:
        if parts[0] != "gemm" or len(parts) < 5:
            continue
        _, implementation, dtype, shape, m = parts[:5]
        n, k = map(int, shape.split("x"))
        shapes.setdefault((dtype, n, k), {}).setdefault(int(m), {})[implementation] = us
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
        means = [charts.geometric_mean([r for r, m, _ in found if group(m)]) for group in groups]
        least = min(found)
        cells = ["" if mean is None else f"{mean:.3f}" for mean in means] + [f"{least[0]:.3f} ({least[2]})"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def name_of(key, shapes):
    dtype, n, k = key
    return f"{n}x{k}" if len({d for d, _, _ in shapes}) == 1 else f"{dtype} {n}x{k}"


def draw_ratio(shapes, gpu, path):
    values = [r for r, _, _ in ratios(shapes)]
    tokens = [m for points in shapes.values() for m in points]
    low, high = math.floor(min(0.8, *values, 1.0) * 10) / 10, math.ceil(max(1.2, *values, 1.0) * 10) / 10
    step = 0.1 if high - low <= 1.2 else 0.5
    x_range = (min(tokens), max(max(tokens), 2 * min(tokens)))
    c = charts.chart(
        f"bi's speed relative to the faster of cuBLASLt with and without workspace{gpu}",
        "M (tokens)",
        "cuBLASLt's time / bi's",
        x_range,
        (low, high),
        False,
    )
    c.ticks(charts.powers(*x_range), charts.multiples(low, high, step))
    c.level(1.0)
    for index, (key, points) in enumerate(shapes.items()):
        colour, dash = charts.colour_of(index)
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
    c = charts.chart(f"bi's matrix product under the roof{gpu}", "FLOP / byte", "TFLOP/s", x_range, y_range, True)
    c.ticks(charts.powers(*x_range), charts.powers(*y_range))
    corner = PEAK_FLOPS / HBM_BYTES
    inside = [x for x in (x_range[0], corner, x_range[1]) if x_range[0] <= x <= x_range[1]]
    roof = [(x, min(PEAK_FLOPS, x * HBM_BYTES) / 1e12) for x in inside]
    roof = [(x, y) for x, y in roof if y >= y_range[0]]
    c.line(roof, "black")
    c.legend(f"{HBM_BYTES / 1e12:.1f} TB/s, {PEAK_FLOPS / 1e12:.0f} TFLOP/s", "black")
    for x, y, index, hollow, title in sorted(dots, key=lambda d: not d[3]):
        c.dot(x, y, charts.colour_of(index)[0], hollow, title)
    for index, key in enumerate(shapes):
        c.legend(name_of(key, shapes), charts.colour_of(index)[0])
    c.note("filled: bi, hollow: cuBLASLt")
    c.write(path)


def main():
    options = charts.options(__doc__, "the JSON file that bench_gemm wrote")
    shapes, context = load(options.result)
    if not ratios(shapes):
        sys.exit(f"plot.py: {options.result} has no point with both bi and cuBLASLt")
    gpu = charts.gpu_of(context)
    draw_ratio(shapes, gpu, options.out / "gemm_ratio.svg")
    draw_roofline(shapes, gpu, options.out / "gemm_roofline.svg")
    print(table(shapes))


if __name__ == "__main__":
    main()
