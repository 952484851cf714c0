// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/logits_edit.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "golden/cases_edit.hpp"
#include "gpu/support/both_backends.hpp"
#include "gpu/support/forced_backend.hpp"
#include "gpu/support/forced_edit.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"

using bi::bf16;
using bi::fp16;
using test::compare;
using test::counts_case;
using test::edit_case;
using test::replayed;
using test::values;

namespace {

// fn(logits' type, result's type).
template <class Fn>
void for_types(Fn fn) {
  fn(bf16{}, bf16{});
  fn(fp16{}, fp16{});
  fn(float{}, float{});
  fn(bf16{}, float{});
  fn(fp16{}, float{});
}

}  // namespace

TEST_CASE("logits_edit: GPU bytes equal the reference's", "[gpu]") {
  std::int64_t outputs = 0;
  for_types([&](auto type, auto result) {
    using T = decltype(type);
    using Out = decltype(result);
    std::uint64_t seed = 1;
    const auto run = [&](const edit_case& c) {
      outputs += compare(to_string(c), [&](auto& b) { return test::run_logits_edit<T, Out>(b, c, seed); });
      ++seed;
    };
    for (const values kind : test::all_values) {
      for (const bool in_place : {false, true}) {
        if (in_place && !std::is_same_v<T, Out>) continue;
        // Aligned; odd; of less than a word; all tokens seen; none; no prompts.
        run({40, 4096, kind, in_place});
        run({40, 2203, kind, in_place, 5, 1});
        run({40, 19, kind, in_place, 0, 0, 40});
        run({14, 3000, kind, in_place, 8, 0, 100, true});
        run({27, 1025, kind, in_place, 7, 3, 0, true});
        run({27, 1056, kind, in_place, 0, 8, 9, true, false});
      }
    }
    for (std::int64_t vocab = 1; vocab <= 70; ++vocab) {
      run({13, vocab, values::hostile, std::is_same_v<T, Out> && vocab % 2 == 0, vocab % 3, vocab % 2, 20});
    }
    run({3, 151936, values::normal, std::is_same_v<T, Out>, 0, 0, 1, true});
    run({57, 151936, values::hostile, std::is_same_v<T, Out>, 0, 0, 1});  // of few rows and of many, spans differ
  });
  CHECK(outputs >= 5000000);
}

TEST_CASE("logits_edit: a row alone equals the row in batches of 1..150, whatever its neighbours", "[gpu]") {
  const edit_case c{150, 1300, values::hostile, true};
  const auto d = test::make_edit_data<bf16>(c, 3);
  test::gpu_backend gpu;
  bf16* x = nullptr;
  auto a = test::make_edit_args<bf16, bf16>(gpu, c, d, x);
  const bi::logits_edit_params* params = a.params;
  const auto batch = [&](std::int64_t first, std::int64_t n) {
    gpu.write(x, d.logits);
    a.logits = a.out = x + first * c.vocab, a.params = params + first, a.rows = n;
    gpu.run(test::logits_edit_op{}, a);
    const auto all = gpu.read(x);
    // The others are as they were.
    const std::int64_t begin = first * c.vocab, end = (first + n) * c.vocab, size = c.rows * c.vocab;
    REQUIRE(test::difference(all.data(), d.logits.data(), begin) == "");
    REQUIRE(test::difference(all.data() + end, d.logits.data() + end, size - end) == "");
    return std::vector<bf16>(all.begin() + begin, all.begin() + end);
  };
  std::vector<bf16> alone;
  for (std::int64_t r = 0; r < c.rows; ++r) {
    const auto one = batch(r, 1);
    alone.insert(alone.end(), one.begin(), one.end());
  }
  CHECK(test::difference(alone, d.logits) != "");
  for (std::int64_t n = 1; n <= c.rows; n += n < 20 ? 1 : 13) {
    for (const std::int64_t first : {std::int64_t{0}, (c.rows - n) / 2, c.rows - n}) {
      INFO("batch of " << n << " from " << first);
      REQUIRE(test::difference(batch(first, n).data(), alone.data() + first * c.vocab, n * c.vocab) == "");
    }
  }
  // Control: parameters that follow the place in the batch give other bytes.
  auto shifted = d.params;
  std::rotate(shifted.begin(), shifted.begin() + 1, shifted.end());
  params = gpu.input(shifted);
  CHECK(test::difference(batch(0, c.rows), alone) != "");
  gpu.clear();
}

