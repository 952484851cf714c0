// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "bi/reference/sample.hpp"
#include "bi/sample.hpp"
#include "bi/schedule/sample.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/manifest.hpp"

// sample under every kind of schedule, on rows that its shortcuts like and on those that they don't.

BI_NAMESPACE_BEGIN
namespace launch_detail {
template <class Contract, class T>
status launch_sample(const char*, const sample_args<T>&, const schedule::sample_schedule&, cuda_stream);
}  // namespace launch_detail
BI_NAMESPACE_END

using bi::bf16;
using bi::fp16;
using bi::schedule::sample_schedule;

namespace {

enum class rows_of {
  normal,      // deviation 2
  flat,        // deviation 0.01
  peaked,      // a few far above the rest
  two_values,  // ties everywhere
  equal,
  coarse,  // many ties at each value
  masked,  // all but 3, 40 or 3000 are -Inf
  low,     // all but those are -10^9
  rising,
  falling,
  nans,
  infinite,  // some +Inf
  island,    // 1000 neighbours far above the rest, among which a sample may find none
  cliff,     // what is not in the last tenth is far below
  huge,
  tiny
};
constexpr rows_of all_rows[] = {rows_of::normal, rows_of::flat,    rows_of::peaked, rows_of::two_values,
                                rows_of::equal,  rows_of::coarse,  rows_of::masked, rows_of::low,
                                rows_of::rising, rows_of::falling, rows_of::nans,   rows_of::infinite,
                                rows_of::island, rows_of::cliff,   rows_of::huge,   rows_of::tiny};

// Near normal, of deviation 1, made once.
const std::vector<float>& deviates() {
  static const std::vector<float> all = [] {
    test::generator g(5);
    std::vector<float> z(1 << 20);
    for (float& x : z) x = g.normal_24();
    return z;
  }();
  return all;
}

template <class T>
std::vector<T> make_rows(rows_of kind, std::int64_t rows, std::int64_t vocab, std::int64_t stride, std::uint64_t seed) {
  test::generator g(seed);
  const std::vector<float>& z_all = deviates();
  std::vector<T> out(static_cast<std::size_t>(rows * stride), bi::cvt_rn<T>(30.0f));  // and between rows
  const float infinity = std::numeric_limits<float>::infinity();
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t allowed = r % 3 == 0 ? 3 : r % 3 == 1 ? 40 : 3000, island = g.below(vocab);
    for (std::int64_t i = 0; i < vocab; ++i) {
      const float z = z_all[g.next() % z_all.size()], at = static_cast<float>(i) / static_cast<float>(vocab);
      const bool few = g.below(vocab) < allowed || i == island;
      float x = 2.0f * z;
      if (kind == rows_of::flat) x = 0.01f * z;
      if (kind == rows_of::peaked) x += g.below(vocab) < 12 ? 12.0f + 4.0f * z : -3.0f;
      if (kind == rows_of::two_values) x = z > 0 ? 1.0f : 0.5f;
      if (kind == rows_of::equal) x = 1.5f;
      if (kind == rows_of::coarse) x = static_cast<float>(static_cast<int>(16.0f * z)) / 8.0f;
      if (kind == rows_of::masked && !few) x = -infinity;
      if (kind == rows_of::low && !few) x = -1e9f;
      if (kind == rows_of::rising) x = 10.0f * at;
      if (kind == rows_of::falling) x = -10.0f * at;
      if (kind == rows_of::nans && g.below(vocab) < 5) x = std::numeric_limits<float>::quiet_NaN();
      if (kind == rows_of::infinite && g.below(vocab) < 5) x = g.chance(50) ? infinity : -infinity;
      if (kind == rows_of::island && i >= island && i < island + 1000) x += 15.0f;
      if (kind == rows_of::cliff && i < vocab - vocab / 10) x -= 20.0f;
      if (kind == rows_of::huge) x *= 1e30f;
      if (kind == rows_of::tiny) x *= 1e-39f;
      out[static_cast<std::size_t>(r * stride + i)] = bi::cvt_rn<T>(x);
    }
  }
  return out;
}

