// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#define LANES_SHARED_AT_LAUNCH
#include "lanes/warps.hpp"
// The lanes' words come first.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "bi/kernel/sample.cuh"
#include "bi/reference/sample.hpp"
#include "bi/sample.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

// The kernel of sampling on the CPU, as it is on architectures without clusters: one thread block a row, several rows one
// after another, logits read from global memory.

namespace {

using bi::sample_params;

std::vector<sample_params> settings(std::int64_t rows, std::int64_t vocab, test::generator& g) {
  std::vector<sample_params> all;
  for (std::int64_t r = 0; r < rows; ++r) {
    sample_params p;
    const float temperatures[] = {1.0f, 0.0f, 0.7f, 1e-3f, 50.0f};
    const float top_ps[] = {0.9f, 0.5f, 0.999f, 1e-12f, 1.0f, 0.0f};
    p.temperature = temperatures[g.chance(60) ? 0 : g.below(5)];
    p.top_p = top_ps[g.below(6)];
    p.top_k = g.chance(60) ? 0 : static_cast<std::int32_t>(g.chance(50) ? g.between(1, 200) : g.between(1, vocab));
    p.min_p = g.chance(80) ? 0.0f : 0.05f;
    p.seed = g.next();
    p.ordinal = static_cast<std::uint32_t>(r);
    all.push_back(p);
  }
  return all;
}

struct outputs {
  std::vector<std::int32_t> token;
  std::vector<float> logprob;
  std::vector<std::uint32_t> flags;

  explicit outputs(std::int64_t rows)
      : token(static_cast<std::size_t>(rows), -2),
        logprob(static_cast<std::size_t>(rows), -3.0f),
        flags(static_cast<std::size_t>(rows), 77u) {}
};

// The kernel's outputs are the reference's.
template <class T>
void check(const std::vector<T>& logits, const std::vector<sample_params>& params, int blocks, bool once,
           test::generator& g, bool logprob = true) {
  const auto rows = static_cast<std::int64_t>(params.size()), vocab = static_cast<std::int64_t>(logits.size()) / rows;
  outputs expected(rows), got(rows);
  bi::sample_args<T> a;
  a.logits = logits.data(), a.params = params.data(), a.rows = rows, a.vocab = vocab;
  a.token = expected.token.data(), a.logprob = logprob ? expected.logprob.data() : nullptr,
  a.flags = expected.flags.data();
  REQUIRE(bi::describe(bi::reference::sample(a, 1)) == "ok");
  bi::kernel::sample_kernel_params<T, sample_params> p = {};
  p.logits = logits.data(), p.logits_stride = vocab, p.rows = rows, p.clusters = blocks;
  p.vocab = static_cast<int>(vocab), p.cluster = 1, p.part = static_cast<int>((vocab + 8191) / 8192 * 8192);
  p.settings = params.data(), p.token = got.token.data(), p.logprob = logprob ? got.logprob.data() : nullptr,
  p.flags = got.flags.data();
  p.saw_nan = bi::sample_saw_nan, p.no_candidate = bi::sample_no_candidate, p.bad_params = bi::sample_bad_params;
  p.aligned = bi::device::vector_aligned(logits.data(), vocab), p.once = once;
  p.draws_all = !logprob && bi::kernel::draws_all<T>(p.part, 0, 1);
  REQUIRE((p.draws_all || logprob));
  lanes::shared_memory() = bi::kernel::shared;
  std::memset(bi::kernel::shared, 0x5a, bi::kernel::sample_memory_bytes);
  lanes::launch(blocks, bi::kernel::sample_threads,
                bi::kernel::sample_kernel<bi::contract::sample_draft, T, sample_params>, p, g);
  INFO(rows << " rows of " << vocab << ", " << blocks << " blocks, once " << once);
  REQUIRE(test::difference(got.token, expected.token) == "");
  REQUIRE(test::difference(got.logprob, expected.logprob) == "");
  REQUIRE(test::difference(got.flags, expected.flags) == "");
}

template <class T>
void check(std::int64_t rows, std::int64_t vocab, int blocks, bool once, test::values kind, float factor,
           test::generator& g, bool logprob = true, int above = 0) {
  auto logits = test::random_vector<T>(rows * vocab, kind, g.next());
  for (T& x : logits) x = bi::cvt_rn<T>(bi::mul_rn(bi::to_f32(x), factor));
  for (std::int64_t i = 0; i < rows * above; ++i) {
    const float x = 6.0f + 0.25f * static_cast<float>(g.below(20));
    logits[static_cast<std::size_t>(i / above * vocab + g.between(0, vocab - 1))] = bi::cvt_rn<T>(x);
  }
  auto params = settings(rows, vocab, g);
  for (sample_params& each : params) {
    if (!logprob && g.chance(70)) each.top_k = 0, each.top_p = 1.0f, each.min_p = 0.0f;
    if (above > 0) each.top_k = 0, each.temperature = 1.0f;
  }
  INFO("values " << static_cast<int>(kind) << ", factor " << factor);
  check(logits, params, blocks, once, g, logprob);
}

// Of each row 20% are surely kept by top-p, and 40% so close to each other that all are about its border, of so many values.
template <class T>
void check_border(std::int64_t rows, std::int64_t vocab, std::uint32_t values, test::generator& g,
                  test::generator& turns) {
  auto params = settings(rows, vocab, g);
  std::vector<T> logits;
  for (sample_params& each : params) {
    double sure = 0, about = 0, rest = 0;
    for (std::int64_t i = 0; i < vocab; ++i) {
      const std::int64_t part = g.below(10);
      const auto drawn = static_cast<float>(g.below(values)) / static_cast<float>(values);
      const float x = part < 2 ? 2.75f + drawn : part < 6 ? 2.5f + 0x1p-12f * drawn : 0.5f + drawn;
      logits.push_back(bi::cvt_rn<T>(x));
      (part < 2 ? sure : part < 6 ? about : rest) += std::exp(static_cast<double>(bi::to_f32(logits.back())));
    }
    const double in_between = 0.05 + 0.05 * static_cast<double>(g.below(12));
    each.temperature = 1.0f, each.top_k = 0, each.min_p = 0.0f;
    each.top_p = static_cast<float>((sure + in_between * about) / (sure + about + rest));
  }
  check(logits, params, 1, true, turns);
}

}  // namespace