TEST_CASE("logits_edit: 50 replays with changed parameters, logits, counts, lists and masks", "[gpu]") {
  edit_case c{23, 2500, values::normal, true};
  test::gpu_backend gpu;
  const auto d = test::make_edit_data<float>(c, 1);
  float* x = nullptr;
  const auto a = test::make_edit_args<float, float>(gpu, c, d, x);
  replayed graph(gpu, [&](bi::cuda_stream stream) { return bi::logits_edit(a, stream); });
  for (std::uint64_t i = 0; i < 50; ++i) {
    c.kind = test::all_values[i % 6];
    c.seen_percent = static_cast<int>(i * i % 101);
    c.sorted_bias = i % 2 == 0;
    const auto now = test::make_edit_data<float>(c, 100 + i);
    const auto write = [&](const auto* p, const auto& v) {
      using E = typename std::decay_t<decltype(v)>::value_type;
      gpu.write(const_cast<E*>(p), v);
    };
    write(a.logits, now.logits);
    write(a.params, now.params);
    write(a.counts.count, now.count);
    write(a.counts.output, now.output);
    write(a.counts.prompt, now.prompt);
    write(a.draft, now.draft);
    write(a.bias_id, now.bias_id);
    write(a.bias, now.bias);
    write(a.mask, now.mask);
    graph();
    test::host_backend host;
    float* expected = nullptr;
    host.run(test::logits_edit_op{}, test::make_edit_args<float, float>(host, c, now, expected));
    REQUIRE(test::difference(gpu.read(x), host.read(expected)) == "");
  }
  gpu.clear();
}

TEST_CASE("logits_edit: in place, rows without parameters are not touched", "[gpu]") {
  const std::int64_t rows = 40, vocab = 5000;
  test::gpu_backend gpu;
  const auto x = test::random_vector<fp16>(rows * vocab, values::hostile, 1);
  bi::logits_edit_args<fp16> a;
  fp16* const logits = gpu.input(x);
  a.logits = a.out = logits, a.rows = rows, a.vocab = vocab;
  a.params = gpu.input(std::vector<bi::logits_edit_params>(static_cast<std::size_t>(rows)));
  gpu.run(test::logits_edit_op{}, a);
  CHECK(test::difference(gpu.read(logits), x) == "");
  fp16* const out = gpu.output<fp16>(rows * vocab);
  a.out = out;
  gpu.run(test::logits_edit_op{}, a);
  CHECK(test::difference(gpu.read(out), x) == "");
  gpu.clear();
}

TEST_CASE("logits_edit: rows more than 2^31 elements apart", "[gpu]") {
  const edit_case c{3, 2203, values::hostile, true};
  const auto d = test::make_edit_data<bf16>(c, 1);
  const std::int64_t stride = (std::int64_t{1} << 30) + 1000;
  test::host_backend host;
  bf16* expected = nullptr;
  host.run(test::logits_edit_op{}, test::make_edit_args<bf16, bf16>(host, c, d, expected));
  test::gpu_backend gpu;
  bf16* small = nullptr;
  auto a = test::make_edit_args<bf16, bf16>(gpu, c, d, small);
  bf16* const x = gpu.output<bf16>(2 * stride + c.vocab);
  gpu.sync();
  const std::size_t bytes = static_cast<std::size_t>(c.vocab) * sizeof(bf16);
  for (std::int64_t r = 0; r < c.rows; ++r) {
    BI_REQUIRE_CUDA(cudaMemcpy(x + r * stride, d.logits.data() + r * c.vocab, bytes, cudaMemcpyHostToDevice));
  }
  a.logits = a.out = x, a.logits_stride = a.out_stride = stride;
  gpu.run(test::logits_edit_op{}, a);
  std::vector<bf16> got(static_cast<std::size_t>(c.rows * c.vocab));
  for (std::int64_t r = 0; r < c.rows; ++r) {
    BI_REQUIRE_CUDA(cudaMemcpy(got.data() + r * c.vocab, x + r * stride, bytes, cudaMemcpyDeviceToHost));
  }
  CHECK(test::difference(got, host.read(expected)) == "");
  gpu.clear();
}