std::vector<bi::sample_params> make_settings(std::int64_t vocab, std::uint64_t seed) {
  const auto v = static_cast<std::int32_t>(vocab);
  struct setting {
    float temperature;
    std::int32_t top_k;
    float top_p, min_p;
  };
  const setting all[] = {
      {0.0f, 0, 1.0f, 0.0f},     {1.0f, 0, 1.0f, 0.0f},    {0.3f, 0, 1.0f, 0.0f},     {1.0f, 1, 1.0f, 0.0f},
      {1.0f, 2, 1.0f, 0.0f},     {0.7f, 50, 1.0f, 0.0f},   {1.0f, 900, 1.0f, 0.0f},   {1.0f, 1008, 1.0f, 0.0f},
      {1.0f, 1024, 1.0f, 0.0f},  {2.0f, 5000, 1.0f, 0.0f}, {1.0f, v / 2, 1.0f, 0.0f}, {1.0f, v - 1, 1.0f, 0.0f},
      {1.0f, 0, 0.9f, 0.0f},     {1.0f, 0, 0.5f, 0.0f},    {0.6f, 0, 0.95f, 0.0f},    {1.0f, 0, 0.999999f, 0.0f},
      {1.0f, 0, 1e-9f, 0.0f},    {1.0f, 0, 0.0f, 0.0f},    {3.0f, 0, 0.3f, 0.0f},     {1.0f, 50, 0.9f, 0.0f},
      {1.0f, 5000, 0.9f, 0.0f},  {1.0f, 0, 1.0f, 0.05f},   {1.0f, 0, 0.9f, 0.05f},    {0.8f, 40, 0.95f, 0.1f},
      {1.0f, 3000, 1.0f, 1e-4f}, {1.0f, 0, 1.0f, 1.0f},    {-1.0f, 0, 1.0f, 0.0f},    {1e-3f, 0, 0.9f, 0.0f},
      {1e30f, 7, 0.9f, 0.0f},    {1.0f, 0, 0.99f, 0.0f},   {1.3f, 2000, 0.5f, 0.01f}};
  test::generator g(seed);
  std::vector<bi::sample_params> out;
  for (const setting& s : all) {
    bi::sample_params p;
    p.temperature = s.temperature, p.top_k = s.top_k, p.top_p = s.top_p, p.min_p = s.min_p;
    p.seed = g.next(), p.branch = g.next(), p.ordinal = static_cast<std::uint32_t>(g.next());
    out.push_back(p);
  }
  return out;
}

struct outputs {
  std::vector<std::int32_t> token;
  std::vector<float> logprob;
  std::vector<std::uint32_t> flags;
};

std::string differ(const outputs& got, const outputs& expected) {
  for (std::size_t r = 0; r < expected.token.size(); ++r) {
    if (got.token[r] != expected.token[r]) {
      return "row " + std::to_string(r) + ": token " + std::to_string(got.token[r]) + ", not " +
             std::to_string(expected.token[r]);
    }
    if (!got.logprob.empty() && bi::bits_of(got.logprob[r]) != bi::bits_of(expected.logprob[r])) {
      return "row " + std::to_string(r) + ": logprob " + std::to_string(got.logprob[r]) + ", not " +
             std::to_string(expected.logprob[r]);
    }
    if (got.flags[r] != expected.flags[r]) return "row " + std::to_string(r) + ": flags";
  }
  return "";
}

template <class T>
outputs run(test::gpu_backend& gpu, bi::sample_args<T> a, bool logprob, const sample_schedule* s) {
  std::int32_t* const token = a.token;
  float* const all_logprob = a.logprob;
  std::uint32_t* const flags = a.flags;
  gpu.poison(token, a.rows);
  gpu.poison(all_logprob, a.rows);
  gpu.poison(flags, a.rows);
  if (!logprob) a.logprob = nullptr;
  using draft = bi::contract::sample_draft;
  test::require_ok(s != nullptr ? bi::launch_detail::launch_sample<draft>("sample", a, *s, gpu.stream())
                                : bi::sample(a, gpu.stream()));
  outputs out;
  out.token = gpu.read(token), out.flags = gpu.read(flags);
  if (logprob) out.logprob = gpu.read(all_logprob);
  return out;
}

