#!/usr/bin/env python3
# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes include/bi/schedule/gemm_table.hpp from what `retune` measured.

  retune --quick N K M... > benchmarks/results/h100/gemm_schedules.jsonl
  cd benchmarks/results/h100
  ../../gemm/table.py gemm_schedules.jsonl gemm_in_turn.jsonl > ../../../include/bi/schedule/gemm_table.hpp

A point of a later file replaces that of the ones before: schedules that were measured in turn with cuBLASLt, as bench_gemm
launches them, tell more than a sweep of one after another, in which the GPU's clocks drift.

A row holds the fastest schedule of one measured point; it serves the row counts from above the point before it up to its
own, if they fill more than half of its tile. Points above --most are left to the model: there, the GPU's power limit
decides more than the schedule does. So are other weights than the ten of bench_gemm, which then show what the model does
with sizes that have no row.
"""
import argparse
import json

WEIGHTS = "6144x4096,4096x4096,24576x4096,4096x12288,151936x4096,7168x8192,1280x8192,8192x1024,8192x3584,8192x8192"
HEAD = """// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

// Written by benchmarks/gemm/table.py from {source} of benchmarks/results/h100.

#include <cstdint>

#include "bi/config.hpp"

BI_NAMESPACE_BEGIN
namespace schedule {{

// The schedule that was measured to be the fastest on an H100 of 132 processors, for first_m..last_m rows of A.
struct gemm_table_row {{
  std::int64_t n, k;
  int slices;
  std::int64_t first_m, last_m;
  bool weights_first;
  int block_m, block_n, cluster_m, cluster_n, cluster_k, residents;
  bool two_rounds_at_once;  // twice as many thread blocks as one a processor
}};

inline constexpr gemm_table_row gemm_table[] = {{
    // clang-format off
"""
TAIL = """    // clang-format on
};

}  // namespace schedule
BI_NAMESPACE_END
"""


def read(paths):
    points = {}
    for path in paths:
        points.update(read_one(path))
    return points


def read_one(path):
    points = {}
    with open(path) as file:
        for line in file:
            if line.startswith("{"):
                row = json.loads(line)
                if row.get("name") == "bi":
                    points.setdefault((row["n"], row["k"], row["slices"], row["m"]), []).append(row)
    return points


def fits(row):
    """Whether the clusters of a schedule find room at once, as they did on the GPU that was measured."""
    room = {3: 39, 4: 30, 5: 22, 6: 17, 7: 15, 8: 15}
    cluster = row["cluster_m"] * row["cluster_n"] * row["cluster_k"]
    return cluster not in room or row["blocks"] <= room[cluster] * cluster


def choose(rows):
    """The fastest; of those within 1 %, the one whose blocks share most. A sweep that times a schedule by itself flatters
    blocks that share weights without a cluster: 4096x12288 at 512 rows took 72 us there either way, and 77 without a
    cluster beside other work."""
    rows = list(filter(fits, rows))
    close = 1.01 * min(row["us"] for row in rows)
    return min((row for row in rows if row["us"] <= close), key=lambda row: (-shared(row), row["us"]))


def shared(row):
    """Blocks of a cluster that share weights, where several blocks read the same."""
    return row["cluster_m"] if row["m"] > row["block_m"] else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--most", type=int, default=1024, help="the largest row count (1024)")
    parser.add_argument("--shapes", default=WEIGHTS, help="N x K to keep (those of bench_gemm)")
    options = parser.parse_args()
    shapes = {tuple(map(int, s.split("x"))) for s in options.shapes.split(",")}
    print(HEAD.format(source=" and ".join(options.sources)), end="")
    last = None
    for (n, k, slices, m), rows in sorted(read(options.sources).items()):
        if m > options.most or (n, k) not in shapes:
            continue
        best = choose(rows)
        first = last[1] + 1 if last and last[0] == (n, k, slices) else 1
        last = ((n, k, slices), m)
        if first < m:
            first = max(first, min(m, best["block_m"] // 2 + 1))
        fields = [n, k, slices, first, m, str(bool(best["weights_first"])).lower()]
        fields += [best[f] for f in ("block_m", "block_n", "cluster_m", "cluster_n", "cluster_k", "residents")]
        fields.append(str(best["blocks"] > 132).lower())
        print("    {" + ", ".join(map(str, fields)) + f"}},  // {best['us']:.2f} us")
    print(TAIL, end="")


if __name__ == "__main__":
    main()
