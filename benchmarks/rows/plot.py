#!/usr/bin/env python3
# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draws what bench_rows measured.

    plot.py RESULT.json [--out FOLDER]

RESULT.json comes from bench_rows --benchmark_out=RESULT.json --benchmark_out_format=json. FOLDER, docs/plots unless
given, gets rows_copy.svg (the time of a copy of as many bytes over bi's), rows_peers.svg (the times of CUB and of
kernels that add in any order over bi's) and rows_bandwidth.svg.
"""

import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "common"))
import chart as charts  # noqa: E402

OPERATIONS = ["rms_norm", "add_rms_norm", "layer_norm", "softmax", "log_softmax", "logsumexp", "reduce", "digest_rows"]


def load(path):
    """{(operation, dtype, columns): [(bytes, shape, {implementation: us})]}, sorted by bytes, and the context."""
    runs, context = charts.load(path, "bench_rows")
    points = {}
    for parts, us, entry in runs:
        if parts[0] not in OPERATIONS or len(parts) < 4:
            continue
        operation, implementation, dtype, shape = parts[:4]
        point = points.setdefault((operation, dtype, shape), {"bytes": None})
        point[implementation] = us
        if implementation == "bi":
            point["bytes"] = entry["GB/s"] * us * 1e3
    lines = {}
    for (operation, dtype, shape), point in points.items():
        if point["bytes"] is None:
            continue
        sizes = shape.split("x")
        # A line: rows of one length, or one row of any.
        cols = sizes[1] if len(sizes) == 2 else "any" if len(sizes) == 1 else "x".join(sizes[1:])
        lines.setdefault((operation, dtype, cols), []).append((point.pop("bytes"), shape, point))
    return {key: sorted(line, key=lambda p: p[0]) for key, line in lines.items()}, context


def peer_of(operation, shape, point):
    """The fastest peer that does the same work, and its name; a thread block for one huge row is no peer."""
    names = ["cub", "cub_segmented", "cub_run_to_run", "cub_gpu_to_gpu"]
    if operation != "reduce" or "x" in shape:
        names.append("free")
    found = [(point[name], name) for name in names if name in point]
    return min(found, default=None)


def draw(lines, ratio, title, y_label, y_range, y_is_log, y_ticks, level, path):
    """ratio(operation, bytes, shape, point): a value and what it is of, or None. Values are cut at the axis."""
    drawn = {}
    for (operation, dtype, cols), line in lines.items():
        values = [(b, r) for b, shape, point in line if (r := ratio(operation, b, shape, point)) is not None]
        if values:
            drawn[operation, dtype, cols] = values
    x_range = charts.power_range([b for values in drawn.values() for b, _ in values])
    c = charts.chart(title, "bytes read and written", y_label, x_range, y_range, y_range[0] > 0 and level is not None)
    c.ticks(charts.powers(*x_range, 3, charts.bytes_text), y_ticks)
    if level is not None:
        c.level(level)
    for operation in OPERATIONS:
        colour, _ = charts.colour_of(OPERATIONS.index(operation))
        mine = [(key, values) for key, values in drawn.items() if key[0] == operation]
        for (_, dtype, cols), values in mine:
            dash = 'stroke-dasharray="5 3"' if dtype != "bf16" else ""
            points = [(b, min(max(r, y_range[0]), y_range[1])) for b, (r, _) in values]
            c.line(points, colour, f'stroke-opacity="0.55" {dash}')
            for (b, y), (_, (r, text)) in zip(points, values):
                c.dot(b, y, colour, dtype != "bf16", f"{operation} {dtype} {text}: {r:.3f}")
        if mine:
            c.legend(operation, colour)
    c.note("filled: bf16, hollow: fp32")
    c.write(path)


def to_copy(_, __, shape, point):
    return (point["copy"] / point["bi"], f"{shape}, {point['bi']:.2f} us") if "copy" in point else None


def to_peer(operation, _, shape, point):
    peer = peer_of(operation, shape, point)
    return None if peer is None else (peer[0] / point["bi"], f"{shape} against {peer[1]}, {point['bi']:.2f} us")


def bandwidth(_, size, shape, point):
    return size / point["bi"] * 1e-6, f"{shape}, {point['bi']:.2f} us"


def table(lines):
    """Geometric means over the points that move 64 MB or more."""
    yield "| | against a copy | against the fastest peer | least |"
    yield "|---|---|---|---|"
    for operation in OPERATIONS:
        cells = []
        least = None
        for ratio in (to_copy, to_peer):
            found = []
            for key, line in lines.items():
                for size, shape, point in line:
                    if key[0] == operation and size >= 6.4e7 and (r := ratio(operation, size, shape, point)):
                        found.append((r[0], f"{key[1]} {shape}"))
            mean = charts.geometric_mean([r for r, _ in found])
            cells.append("" if mean is None else f"{mean:.3f}")
            if found:
                least = min(found)
        if least:
            yield f"| {operation} | " + " | ".join(cells) + f" | {least[0]:.3f} ({least[1]}) |"


def main():
    options = charts.options(__doc__, "the JSON file that bench_rows wrote")
    lines, context = load(options.result)
    if not lines:
        sys.exit(f"plot.py: {options.result} has no point of bi's")
    gpu = charts.gpu_of(context)
    draw(
        lines,
        to_copy,
        f"Operations over rows beside a copy of as many bytes{gpu}",
        "the copy's time / bi's",
        (0.25, 2.0),
        True,
        [(0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (0.9, "0.9"), (1.0, "1"), (1.25, "1.25"), (1.5, "1.5"), (2.0, "2")],
        1.0,
        options.out / "rows_copy.svg",
    )
    draw(
        lines,
        to_peer,
        f"Operations over rows beside CUB's and any-order kernels{gpu}",
        "the fastest peer's time / bi's",
        (0.5, 8.0),
        True,
        [(0.5, "0.5"), (0.75, "0.75"), (1.0, "1"), (1.5, "1.5"), (2.0, "2"), (4.0, "4"), (8.0, "8+")],
        1.0,
        options.out / "rows_peers.svg",
    )
    draw(
        lines,
        bandwidth,
        f"Operations over rows{gpu}",
        "TB/s, read once and written once",
        (0.0, 3.5),
        False,
        charts.multiples(0.0, 3.5, 0.5),
        None,
        options.out / "rows_bandwidth.svg",
    )
    print("\n".join(table(lines)))


if __name__ == "__main__":
    main()