TEST_CASE("sample: its kernel draws the reference's tokens on the CPU, rows of all settings after another",
          "[lanes][sample]") {
  test::generator g(1);
  for (const bool once : {true, false}) {
    for (const test::values kind : test::all_values) {
      check<bi::bf16>(8, 900, 2, once, kind, 1.0f, g);
      check<float>(6, 2001, 1, once, kind, 2.0f, g);
      check<bi::fp16>(4, 9001, 1, once, kind, 1.0f, g);
      // With no log-probability a draw by temperature alone looks at the whole part first.
      check<float>(6, 9001, 1, once, kind, 1.0f, g, false);
      check<bi::bf16>(8, 30000, 2, once, kind, 1.0f, g, false);
    }
    for (const float factor : {1e-3f, 1e3f, 1e6f, 1e30f})
      check<bi::bf16>(6, 1500, 1, once, test::values::ties, factor, g);
  }
}

// What a row's bins were chosen by has none of them, and some are equal: the border is among them, or close by.
TEST_CASE("sample: of rows with a few values far above the others, the border among them is settled on the CPU",
          "[lanes][sample]") {
  test::generator g(3);
  for (const int above : {2, 5, 12, 300}) {
    check<float>(12, 24000, 1, true, test::values::normal, 1.0f, g, true, above);
    check<bi::bf16>(6, 40000, 1, true, test::values::normal, 1.0f, g, true, above);
  }
}

// Of many equal values, those about the border leave a token in doubt more often.
TEST_CASE("sample: of rows with few different values, a token in doubt and a long list are settled on the CPU",
          "[lanes][sample]") {
  test::generator g(2);
  for (int round = 0; round < 3; ++round) {
    check<float>(20, 6000, 1, true, test::values::ties, 0.5f, g);
    check<bi::bf16>(20, 9000, 1, true, test::values::ties, 1.0f, g);
  }
}

TEST_CASE("sample: tokens in doubt about top-p's border are told one after another on the CPU", "[lanes][sample]") {
  test::generator g(4), turns(5);  // what is drawn is the same whatever turns warps take
  for (const std::uint32_t values : {1u << 20, 64u, 3u}) {
    check_border<float>(64, 9000, values, g, turns);
    check_border<bi::bf16>(16, 9000, values, g, turns);
  }
}
