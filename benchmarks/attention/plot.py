#!/usr/bin/env python3
# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draws what bench_attention measured.

    plot.py RESULT.json [--out FOLDER]

RESULT.json comes from bench_attention --benchmark_out=RESULT.json --benchmark_out_format=json. FOLDER, docs/plots unless
given, gets attention_decode.svg (FlashInfer's recorded time over bi's, against the bytes of K and V),
attention_bandwidth.svg and attention_prefill.svg.
"""

import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "common"))
import chart as charts  # noqa: E402


def load(path):
    """Runs as {kind: [(implementation, heads, the rest of the name, us, counters)]}, and the context."""
    runs, context = charts.load(path, "bench_attention")
    kinds = {}
    for parts, us, entry in runs:
        if len(parts) >= 5 and parts[0] in ("decode", "prefill"):
            kind, implementation, heads_q, heads_kv = parts[:4]
            heads = f"{heads_q}/{heads_kv}"
            kinds.setdefault(kind, []).append((implementation, heads, parts[4:], us, entry))
    return kinds, context


def kv_bytes(us, entry):
    return entry["GB/s"] * us * 1e3


def named(counter):
    return lambda us, entry: entry[counter]


def draw_decode(runs, value, title, y_label, y_range, y_ticks, level, path):
    """One line for each number of heads: bi's; hollow: the schedule whose bits follow the batch."""
    sizes = [kv_bytes(us, entry) for _, _, _, us, entry in runs]
    c = charts.chart(title, "bytes of K and V", y_label, charts.power_range(sizes), y_range, False)
    c.ticks(charts.powers(*c.x_range, 2, charts.bytes_text), y_ticks)
    if level is not None:
        c.level(level)
    for index, heads in enumerate(dict.fromkeys(run[1] for run in runs)):
        colour, _ = charts.colour_of(index)
        for implementation, hollow in (("bi_free", True), ("bi", False)):
            mine = sorted(
                (kv_bytes(us, entry), value(us, entry), rest, us)
                for name, of, rest, us, entry in runs
                if name == implementation and of == heads
            )
            for size, y, rest, us in mine:
                shown = min(max(y, y_range[0]), y_range[1])
                text = f"{implementation}, {heads} heads, batch {rest[0]}, {rest[1]} tokens, {us:.1f} us: {y:.3f}"
                c.dot(size, shown, colour, hollow, text)
        c.legend(f"{heads} heads of q/KV", colour)
    c.note("filled: bi")
    c.note("hollow: bi_free")
    c.write(path)


def draw_prefill(runs, gpu, path):
    tokens = [int(rest[0]) for _, _, rest, _, _ in runs]
    rates = [entry["TFLOP/s"] for _, _, _, _, entry in runs]
    top = 100.0 * (int(max(rates) / 100.0) + 1)
    c = charts.chart(
        f"Causal prefill of one request{gpu}", "tokens", "TFLOP/s", charts.power_range(tokens), (0.0, top), False
    )
    c.ticks(charts.powers(*c.x_range), charts.multiples(0.0, top, 100.0, 0))
    keys = dict.fromkeys((implementation, heads) for implementation, heads, _, _, _ in runs)
    for index, key in enumerate(keys):
        colour, dash = charts.colour_of(index)
        mine = sorted((int(rest[0]), entry["TFLOP/s"], us) for i, h, rest, us, entry in runs if (i, h) == key)
        c.line([(x, y) for x, y, _ in mine], colour, dash)
        for x, y, us in mine:
            c.dot(x, y, colour, False, f"{key[0]}, {key[1]} heads, {x} tokens, {us:.1f} us: {y:.0f} TFLOP/s")
        c.legend(f"{key[0]}, {key[1]} heads of q/KV", colour, dash)
    c.write(path)


def table(runs):
    """Geometric means of the ratio over the points of a size."""
    groups = [("up to 16 MB", 0.0, 1.6e7), ("16 MB to 256 MB", 1.6e7, 2.56e8), ("more", 2.56e8, float("inf"))]
    yield "| FlashInfer's time over that of | " + " | ".join(name for name, _, _ in groups) + " | all |"
    yield "|---" * (len(groups) + 2) + "|"
    for implementation in dict.fromkeys(run[0] for run in runs):
        for counter, name in (("ratio", "its fastest"), ("ratio_invariant", "its fastest batch-invariant form")):
            mine = [(kv_bytes(us, e), e[counter]) for i, _, _, us, e in runs if i == implementation and counter in e]
            means = [
                charts.geometric_mean([r for size, r in mine if low < size <= high]) for _, low, high in groups
            ] + [charts.geometric_mean([r for _, r in mine])]
            cells = ["" if mean is None else f"{mean:.3f}" for mean in means]
            yield f"| {implementation}, {name} | " + " | ".join(cells) + " |"


def main():
    options = charts.options(__doc__, "the JSON file that bench_attention wrote")
    kinds, context = load(options.result)
    if not kinds:
        sys.exit(f"plot.py: {options.result} has neither decode nor prefill")
    gpu = charts.gpu_of(context)
    if decode := kinds.get("decode"):
        draw_decode(
            decode,
            named("ratio"),
            f"Decode beside FlashInfer's fastest kernel{gpu}",
            "FlashInfer's time / bi's",
            (0.7, 1.3),
            charts.multiples(0.7, 1.3, 0.1),
            1.0,
            options.out / "attention_decode.svg",
        )
        draw_decode(
            decode,
            lambda us, entry: entry["GB/s"] * 1e-3,
            f"Decode{gpu}",
            "TB/s of K and V",
            (0.0, 3.5),
            charts.multiples(0.0, 3.5, 0.5),
            None,
            options.out / "attention_bandwidth.svg",
        )
        print("\n".join(table(decode)))
    if prefill := kinds.get("prefill"):
        draw_prefill(prefill, gpu, options.out / "attention_prefill.svg")


if __name__ == "__main__":
    main()