TEST_CASE("token counts: GPU tables equal the reference's", "[gpu]") {
  std::int64_t outputs = 0;
  for (const bi::token_part part : {bi::token_part::output, bi::token_part::prompt}) {
    std::uint64_t seed = 1;
    for (const counts_case& c : {counts_case{1, 1, 5000, 0, part}, counts_case{7, 1003, 1, 3, part},
                                 counts_case{33, 4096, 70000, 0, part}, counts_case{3, 64, 257, 1, part}}) {
      outputs += compare(to_string(c), [&](auto& b) { return test::run_count_tokens(b, c, seed); });
      counts_case v = c;
      v.tokens = c.tokens % 100 + 1;  // requests
      outputs += compare(to_string(v), [&](auto& b) { return test::run_clear_counts(b, v, seed); });
      for (const bi::view_kind kind : {bi::view_kind::page_table, bi::view_kind::page_csr, bi::view_kind::run_list}) {
        outputs += compare("count_view " + to_string(v),
                           [&](auto& b) { return test::run_count_view(b, v, kind, false, seed); });
      }
      outputs += compare("count_view of runs " + to_string(v),
                         [&](auto& b) { return test::run_count_view(b, v, bi::view_kind::run_list, true, seed); });
      ++seed;
    }
  }
  CHECK(outputs >= 1000000);
}

TEST_CASE("count_view: a view of more tokens than a round of warps takes", "[gpu]") {
  const std::int64_t vocab = 500, page_size = 16, pages = 1000;
  std::vector<std::int32_t> table;
  for (std::int32_t p = 0; p < pages; ++p) table.push_back(static_cast<std::int32_t>((p * 7 + 3) % pages));
  const std::vector<std::int32_t> first = {5}, count = {15990}, slot = {1};
  const auto run = [&](auto& b) {
    bi::count_view_args a;
    a.counts = test::random_counts(b, {2, vocab, 0}, 1);
    bi::page_table view;
    view.pages = b.input(table), view.row_stride = pages;
    a.view = view, a.num_pages = pages, a.page_size = page_size;
    a.token = b.input(test::random_ids(pages * page_size, 0, vocab, 2));
    a.first = b.input(first), a.count = b.input(count), a.slot = b.input(slot), a.requests = 1;
    b.run(test::count_view_op{}, a);
    return test::read_counts(b, a.counts);
  };
  CHECK(compare("long view", run) > 0);
}