template <class T>
outputs reference(const std::vector<T>& logits, std::int64_t rows, std::int64_t vocab, std::int64_t stride,
                  const std::vector<bi::sample_params>& params) {
  outputs out;
  out.token = test::poisoned<std::int32_t>(rows), out.logprob = test::poisoned<float>(rows);
  out.flags = test::poisoned<std::uint32_t>(rows);
  bi::sample_args<T> a;
  a.logits = logits.data(), a.rows = rows, a.vocab = vocab, a.logits_stride = stride, a.params = params.data();
  a.token = out.token.data(), a.logprob = out.logprob.data(), a.flags = out.flags.data();
  REQUIRE(bi::describe(bi::reference::sample(a)) == "ok");
  return out;
}

// A cluster of each kind, parts that the ring holds and parts that it doesn't, rows one after another and alone.
std::vector<sample_schedule> schedules() {
  std::vector<sample_schedule> all;
  for (const int cluster : {1, 2, 3, 5, 7, 8, 16}) {
    for (const int slots : {0, 3, 5, 10}) {
      for (const bool once : {false, true}) {
        const int few = cluster % 2 == 0 ? 3 : 1;
        all.push_back({cluster, slots, test::clusters_at_once(cluster, few), slots % 2 == 0, once});
      }
      if (slots == 3) all.push_back({cluster, slots, test::clusters_at_once(cluster, 1000), true, true});
    }
  }
  return all;
}

}  // namespace

TEMPLATE_TEST_CASE("sample: every schedule gives the reference's bytes on rows of every kind",
                   "[gpu][schedule][sample]", float, bf16, fp16) {
  using T = TestType;
  struct size {
    std::int64_t vocab, pad;
  };
  std::int64_t compared = 0;
  for (const size& c : {size{151936, 0}, size{20003, 5}, size{9001, 0}}) {
    if (test::small_run() && c.vocab != 9001) continue;
    for (const rows_of kind : all_rows) {
      const std::int64_t stride = c.vocab + c.pad;
      const auto params = make_settings(c.vocab, 3);
      const auto rows = static_cast<std::int64_t>(params.size());
      const auto logits = make_rows<T>(kind, rows, c.vocab, stride, static_cast<std::uint64_t>(kind) + 1);
      const outputs expected = reference(logits, rows, c.vocab, stride, params);
      test::gpu_backend gpu;
      bi::sample_args<T> a;
      a.logits = gpu.input(logits), a.params = gpu.input(params);
      a.rows = rows, a.vocab = c.vocab, a.logits_stride = stride;
      a.token = gpu.output<std::int32_t>(rows), a.logprob = gpu.output<float>(rows);
      a.flags = gpu.output<std::uint32_t>(rows);
      INFO("vocab " << c.vocab << ", rows " << static_cast<int>(kind));
      for (const bool logprob : {false, true}) {
        REQUIRE(differ(run(gpu, a, logprob, nullptr), expected) == "");
        // Schedules are forced on the types that tests/gpu/instantiate_tokens.cu has for that.
        if constexpr (std::is_same_v<T, fp16>) continue;
        for (const sample_schedule& s : schedules()) {
          INFO(to_string(s) << ", logprob " << logprob);
          REQUIRE(differ(run(gpu, a, logprob, &s), expected) == "");
          compared += rows;
        }
      }
      gpu.clear();
    }
  }
  CHECK((std::is_same_v<T, fp16> || test::small_run() || compared > 50000));
}

