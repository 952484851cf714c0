// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <iterator>
#include <string>
#include <vector>

#include "bi/contract/activation.hpp"
#include "bi/contract/attention.hpp"
#include "bi/contract/digest.hpp"
#include "bi/contract/logits_edit.hpp"
#include "bi/contract/norm.hpp"
#include "bi/contract/reduce.hpp"
#include "bi/contract/rope.hpp"
#include "bi/contract/sample.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/schedule/attention.hpp"
#include "bi/schedule/attention_shared.hpp"
#include "bi/schedule/flat.hpp"
#include "bi/schedule/logits_edit.hpp"
#include "bi/schedule/rows.hpp"
#include "bi/schedule/sample.hpp"
#include "support/small.hpp"

// Which schedules the GPU tests force on each operation: triples of operation, contract and schedule, by family. Every
// legal value of every field is here but for the number of thread blocks, of which there are some. An operation of a
// family that is not here is not tested under forced schedules.
namespace test {

struct manifest_operation {
  std::string operation, contract;
};
template <class Schedule>
struct manifest_entry {
  std::string operation, contract;
  Schedule schedule;
};
template <class Schedule>
std::string to_string(const manifest_entry<Schedule>& e) {
  return e.operation + "/" + e.contract + "/" + to_string(e.schedule);
}

template <class Schedule>
std::vector<manifest_entry<Schedule>> manifest(const std::vector<manifest_operation>& operations,
                                               const std::vector<Schedule>& schedules) {
  std::vector<manifest_entry<Schedule>> all;
  for (const manifest_operation& o : operations) {
    for (const Schedule& s : schedules) all.push_back({o.operation, o.contract, s});
  }
  return all;
}

// Whether `s` is one of `all` but for the number of thread blocks.
template <class Schedule>
bool covers(const std::vector<Schedule>& all, Schedule s) {
  if (s.blocks < 1) return false;
  for (const Schedule& x : all) {
    s.blocks = x.blocks;
    if (s == x) return true;
  }
  return false;
}

// Thread blocks: all the work in one, part of an H100, not quite one for each of its SMs, one for each, and more than
// there is work for.
inline constexpr std::int64_t grid_limits[] = {1, 7, 66, 131, 132, 4224};
// Of a small run: rounds, and a block for all there is.
inline std::vector<std::int64_t> grids() {
  if (small_run()) return {7, 4224};
  return {std::begin(grid_limits), std::end(grid_limits)};
}

// ---- rows, each a warp's or a thread block's

inline std::vector<manifest_operation> row_operations() {
  using namespace bi::contract;
  std::vector<manifest_operation> all;
  for (const char* norm : {rms_norm_draft::name, rms_norm_hf_draft::name, rms_norm_one_plus_draft::name}) {
    all.push_back({"rms_norm", norm});
    all.push_back({"qk_norm", norm});
  }
  all.push_back({"layer_norm", layer_norm_draft::name});
  for (const char* reduction : {"sum", "mean", "max", "min", "argmax", "argmin"}) {
    all.push_back({reduction, reduce_draft::name});
  }
  for (const char* operation : {"softmax", "log_softmax", "logsumexp"}) all.push_back({operation, softmax_draft::name});
  return all;
}
// Of all operations over rows; each takes those that fit it.
inline std::vector<bi::schedule::row_schedule> row_schedules() {
  std::vector<bi::schedule::row_schedule> all;
  for (const std::int64_t blocks : grids()) {
    all.push_back({32, 4, blocks});
    all.push_back({256, 1, blocks});
    const bool programmatic = blocks == 7 || blocks == 4224;
    for (const int held : {1, 4, 8}) all.push_back({32, 4, blocks, held, 1, programmatic});
    for (const int held : {2, 4, 8, 12, 16}) all.push_back({256, 1, blocks, held, 1, programmatic});
    const bool some = blocks == 1 || blocks == 4224;
    for (int cluster = 2; cluster <= bi::schedule::max_wide_cluster; ++cluster) {
      if (cluster > bi::schedule::max_row_cluster && !some) break;
      for (const int held : {4, 8, 12, 16}) {
        all.push_back({256, 1, clusters_at_once(cluster, blocks) * cluster, held, cluster, programmatic});
      }
    }
  }
  return all;
}
// Whether an operation of row_operations() takes rows under a schedule, on a GPU that has every kernel.
inline bool fits(const std::string& operation, const bi::schedule::row_schedule& s, std::int64_t cols,
                 bi::schedule::row_traits traits) {
  traits.hopper = true;
  if (operation.find("norm") != std::string::npos) return fits_norm(s, cols, traits);
  if (operation == "logsumexp") return fits_log_sum(s, cols, traits, false);
  if (operation.find("softmax") != std::string::npos) return fits_log_sum(s, cols, traits, true);
  if (operation.find("arg") != std::string::npos) return fits_arg_reduce(s, cols, traits, true);
  return fits_reduce(s, cols, traits, true);
}

// ---- items, each a thread's or a warp's

inline std::vector<manifest_operation> flat_operations() {
  using namespace bi::contract;
  std::vector<manifest_operation> all;
  for (const char* operation : {"silu_mul", "gelu_mul", "gelu_tanh_mul", "add"}) {
    all.push_back({operation, activation_draft::name});
  }
  all.push_back({"embedding", "none"});
  all.push_back({"rope", rope_draft::name});
  return all;
}
inline std::vector<manifest_operation> shared_operations() {
  using namespace bi::contract;
  std::vector<manifest_operation> all;
  for (const char* norm : {rms_norm_draft::name, rms_norm_hf_draft::name, rms_norm_one_plus_draft::name}) {
    all.push_back({"kv_append", std::string(norm) + "+" + rope_draft::name});
  }
  return all;
}
// Also of flat schedules.
inline std::vector<manifest_operation> count_operations() {
  std::vector<manifest_operation> all;
  for (const char* operation : {"clear_counts", "count_tokens", "count_view"}) {
    all.push_back({operation, bi::contract::logits_edit_draft::name});
  }
  return all;
}
inline std::vector<bi::schedule::flat_schedule> flat_schedules() {
  std::vector<bi::schedule::flat_schedule> all;
  for (const std::int64_t blocks : grids()) {
    for (int threads = 32; threads <= 256; threads += small_run() ? 96 : 32) all.push_back({threads, blocks});
  }
  return all;
}

// ---- tokens, each shared by a thread block

inline std::vector<bi::schedule::shared_schedule> shared_schedules() {
  std::vector<bi::schedule::shared_schedule> all;
  for (const std::int64_t blocks : grid_limits) {
    for (int threads = 32; threads <= 512; threads += 32) {
      for (const bool programmatic : {false, true}) all.push_back({threads, blocks, 1, programmatic});
      if (threads % 64 == 0) all.push_back({threads, blocks, 2 + threads / 64 % 4, true});
    }
  }
  return all;
}

// ---- rows and runs, each shared by thread blocks of the kernel's own size

inline std::vector<manifest_operation> digest_operations() {
  using namespace bi::contract;
  return {{"digest_rows", digest_words_draft::name}, {"digest_kv", digest_words_draft::name}};
}
inline std::vector<bi::schedule::digest_schedule> digest_schedules() {
  std::vector<bi::schedule::digest_schedule> all;
  for (const std::int64_t blocks : grids()) {
    for (int parts = 1; parts <= 256; parts *= 2) all.push_back({blocks, parts, blocks == 7 || blocks == 4224});
  }
  return all;
}

// ---- reductions over another dimension than the last, 32 columns a thread block

inline std::vector<bi::schedule::block_schedule> block_schedules() {
  std::vector<bi::schedule::block_schedule> all;
  for (const std::int64_t blocks : grids()) all.push_back({blocks});
  return all;
}
inline std::vector<manifest_operation> column_operations() {
  std::vector<manifest_operation> all;
  for (const char* reduction : {"sum", "mean", "max", "min"}) {
    all.push_back({std::string("reduce_columns ") + reduction, bi::contract::reduce_draft::name});
  }
  for (const char* operation : {"argmax_columns", "argmin_columns"}) {
    all.push_back({operation, bi::contract::reduce_draft::name});
  }
  return all;
}

// ---- rows, each a cluster's

inline std::vector<manifest_operation> sample_operations() {
  using namespace bi::contract;
  return {{"sample", sample_draft::name}, {"verify", sample_draft::name}};
}
inline std::vector<bi::schedule::sample_schedule> sample_schedules() {
  std::vector<bi::schedule::sample_schedule> all;
  for (const std::int64_t blocks : {1, 7, 132}) {
    if (small_run() && blocks != 7) continue;
    for (const int cluster : {1, 2, 3, 4, 5, 6, 7, 8, 16}) {
      for (const int slots : {0, 3, 5, 10}) {  // of 3..10: of those between, none does what these don't
        all.push_back({cluster, slots, clusters_at_once(cluster, blocks), slots == 3 || (slots == 0 && blocks == 7),
                       slots == 0 ? blocks != 7 : slots != 5});
      }
    }
  }
  return all;
}

// ---- rows, cut into spans

inline std::vector<manifest_operation> edit_operations() {
  return {{"logits_edit", bi::contract::logits_edit_draft::name}};
}
inline std::vector<bi::schedule::logits_edit_schedule> edit_schedules(bool in_place) {
  std::vector<bi::schedule::logits_edit_schedule> all;
  for (const std::int64_t blocks : grids()) {
    all.push_back({1, blocks});
    if (in_place) all.push_back({4, blocks});
  }
  return all;
}

// ---- attention

inline std::vector<manifest_operation> attention_operations() {
  using bi::bf16;
  using bi::fp16;
  using namespace bi::contract;
  return {{"attention 64", attention_v1<bf16>::name},
          {"attention 128", attention_v1<bf16>::name},
          {"attention 256", attention_v1<bf16>::name},
          {"attention 128", attention_v1<fp16>::name},
          {"attention 128", attention_soft_cap_v1<bf16>::name}};
}
// `packed`: query tokens, times the query heads of a KV head, of the request that has most.
inline std::vector<bi::schedule::attention_schedule> attention_schedules(std::int64_t head_dim, std::int64_t packed) {
  std::vector<bi::schedule::attention_schedule> all;
  for (const std::int64_t blocks : grids()) {
    for (const int row_warps : {1, head_dim == 256 ? 2 : 4}) {
      all.push_back({row_warps, false, blocks});
      if (packed <= 16 * row_warps) all.push_back({row_warps, true, blocks});
    }
  }
  for (const std::int64_t blocks : grids()) {
    if (head_dim <= 128) all.push_back({8, false, blocks, bi::schedule::attention_kernel::prefill});
  }
  // Blocks up to the most that the workspace is sized for; the ring as long as it can be and as short.
  for (const std::int64_t limit : grids()) {
    const std::int64_t blocks = std::min(limit, bi::schedule::attention_split_most_blocks);
    for (const int row_warps : {1, head_dim == 256 ? 2 : 4}) {
      for (const int stages : {0, row_warps > 1 || head_dim > 128 ? 2 : head_dim > 64 ? 6 : 4}) {
        if (packed > 16 * row_warps) continue;
        all.push_back({row_warps, true, blocks, bi::schedule::attention_kernel::split, stages});
        if (stages == 0) all.push_back({row_warps, true, blocks, bi::schedule::attention_kernel::split, 0, 0, true});
      }
    }
  }
  return all;
}

// Those with a cluster for each of `items`, requests times KV heads, of views of at most so many leaves.
inline std::vector<bi::schedule::attention_schedule> attention_cluster_schedules(std::int64_t head_dim,
                                                                                 std::int64_t packed,
                                                                                 std::int64_t items,
                                                                                 std::int64_t leaves) {
  std::vector<bi::schedule::attention_schedule> all;
  for (const int cluster : {2, 4, 8, 16}) {
    if (head_dim > 128 || packed > 16 || leaves > 2 * cluster) continue;
    for (const int stages : {0, 4}) {
      all.push_back({1, true, items * cluster, bi::schedule::attention_kernel::split, stages, cluster});
    }
  }
  return all;
}

// Those with clusters for the first items, and blocks beside them for the others, or equal shares of all, as the lengths are.
inline std::vector<bi::schedule::attention_schedule> attention_relay_schedules(std::int64_t head_dim,
                                                                               std::int64_t packed,
                                                                               std::int64_t requests) {
  std::vector<bi::schedule::attention_schedule> all;
  if (head_dim > 128 || packed > 16 || requests > 64) return all;
  const auto add = [&](std::int64_t clusters, int cluster, int singles, int stages, int least_leaves = 0) {
    bi::schedule::attention_schedule s = {
        1, true, clusters * cluster + singles, bi::schedule::attention_kernel::split, stages, cluster};
    s.singles = singles, s.least_leaves = least_leaves;
    all.push_back(s);
  };
  add(3, 2, 2, 4);
  add(2, 4, 3, 0);
  add(2, 4, 3, 0, 1000);  // never
  if (small_run()) return all;
  add(1, 8, 7, 0);
  add(1, 16, 4, 4);
  add(7, 16, 20, 0);
  add(30, 4, 12, 0);
  add(30, 4, 12, 0, 1000);
  add(64, 2, 4, 0);
  return all;
}

// Those, and those of whole items from a queue.
inline std::vector<bi::schedule::attention_schedule> attention_long_schedules(std::int64_t head_dim,
                                                                              std::int64_t packed,
                                                                              std::int64_t requests) {
  auto all = attention_relay_schedules(head_dim, packed, requests);
  if (head_dim > 128 || packed > 16 || requests > 256) return all;
  const auto add = [&](std::int64_t blocks, int stages) {
    bi::schedule::attention_schedule s = {1, true, blocks, bi::schedule::attention_kernel::split, stages};
    s.queued = true;
    all.push_back(s);
  };
  add(3, 4);
  add(132, 0);
  if (small_run()) return all;
  add(1, 0);
  add(2, 0);
  add(30, 4);
  add(230, 0);
  return all;
}

// Of requests that share leading tokens.
inline std::vector<bi::schedule::attention_shared_schedule> attention_shared_schedules() {
  std::vector<bi::schedule::attention_shared_schedule> all;
  for (const std::int64_t blocks : grids()) all.push_back({blocks});
  return all;
}

}  // namespace test