TEST_CASE("token counts: foreign slots and pages are left out", "[gpu]") {
  test::gpu_backend gpu;
  const counts_case c{4, 200, 0};
  const auto counts = test::random_counts(gpu, c, 1);
  const auto before = test::read_counts(gpu, counts);
  const std::vector<std::int32_t> foreign = {4, 0x7fffffff, -1, -0x7fffffff - 1, 5, 4};
  const std::int32_t* const slot = gpu.input(foreign);
  const std::int32_t* const zeros = gpu.input(std::vector<std::int32_t>(6));
  bi::count_tokens_args a;
  a.counts = counts, a.token = zeros, a.slot = slot, a.tokens = 6;
  gpu.run(test::count_tokens_op{}, a);
  std::swap(a.token, a.slot);
  a.token = gpu.input(std::vector<std::int32_t>{200, -1, 0x7fffffff, 201, -0x7fffffff - 1, 1000});
  gpu.run(test::count_tokens_op{}, a);
  bi::clear_counts_args clear;
  clear.counts = counts, clear.slot = slot, clear.requests = 6;
  gpu.run(test::clear_counts_op{}, clear);
  bi::count_view_args v;
  bi::page_table table;
  table.pages = slot, table.row_stride = 1;
  v.counts = counts, v.view = table, v.num_pages = 4, v.page_size = 1, v.token = zeros, v.slot = zeros, v.requests = 6;
  v.count = gpu.input(std::vector<std::int32_t>(6, 1));
  gpu.run(test::count_view_op{}, v);
  v.view.table.pages = zeros, v.slot = slot;
  gpu.run(test::count_view_op{}, v);
  v.slot = zeros, v.first = gpu.input(std::vector<std::int32_t>{1, -1, 0x7fffffff, -0x7fffffff, 2, 3});
  gpu.run(test::count_view_op{}, v);  // views of one page hold one token
  CHECK(test::difference(test::read_counts(gpu, counts), before) == "");
  gpu.clear();
}

// What an engine's graph does each step: edit by the counts, draw, count what was drawn.
TEST_CASE("logits_edit: a graph that counts its own tokens follows the reference", "[gpu]") {
  const std::int64_t rows = 5, vocab = 3000, words = bi::contract::token_words(vocab);
  const auto x = test::random_vector<float>(rows * vocab, values::normal, 1);
  std::vector<bi::logits_edit_params> params(static_cast<std::size_t>(rows));
  std::vector<std::int32_t> slot;
  for (std::int32_t r = 0; r < rows; ++r) {
    auto& p = params[static_cast<std::size_t>(r)];
    p.slot = static_cast<std::int32_t>(rows) - 1 - r;
    p.repetition = r == 3 ? 1.0f : 1.1f, p.frequency = r == 4 ? 0.0f : 0.3f, p.presence = 0.5f;
    slot.push_back(p.slot);
  }
  const auto make = [&](auto& b, auto& edit, auto& count, float*& logits) {
    count.counts.count = b.input(std::vector<std::int32_t>(static_cast<std::size_t>(rows * vocab)));
    count.counts.output = b.input(std::vector<std::uint32_t>(static_cast<std::size_t>(rows * words)));
    count.counts.slots = rows, count.counts.vocab = vocab;
    logits = b.input(x);
    edit.logits = edit.out = logits, edit.rows = rows, edit.vocab = vocab, edit.counts = count.counts;
    edit.params = b.input(params);
    count.slot = b.input(slot), count.tokens = rows;
  };
  test::gpu_backend gpu;
  test::host_backend host;
  bi::logits_edit_args<float> edit, host_edit;
  bi::count_tokens_args count, host_count;
  float *logits = nullptr, *host_logits = nullptr;
  make(gpu, edit, count, logits);
  make(host, host_edit, host_count, host_logits);
  const float* const fresh = gpu.input(x);
  std::int32_t* const token = gpu.output<std::int32_t>(rows);
  count.token = token;
  replayed graph(gpu, [&](bi::cuda_stream stream) {
    BI_REQUIRE_CUDA(cudaMemcpyAsync(logits, fresh, x.size() * sizeof(float), cudaMemcpyDeviceToDevice, stream));
    const bi::status st = bi::logits_edit(edit, stream);
    return st ? bi::count_tokens(count, stream) : st;
  });
  std::int64_t moved = 0;
  std::vector<std::int32_t> previous;
  for (int step = 0; step < 40; ++step) {
    // The reference's tokens, greedy; those of the step before are on the device when the graph counts them.
    std::copy(x.begin(), x.end(), host_logits);
    host.run(test::logits_edit_op{}, host_edit);
    std::vector<std::int32_t> best;
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* const row = host_logits + r * vocab;
      best.push_back(static_cast<std::int32_t>(std::max_element(row, row + vocab) - row));
    }
    gpu.write(token, best);
    graph();
    REQUIRE(test::difference(gpu.read(logits), host.read(host_logits)) == "");
    host_count.token = best.data();
    host.run(test::count_tokens_op{}, host_count);
    moved += step > 0 && best != previous ? 1 : 0;
    previous = best;
  }
  CHECK(moved > 20);
  CHECK(test::difference(gpu.read(count.counts.count), host.read(host_count.counts.count)) == "");
  gpu.clear();
}