// What the bins say of a row depends on how large its values are: of large ones nothing. Where many equal the largest, a
// wrong cut shows, up to about 2^25, from where noise is lost in rounding. Rows of all settings follow each other in a
// thread block.
TEMPLATE_TEST_CASE("sample: values of every size, mixed settings one after another, odd vocabularies",
                   "[gpu][schedule][sample]", float, bf16, fp16) {
  using T = TestType;
  std::vector<int> exponents = {-10, -4, 2};
  for (int e = 8; e < (std::is_same_v<T, fp16> ? 14 : 28); ++e) exponents.push_back(e);
  if (!std::is_same_v<T, fp16>) exponents.insert(exponents.end(), {60, 120});
  struct size {
    std::int64_t vocab, pad, offset;
  };
  std::int64_t compared = 0, changed = 0;
  for (const size& c : {size{9001, 0, 3}, size{9001, 7, 0}, size{16387, 5, 0}, size{4093, 0, 0}}) {
    if (test::small_run() && c.vocab != 4093) continue;
    std::vector<bi::sample_params> params;
    std::vector<float> factors;
    for (const int e : exponents) {
      const auto some = make_settings(c.vocab, static_cast<std::uint64_t>(100 + e));
      for (std::size_t i = 0; i < some.size(); ++i) {
        params.push_back(some[(i * 12) % some.size()]);  // of kinds that differ, one after another
        factors.push_back(std::ldexp(1.0f, e));
      }
    }
    const auto rows = static_cast<std::int64_t>(params.size()), stride = c.vocab + c.pad;
    auto logits = make_rows<T>(rows_of::coarse, rows, c.vocab, stride, 21);
    const auto two_values = make_rows<T>(rows_of::two_values, rows, c.vocab, stride, 22);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const std::size_t row = i / static_cast<std::size_t>(stride);
      logits[i] = bi::cvt_rn<T>(bi::mul_rn(bi::to_f32(row % 2 == 0 ? logits[i] : two_values[i]), factors[row]));
    }
    const outputs expected = reference(logits, rows, c.vocab, stride, params);
    auto all_kept = params;
    for (bi::sample_params& p : all_kept) p.top_p = 1.0f;
    const outputs uncut = reference(logits, rows, c.vocab, stride, all_kept);
    for (std::size_t r = 0; r < params.size(); ++r) {
      changed += factors[r] > 100000.0f && expected.token[r] != uncut.token[r] ? 1 : 0;
    }
    logits.insert(logits.begin(), static_cast<std::size_t>(c.offset), bi::cvt_rn<T>(0.0f));
    test::gpu_backend gpu;
    bi::sample_args<T> a;
    a.logits = gpu.input(logits) + c.offset, a.params = gpu.input(params);
    a.rows = rows, a.vocab = c.vocab, a.logits_stride = stride;
    a.token = gpu.output<std::int32_t>(rows), a.logprob = gpu.output<float>(rows);
    a.flags = gpu.output<std::uint32_t>(rows);
    INFO("vocab " << c.vocab << ", pad " << c.pad << ", offset " << c.offset);
    REQUIRE(differ(run(gpu, a, false, nullptr), expected) == "");
    if constexpr (!std::is_same_v<T, fp16>) {
      for (const sample_schedule& s : {sample_schedule{1, 3, 3, true, true}, sample_schedule{2, 3, 1, true, true},
                                       sample_schedule{3, 10, 7, false, true}, sample_schedule{1, 5, 1000, true, true},
                                       sample_schedule{8, 3, 2, true, true}, sample_schedule{2, 0, 5, true, true}}) {
        INFO(to_string(s));
        REQUIRE(differ(run(gpu, a, false, &s), expected) == "");
        compared += rows;
      }
    }
    gpu.clear();
  }
  CHECK((std::is_same_v<T, fp16> || test::small_run() || compared > 10000));
  CHECK((std::is_same_v<T, fp16> || changed > 20));  // tokens that a cut among equal large values decides
}

TEST_CASE("sample: a token, a log-probability and a flag that differ are seen", "[gpu][sample]") {
  const std::int64_t vocab = 20000;
  auto params = make_settings(vocab, 3);
  const auto rows = static_cast<std::int64_t>(params.size());
  const auto logits = make_rows<float>(rows_of::normal, rows, vocab, vocab, 1);
  outputs expected = reference(logits, rows, vocab, vocab, params);
  test::gpu_backend gpu;
  bi::sample_args<float> a;
  a.logits = gpu.input(logits), a.rows = rows, a.vocab = vocab;
  a.token = gpu.output<std::int32_t>(rows), a.logprob = gpu.output<float>(rows);
  a.flags = gpu.output<std::uint32_t>(rows);
  bi::sample_params* const device_params = gpu.input(params);
  a.params = device_params;
  REQUIRE(differ(run(gpu, a, true, nullptr), expected) == "");
  for (bi::sample_params& p : params) ++p.ordinal;
  gpu.write(device_params, params);
  CHECK(differ(run(gpu, a, true, nullptr), expected) != "");
  for (bi::sample_params& p : params) --p.ordinal;
  gpu.write(device_params, params);
  expected.logprob[5] = bi::float_of(bi::bits_of(expected.logprob[5]) ^ 1u);
  CHECK(differ(run(gpu, a, true, nullptr), expected).rfind("row 5: logprob", 0) == 0);
  gpu.clear();
}
