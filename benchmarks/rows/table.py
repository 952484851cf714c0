#!/usr/bin/env python3
# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes what bench_rows measured into docs/rows.md, between the lines that say so.

    table.py RESULT.json [--docs FILE]

RESULT.json comes from bench_rows --benchmark_out=RESULT.json --benchmark_out_format=json.
"""

import argparse
import json
import pathlib
import sys

BEGIN, END = "<!-- table.py: begin -->", "<!-- table.py: end -->"
TITLES = {
    "rms_norm": "rms_norm",
    "add_rms_norm": "add_rms_norm: x + residual, both written",
    "layer_norm": "layer_norm",
    "softmax": "softmax",
    "log_softmax": "log_softmax",
    "logsumexp": "logsumexp",
    "reduce": "reduce: sums",
    "digest_rows": "digest_rows, beside a read by a thread block a row",
}
PEERS = {
    "copy": "copy",
    "free": "any order",
    "cub": "CUB",
    "cub_segmented": "CUB",
}


def load(path):
    """{operation: {(dtype, shape): {implementation: (us, GB/s)}}}, in the file's order, and its context."""
    try:
        document = json.loads(pathlib.Path(path).read_text())
        entries, context = document["benchmarks"], document.get("context", {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"table.py: {path} is no output of bench_rows: {error!r}")
    points = {}
    for entry in entries:
        parts = entry["name"].split("/")
        if entry.get("error_occurred") or entry.get("skipped") or parts[0] not in TITLES:
            continue
        operation, implementation, dtype, shape = parts[:4]
        point = points.setdefault(operation, {}).setdefault((dtype, shape), {})
        point[implementation] = entry["real_time"], entry.get("GB/s", 0.0)
    return points, context


def shown(operation, shape):
    """Whether the page has the point: not every size that was measured."""
    sizes = [int(n) for n in shape.split("x")]
    if operation == "reduce" or len(sizes) != 2:
        return True
    rows, cols = sizes
    if operation == "digest_rows":
        return True
    if operation.endswith("norm"):
        return rows not in (16, 256, 1024) and cols not in (2048, 5120)
    return cols in (32000, 151936)


def us(value):
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def tables(points, context):
    yield f"{context.get('gpu', 'unknown GPU')}, commit {context.get('commit', 'unknown')}. Microseconds."
    for operation, rows in points.items():
        found = [p for p in PEERS if any(p in row for row in rows.values())]
        headings = list(dict.fromkeys(PEERS[p] for p in found))
        yield f"\n**{TITLES[operation]}**\n"
        yield "| | " + " | ".join(["bi", "TB/s"] + headings) + " |"
        yield "|---" * (len(headings) + 3) + "|"
        for (dtype, shape), row in rows.items():
            if "bi" not in row or not shown(operation, shape):
                continue
            cells = [us(row["bi"][0]), f"{row['bi'][1] / 1e3:.2f}"]
            for heading in headings:
                times = [row[p][0] for p in found if PEERS[p] == heading and p in row]
                cells.append(us(times[0]) if times else "")
            yield f"| {dtype} {shape} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result")
    default = pathlib.Path(__file__).resolve().parents[2] / "docs" / "rows.md"
    parser.add_argument("--docs", type=pathlib.Path, default=default)
    arguments = parser.parse_args()
    text = arguments.docs.read_text()
    if BEGIN not in text or END not in text:
        sys.exit(f"table.py: {arguments.docs} has no place for the table")
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    table = "\n".join(tables(*load(arguments.result)))
    arguments.docs.write_text(f"{before}{BEGIN}\n{table}\n\n{END}{after}")


if __name__ == "__main__":
    main()
