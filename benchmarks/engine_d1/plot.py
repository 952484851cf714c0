#!/usr/bin/env python3
# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draws how many different answers equal requests have had up to each new token.

    plot.py RESULT.json [--out FOLDER]

RESULT.json is the report of examples/engine's d1. FOLDER, docs/plots unless given, gets engine_d1.svg.
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "common"))
import chart as charts  # noqa: E402


def main():
    arguments = charts.options(__doc__, "the JSON file that engine d1 wrote")
    try:
        report = json.loads(arguments.result.read_text())
        curves = [
            (f"{arm}, {mode['mode']}", mode[arm]["unique_by_position"])
            for mode in report["modes"]
            for arm in ("bi", "baseline")
        ]
        title = f"Different answers to {report['requests']} equal requests{charts.gpu_of(report)}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"plot.py: {arguments.result} is no report of engine d1: {error!r}")
    x_range = charts.power_range([1, max(len(values) for _, values in curves)])
    y_range = charts.power_range([1, max(max(values) for _, values in curves)])
    c = charts.chart(title, "new tokens", "different answers", x_range, y_range, True)
    c.ticks(charts.powers(*x_range), charts.powers(*y_range))
    for i, (label, values) in enumerate(curves):
        colour, dash = charts.colour_of(i)[0], "" if label.startswith("bi") else 'stroke-dasharray="6 3"'
        c.line([(1 + position, count) for position, count in enumerate(values)], colour, dash)
        c.legend(label, colour, dash)
    arguments.out.mkdir(parents=True, exist_ok=True)
    c.write(arguments.out / "engine_d1.svg")


if __name__ == "__main__":
    main()