TEMPLATE_TEST_CASE("logits_edit: every schedule gives the reference's bytes", "[gpu][schedule]", bf16, float) {
  using T = TestType;
  for (const test::manifest_operation& o : test::edit_operations()) {
    // Whole, and a part of a span; more tokens than the list holds; rows that are not aligned.
    for (const edit_case& c : {edit_case{40, 4096, values::hostile, true, 0, 0, 10},
                               edit_case{14, 40000, values::normal, true, 0, 0, 100, true},
                               edit_case{14, 70001, values::hostile, false, 7, 0, 5, true},
                               edit_case{30, 32768 + 8200, values::normal, false, 5, 1}}) {
      test::host_backend host;
      const auto run = [&](auto& b) { return test::run_logits_edit<T, T>(b, c); };
      test::check_forced(o, test::edit_schedules(c.in_place), to_string(c), run(host), run);
    }
  }
}

TEST_CASE("token counts: every schedule gives the reference's tables", "[gpu][schedule]") {
  const counts_case c{9, 1003, 700, 1};
  for (const test::manifest_operation& o : test::count_operations()) {
    test::host_backend host;
    const auto run = [&](auto& b) {
      if (o.operation == "clear_counts") return test::run_clear_counts(b, {9, 1003, 5});
      if (o.operation == "count_tokens") return test::run_count_tokens(b, c);
      return test::run_count_view(b, c, bi::view_kind::run_list, true);
    };
    test::check_forced(o, test::flat_schedules(), o.operation, run(host), run);
  }
}

TEST_CASE("logits_edit, token counts: bad input launches nothing", "[gpu]") {
  const edit_case c{6, 50, values::normal};
  test::gpu_backend gpu;
  bf16* out = nullptr;
  const auto good = test::make_edit_args<bf16, bf16>(gpu, c, test::make_edit_data<bf16>(c, 7), out);
  const auto says = [&](auto change) {
    auto a = good;
    change(a);
    const bi::status st = bi::logits_edit(a, gpu.stream());
    CHECK(bi::describe(st) == bi::describe(check(a)));
    return bi::describe(st);
  };
  CHECK(says([](auto& a) { a.rows = -1; }) == "logits_edit: rows = -1 must be at least 0");
  CHECK(says([](auto& a) { a.out = nullptr; }) == "logits_edit: out is null");
  CHECK(says([](auto& a) { a.params = nullptr; }) == "logits_edit: params is null");
  CHECK(says([](auto& a) { a.mask_stride = 1; }) ==
        "logits_edit: mask_stride = 1 must be at least ceil(vocab / 32) = 2");
  CHECK(says([](auto& a) { a.rows = 0, a.out = nullptr; }) == "ok");
  bi::count_tokens_args t;
  t.tokens = 3;
  CHECK(bi::describe(bi::count_tokens(t, gpu.stream())) == "count_tokens: counts.slots = 0 must be at least 1");
  t.counts = good.counts;
  CHECK(bi::describe(bi::count_tokens(t, gpu.stream())) == "count_tokens: token is null");
  bi::clear_counts_args k;
  k.counts = good.counts, k.requests = 1;
  CHECK(bi::describe(bi::clear_counts(k, gpu.stream())) == "clear_counts: slot is null");
  bi::count_view_args v;
  v.counts = good.counts, v.requests = 1, v.num_pages = -1;
  CHECK(bi::describe(bi::count_view(v, gpu.stream())) == "count_view: num_pages = -1 must be at least 0");
  CHECK(test::difference(gpu.read(out), test::poisoned<bf16>(c.rows * c.vocab)) == "");
  gpu.clear();
}
