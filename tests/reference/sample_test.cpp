// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/reference/sample.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bi/reference/fp_env.hpp"
#include "bi/reference/softmax.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace ref = bi::reference;
using namespace bi::contract;
using bi::bf16;
using bi::fp16;
using bi::sample_params;

namespace {

template <class I>
std::size_t at(I i) {
  return static_cast<std::size_t>(i);
}

struct result {
  std::vector<std::int32_t> token;
  std::vector<float> logprob;
  std::vector<std::uint32_t> flags;
};

template <class T>
bi::sample_args<T> arguments(const std::vector<T>& logits, std::int64_t vocab, const std::vector<sample_params>& params,
                             result& r) {
  const auto rows = static_cast<std::int64_t>(params.size());
  r.token = test::poisoned<std::int32_t>(rows);
  r.logprob = test::poisoned<float>(rows);
  r.flags = test::poisoned<std::uint32_t>(rows);
  bi::sample_args<T> a;
  a.logits = logits.data();
  a.rows = rows;
  a.vocab = vocab;
  a.params = params.data();
  a.token = r.token.data();
  a.logprob = r.logprob.data();
  a.flags = r.flags.data();
  return a;
}

template <class T>
result sample(const std::vector<T>& logits, std::int64_t vocab, const std::vector<sample_params>& params,
              int threads = 1) {
  result r;
  const bi::status st = ref::sample(arguments(logits, vocab, params, r), threads);
  INFO(bi::describe(st));
  REQUIRE(st);
  return r;
}

// The same rule as a GPU evaluates it: no sort, but lower bounds of the rank found bit by bit from counts and integer
// sums, then one pass over the ids from the last to the first.
std::int32_t by_thresholds(const std::vector<float>& logits, const sample_params& p) {
  using draft = sample_draft;
  const auto n = static_cast<std::int32_t>(logits.size());
  const bool greedy = p.temperature == 0;
  const float inverse = greedy ? 1.0f : bi::div_rn(1.0f, p.temperature);
  std::vector<float> x;
  std::vector<std::uint64_t> rank;
  for (std::int32_t i = 0; i < n; ++i) {
    x.push_back(bi::is_nan(logits[at(i)]) ? bi::neg_inf_f32() : bi::mul_rn(logits[at(i)], inverse));
    rank.push_back(candidate_rank(ordered_key(x.back()), i));
  }
  std::uint64_t bound = lowest_rank;
  // The least rank of those that `weight` counts up to `target`, from the largest rank down.
  const auto descend = [&](std::uint64_t target, auto weight) {
    std::uint64_t prefix = 0, before = 0;
    for (int bit = 63; bit >= 0; --bit) {
      const std::uint64_t upper = (prefix >> bit) | 1;
      std::uint64_t sum = 0;
      for (std::int32_t i = 0; i < n; ++i) {
        if (rank[at(i)] >= bound && rank[at(i)] >> bit == upper) sum += weight(i);
      }
      if (before + sum >= target) {
        prefix |= std::uint64_t{1} << bit;
      } else {
        before += sum;
      }
    }
    return prefix;
  };
  float max = bi::neg_inf_f32();
  std::uint64_t candidates = 0;
  for (std::int32_t i = 0; i < n; ++i) {
    if (rank[at(i)] < bound) continue;
    ++candidates;
    max = bi::max_nan(max, x[at(i)]);
  }
  if (candidates == 0) return -1;
  if (!greedy && p.top_k > 0 && static_cast<std::uint64_t>(p.top_k) < candidates) {
    bound =
        std::max(bound, descend(static_cast<std::uint64_t>(p.top_k), [](std::int32_t) { return std::uint64_t{1}; }));
  }
  if (!greedy && bi::less(p.top_p, 1.0f)) {
    const auto weight = [&](std::int32_t i) { return draft::top_p_weight(x[at(i)], max); };
    std::uint64_t total = 0;
    for (std::int32_t i = 0; i < n; ++i) total += rank[at(i)] >= bound ? weight(i) : 0;
    bound = std::max(bound, descend(draft::top_p_target(p.top_p, total), weight));
  }
  std::int32_t best = -1;
  float best_score = 0;
  for (std::int32_t i = n - 1; i >= 0; --i) {
    if (rank[at(i)] < bound) continue;
    if (!greedy && bi::greater(p.min_p, 0.0f) && !draft::min_p_keeps(x[at(i)], max, p.min_p)) continue;
    const float noise = gumbel_noise(sample_key(p.seed, p.sample_index, p.branch), p.ordinal, i);
    const float score = greedy ? x[at(i)] : bi::add_rn(x[at(i)], noise);
    if (best < 0 || !bi::less(score, best_score)) {
      best = i;
      best_score = score;
    }
  }
  return best;
}

sample_params random_params(test::generator& g, std::int64_t vocab) {
  sample_params p;
  const float temperatures[] = {0.0f, 1.0f, 0.7f, 0.1f, 5.0f, 1e-3f};
  const float top_ps[] = {1.0f, 0.95f, 0.5f, 0.1f, 0.9999f, 1e-6f, 0.0f};
  const float min_ps[] = {0.0f, 0.05f, 0.3f, 1.0f, 1e-9f, 2.0f};
  p.temperature = temperatures[g.below(6)];
  p.top_k = g.chance(50) ? 0 : static_cast<std::int32_t>(g.between(1, g.chance(50) ? 5 : vocab + 1));
  p.top_p = g.chance(40) ? 1.0f : top_ps[g.below(7)];
  p.min_p = g.chance(50) ? 0.0f : min_ps[g.below(6)];
  p.seed = g.next();
  p.branch = g.chance(50) ? 0 : g.next();
  p.sample_index = static_cast<std::uint32_t>(g.below(4));
  p.ordinal = static_cast<std::uint32_t>(g.below(1000));
  return p;
}

// ---- statistics

// Exact probabilities of one row in double, by the order of the contract.
std::vector<double> probabilities(const std::vector<float>& logits, const sample_params& p) {
  std::vector<std::size_t> order(logits.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  const double t = static_cast<double>(p.temperature);
  const auto weight = [&](std::size_t i) {
    return std::exp((static_cast<double>(logits[i]) - static_cast<double>(logits[order[0]])) / t);
  };
  if (p.top_k > 0 && at(p.top_k) < order.size()) order.resize(at(p.top_k));
  double total = 0, before = 0;
  for (const std::size_t i : order) total += weight(i);
  std::vector<double> out(logits.size(), 0);
  double kept = 0;
  for (const std::size_t i : order) {
    const bool in_p = p.top_p >= 1 || before < static_cast<double>(p.top_p) * total;
    before += weight(i);
    if (!in_p || weight(i) < static_cast<double>(p.min_p)) continue;
    out[i] = weight(i);
    kept += weight(i);
  }
  for (double& x : out) x /= kept;
  return out;
}

// Infinite if an impossible outcome was seen.
double chi_square(const std::vector<std::int64_t>& counts, const std::vector<double>& p) {
  std::int64_t n = 0;
  for (const std::int64_t c : counts) n += c;
  double sum = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double expected = p[i] * static_cast<double>(n), d = static_cast<double>(counts[i]) - expected;
    if (expected > 0) {
      sum += d * d / expected;
    } else if (counts[i] > 0) {
      return 1e300;
    }
  }
  return sum;
}

constexpr std::int64_t draws = 100000;

// One token for each of `draws` parameters that `vary` makes.
std::vector<std::int32_t> draw(const std::vector<float>& logits, const sample_params& base,
                               const std::function<void(sample_params&, std::int64_t)>& vary) {
  std::vector<sample_params> params(at(draws), base);
  for (std::int64_t i = 0; i < draws; ++i) vary(params[at(i)], i);
  std::vector<float> rows;
  for (std::int64_t i = 0; i < draws; ++i) rows.insert(rows.end(), logits.begin(), logits.end());
  result r;
  auto a = arguments(rows, static_cast<std::int64_t>(logits.size()), params, r);
  a.logprob = nullptr;
  a.flags = nullptr;
  REQUIRE(ref::sample(a));
  return r.token;
}

const std::vector<float> logits12 = {0.3f, -1.0f, 2.0f, 0.0f, 1.5f, -3.0f, 0.31f, 2.5f, -0.5f, 1.0f, 0.0f, -2.0f};

}  // namespace

TEMPLATE_TEST_CASE("sample: sorted and by thresholds give one token", "[reference][sample]", bf16, fp16, float) {
  using T = TestType;
  const bi::reference::fp_environment environment;
  test::generator g(1);
  std::size_t distinct = 0;
  for (const std::int64_t vocab : {1, 2, 3, 17, 200}) {
    for (const test::values kind : test::all_values) {
      const std::int64_t rows = vocab == 200 ? 15 : 30;
      const auto logits = test::random_vector<T>(rows * vocab, kind, static_cast<std::uint64_t>(vocab));
      std::vector<sample_params> params;
      for (std::int64_t r = 0; r < rows; ++r) params.push_back(random_params(g, vocab));
      const result out = sample(logits, vocab, params);
      for (std::int64_t r = 0; r < rows; ++r) {
        std::vector<float> row;
        for (std::int64_t i = 0; i < vocab; ++i) row.push_back(bi::to_f32(logits[at(r * vocab + i)]));
        const sample_params& p = params[at(r)];
        INFO("vocab " << vocab << ", values " << static_cast<int>(kind) << ", row " << r << ", temperature "
                      << p.temperature << ", top_k " << p.top_k << ", top_p " << p.top_p << ", min_p " << p.min_p);
        REQUIRE(out.token[at(r)] == by_thresholds(row, p));
        const bool nan = std::any_of(row.begin(), row.end(), [](float v) { return bi::is_nan(v); });
        REQUIRE(((out.flags[at(r)] & bi::sample_saw_nan) != 0) == nan);
        REQUIRE(((out.flags[at(r)] & bi::sample_no_candidate) != 0) == (out.token[at(r)] < 0));
        sample_params plain = p;
        plain.top_k = 0;
        plain.top_p = 1;
        plain.min_p = 0;
        plain.temperature = 1;
        distinct += by_thresholds(row, plain) != out.token[at(r)];
      }
    }
  }
  REQUIRE(distinct > 50);  // the parameters do matter
}

TEST_CASE("sample: a real vocabulary with many ties", "[reference][sample]") {
  const bi::reference::fp_environment environment;
  const std::int64_t vocab = 151936, rows = 3;
  std::vector<bf16> logits;  // about 1700 different values
  for (const float v : test::random_vector<float>(rows * vocab, test::values::normal, 2)) {
    logits.push_back(bi::cvt_rn<bf16>(bi::mul_rn(v, 1.28f)));
  }
  std::vector<sample_params> params(at(rows));
  test::generator g(3);
  for (auto& p : params) {
    p.seed = g.next();
    p.temperature = 1;
  }
  params[0].top_k = 50;
  params[0].top_p = 0.95f;
  params[1].top_p = 0.9f;
  params[2].min_p = 0.02f;
  const result out = sample(logits, vocab, params);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::vector<float> row;
    for (std::int64_t i = 0; i < vocab; ++i) row.push_back(bi::to_f32(logits[at(r * vocab + i)]));
    REQUIRE(out.token[at(r)] == by_thresholds(row, params[at(r)]));
  }
}

TEST_CASE("sample: draws have the exact probabilities", "[reference][sample]") {
  std::vector<sample_params> cases(7);
  for (auto& p : cases) p.temperature = 1;
  cases[1].temperature = 0.7f;
  cases[1].top_k = 5;
  cases[2].top_p = 0.8f;
  cases[3].min_p = 0.1f;
  cases[4].temperature = 1.5f;
  cases[4].top_k = 9;
  cases[4].top_p = 0.9f;
  cases[4].min_p = 0.05f;
  cases[5].temperature = 3;
  cases[6].top_k = 1;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    cases[i].seed = 1000 + i;
    std::vector<std::int64_t> counts(logits12.size());
    const std::int64_t batches = i == 0 || i == 4 ? 10 : 1;  // a million draws without filters and with all of them
    for (std::int64_t batch = 0; batch < batches; ++batch) {
      const auto tokens = draw(logits12, cases[i], [batch](sample_params& p, std::int64_t n) {
        p.ordinal = static_cast<std::uint32_t>(batch * draws + n);
      });
      for (const std::int32_t t : tokens) ++counts[at(t)];
    }
    const auto p = probabilities(logits12, cases[i]);
    INFO("case " << i);
    CHECK(chi_square(counts, p) < 37.4);  // 11 degrees of freedom: more in one of 10000 runs
    // The test would see two logits that are off by a twenty-fifth of the temperature.
    if (cases[i].top_k == 1) continue;
    auto off = logits12;
    off[7] -= 0.04f * cases[i].temperature;
    off[2] += 0.04f * cases[i].temperature;
    CHECK(chi_square(counts, probabilities(off, cases[i])) > 37.4);
  }
}

TEST_CASE("sample: streams are independent", "[reference][sample]") {
  const std::vector<float> logits = {0.0f, 0.5f, -0.5f, 0.2f};
  sample_params base;
  base.temperature = 1;
  base.seed = 77;
  const auto p = probabilities(logits, base);
  using vary = std::function<void(sample_params&, std::int64_t)>;
  const auto u32 = [](std::int64_t n) { return static_cast<std::uint32_t>(n); };
  const auto u64 = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  const struct {
    const char* name;
    vary one, other;
  } pairs[] = {
      {"ordinals", [&](auto& q, auto n) { q.ordinal = u32(2 * n); },
       [&](auto& q, auto n) { q.ordinal = u32(2 * n + 1); }},
      {"samples", [&](auto& q, auto n) { q.ordinal = u32(n); },
       [&](auto& q, auto n) { q.ordinal = u32(n), q.sample_index = 1; }},
      {"branches", [&](auto& q, auto n) { q.ordinal = u32(n), q.branch = branch_path(0, 0); },
       [&](auto& q, auto n) { q.ordinal = u32(n), q.branch = branch_path(0, 1); }},
      {"a branch and its parent", [&](auto& q, auto n) { q.ordinal = u32(n); },
       [&](auto& q, auto n) { q.ordinal = u32(n), q.branch = branch_path(0, 0); }},
      {"seeds", [&](auto& q, auto n) { q.seed = u64(2 * n); }, [&](auto& q, auto n) { q.seed = u64(2 * n + 1); }},
      {"sample indices", [&](auto& q, auto n) { q.sample_index = u32(2 * n); },
       [&](auto& q, auto n) { q.sample_index = u32(2 * n + 1); }},
  };
  for (const auto& pair : pairs) {
    const auto a = draw(logits, base, pair.one), b = draw(logits, base, pair.other);
    std::vector<std::int64_t> counts(16);
    std::vector<double> joint(16);
    for (std::size_t i = 0; i < a.size(); ++i) ++counts[at(4 * a[i] + b[i])];
    for (std::size_t i = 0; i < 16; ++i) joint[i] = p[i / 4] * p[i % 4];
    INFO(pair.name);
    CHECK(chi_square(counts, joint) < 44.3);  // 15 degrees of freedom: more in one of 10000 runs
  }
  const auto once = draw(logits, base, pairs[0].one);
  REQUIRE(once == draw(logits, base, pairs[0].one));
}

TEMPLATE_TEST_CASE("sample: a row's result knows nothing of its batch", "[reference][sample]", bf16, float) {
  using T = TestType;
  const std::int64_t rows = 60, vocab = 97;
  test::generator g(4);
  auto logits = test::random_vector<T>(rows * vocab, test::values::hostile, 5);
  std::vector<sample_params> params;
  for (std::int64_t r = 0; r < rows; ++r) params.push_back(random_params(g, vocab));
  const result all = sample(logits, vocab, params);
  for (std::int64_t count = 1; count <= rows; ++count) {
    const std::int64_t first = rows - count;
    const std::vector<T> part(logits.begin() + first * vocab, logits.end());
    const std::vector<sample_params> some(params.begin() + first, params.end());
    const result out = sample(part, vocab, some, static_cast<int>(count % 4));
    REQUIRE(test::difference(out.token.data(), all.token.data() + first, count) == "");
    REQUIRE(test::difference(out.logprob.data(), all.logprob.data() + first, count) == "");
    REQUIRE(test::difference(out.flags.data(), all.flags.data() + first, count) == "");
  }
  // One request at every row among others.
  std::vector<std::int32_t> seen;
  const std::vector<T> mine(logits.begin(), logits.begin() + vocab);
  sample_params p = params[0];
  p.temperature = 2;
  p.top_k = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    auto batch = logits;
    auto some = params;
    std::copy(mine.begin(), mine.end(), batch.begin() + r * vocab);
    some[at(r)] = p;
    seen.push_back(sample(batch, vocab, some).token[at(r)]);
  }
  REQUIRE(std::count(seen.begin(), seen.end(), seen[0]) == rows);
}

TEST_CASE("sample: seeds, samples, branches and ordinals tell rows apart", "[reference][sample]") {
  const std::int64_t vocab = 1000;
  const std::vector<float> one(at(vocab), 0.0f);
  std::vector<float> logits;
  std::vector<sample_params> params(5);
  for (auto& p : params) {
    p.temperature = 1;
    logits.insert(logits.end(), one.begin(), one.end());
  }
  params[1].seed = 1;
  params[2].sample_index = 1;
  params[3].branch = branch_path(0, 0);
  params[4].ordinal = 1;
  auto tokens = sample(logits, vocab, params).token;
  std::sort(tokens.begin(), tokens.end());
  REQUIRE(std::unique(tokens.begin(), tokens.end()) == tokens.end());
}

TEST_CASE("sample: greedy", "[reference][sample]") {
  const float inf = bi::inf_f32(), nan = bi::nan_f32();
  const struct {
    std::vector<float> logits;
    std::int32_t token;
    std::uint32_t flags;
  } rows[] = {
      {{1, 3, 3, 2}, 1, 0},
      {{-0.0f, 0.0f, -1, -2}, 0, 0},
      {{0.0f, -0.0f, -1, -2}, 0, 0},
      {{nan, 3, 3, 2}, 1, bi::sample_saw_nan},
      {{-inf, -inf, -3e38f, nan}, 2, bi::sample_saw_nan},
      {{1, inf, inf, 2}, 1, 0},
      {{-inf, -inf, -inf, -inf}, -1, bi::sample_no_candidate},
      {{nan, nan, nan, -inf}, -1, bi::sample_no_candidate | bi::sample_saw_nan},
  };
  for (const auto& r : rows) {
    std::vector<sample_params> params(1);
    params[0].top_k = 1;  // ignored, as are the others
    params[0].top_p = 0.1f;
    params[0].min_p = 3;
    for (const float t : {0.0f, -0.0f}) {
      params[0].temperature = t;
      const result out = sample(r.logits, 4, params);
      REQUIRE(out.token[0] == r.token);
      REQUIRE(out.flags[0] == r.flags);
      REQUIRE(bi::is_nan(out.logprob[0]) ==
              (r.token < 0 || (r.flags & bi::sample_saw_nan) != 0 || bi::is_inf(r.logits[1])));
    }
    // Top-k 1 at any temperature is the same token.
    params[0].temperature = 3;
    params[0].min_p = 0;
    REQUIRE(sample(r.logits, 4, params).token[0] == r.token);
  }
}

TEST_CASE("sample: infinities and borders", "[reference][sample]") {
  const float inf = bi::inf_f32();
  std::vector<sample_params> params(1);
  sample_params& p = params[0];
  p.temperature = 1;
  // +Inf beats everything under every noise, the lowest id of several.
  for (std::uint32_t i = 0; i < 50; ++i) {
    p.ordinal = i;
    p.top_p = i % 2 == 0 ? 1.0f : 0.5f;
    REQUIRE(sample<float>({5, -inf, inf, 7, inf}, 5, params).token[0] == 2);
  }
  // Equal logits: top-k and top-p keep the lowest ids.
  const std::vector<float> equal(100, 1.5f);
  std::vector<bool> seen(100);
  for (std::uint32_t i = 0; i < 400; ++i) {
    p.ordinal = i;
    p.top_k = 7;
    p.top_p = 1;
    REQUIRE(sample(equal, 100, params).token[0] < 7);
    p.top_k = 0;
    p.top_p = 0.125f;  // 12.5 tokens of 100: 13
    const std::int32_t token = sample(equal, 100, params).token[0];
    REQUIRE(token < 13);
    seen[at(token)] = true;
    p.top_k = 40;
    p.top_p = 0.25f;  // of what top-k left: exactly 10
    REQUIRE(sample(equal, 100, params).token[0] < 10);
  }
  REQUIRE(std::count(seen.begin(), seen.end(), true) == 13);
  p.top_k = 0;
  p.top_p = 0;  // at least one
  REQUIRE(sample<float>({1, 2, 2, 0}, 4, params).token[0] == 1);
  // Scaling may overflow: an infinity like any other.
  p.top_p = 1;
  p.temperature = 0x1p-126f;
  REQUIRE(sample<float>({1, 9, 10, 11}, 4, params).token[0] == 1);  // 9 * 2^126 overflows as 11 * 2^126 does
  result out = sample<float>({-8, -9, -10, -11}, 4, params);
  REQUIRE(out.token[0] == -1);
  REQUIRE(out.flags[0] == bi::sample_no_candidate);
}

TEST_CASE("sample: bad parameters cost only their own row", "[reference][sample]") {
  const float nan = bi::nan_f32();
  const std::vector<float> row = {1, 4, 2};
  std::vector<sample_params> params(8);
  params[1].temperature = nan;
  params[2].temperature = -1;
  params[3].temperature = bi::inf_f32();
  params[4].temperature = 0x1p-130f;
  params[5].top_p = nan;
  params[6].min_p = nan;
  std::vector<float> logits;
  for (std::size_t i = 0; i < params.size(); ++i) logits.insert(logits.end(), row.begin(), row.end());
  const result out = sample(logits, 3, params);
  for (std::size_t i = 0; i < params.size(); ++i) {
    const bool bad = i >= 1 && i <= 6;
    REQUIRE(out.token[i] == (bad ? -1 : 1));
    REQUIRE(out.flags[i] == (bad ? bi::sample_bad_params : bi::sample_ok));
    REQUIRE((bi::bits_of(out.logprob[i]) == bi::nan_bits) == bad);
  }
}

TEMPLATE_TEST_CASE("sample: the logprob is log_softmax at the token", "[reference][sample]", bf16, fp16, float) {
  using T = TestType;
  test::generator g(6);
  for (const std::int64_t vocab : {1, 5, 1000, 20000}) {
    const std::int64_t rows = 4, stride = vocab + 3;
    const auto logits = test::random_vector<T>(rows * stride, test::values::normal, 7);
    std::vector<sample_params> params;
    for (std::int64_t r = 0; r < rows; ++r) params.push_back(random_params(g, vocab));
    result out;
    auto a = arguments(logits, vocab, params, out);
    a.logits_stride = stride;
    REQUIRE(ref::sample(a));
    bi::softmax_args<T, float> s;
    s.x = logits.data();
    s.x_stride = stride;
    s.rows = rows;
    s.cols = vocab;
    std::vector<float> all(at(rows * vocab));
    s.out = all.data();
    REQUIRE(ref::log_softmax(s));
    for (std::int64_t r = 0; r < rows; ++r) {
      REQUIRE(bi::bits_of(out.logprob[at(r)]) == bi::bits_of(all[at(r * vocab + out.token[at(r)])]));
    }
    // Without the optional outputs the tokens are the same.
    const auto tokens = out.token;
    a.logprob = nullptr;
    a.flags = nullptr;
    REQUIRE(ref::sample(a));
    REQUIRE(out.token == tokens);
  }
}

TEST_CASE("verify: accepts what sample draws, and nothing else", "[reference][sample]") {
  const std::int64_t vocab = 50;
  test::generator g(8);
  const std::vector<std::int32_t> start = {0, 5, 5, 6, 10, 14};
  const std::int64_t rows = 14;
  const auto logits = test::random_vector<float>(rows * vocab, test::values::normal, 9);
  std::vector<sample_params> params(at(rows));
  for (std::int64_t r = 0; r < rows; ++r) {
    params[at(r)].temperature = r % 3 == 0 ? 0.0f : 1.0f;
    params[at(r)].seed = 5;
    params[at(r)].ordinal = static_cast<std::uint32_t>(r);
  }
  const auto drawn = sample(logits, vocab, params).token;
  auto draft = drawn;
  draft[4] = -1;            // request 0: all four accepted, and one more token
  draft[5] = drawn[5] ^ 1;  // request 2: refused
  draft[8] = drawn[8] ^ 1;  // request 3: two accepted, the fourth would be right but comes too late
  std::vector<std::int32_t> accepted = test::poisoned<std::int32_t>(5);
  result out;
  bi::verify_args<float> a;
  a.sample = arguments(logits, vocab, params, out);
  a.draft = draft.data();
  a.start = start.data();
  a.requests = 5;
  a.accepted = accepted.data();
  REQUIRE(ref::verify(a));
  REQUIRE(accepted == std::vector<std::int32_t>{4, 0, 0, 2, 4});
  REQUIRE(out.token == drawn);
  // Where all drafts are right, a request's end is the end all the same.
  a.draft = drawn.data();
  REQUIRE(ref::verify(a));
  REQUIRE(accepted == std::vector<std::int32_t>{5, 0, 1, 4, 4});
  a.draft = draft.data();

  const auto refused = [&](const std::vector<std::int32_t>& bad, std::int64_t position) {
    a.sample = arguments(logits, vocab, params, out);
    const auto untouched = out.token;
    const auto before = accepted;
    a.start = bad.data();
    const bi::status st = ref::verify(a);
    REQUIRE(st.code == bi::error::index_out_of_range);
    REQUIRE(std::string(st.argument) == "start");
    REQUIRE(st.position == position);
    REQUIRE(out.token == untouched);
    REQUIRE(accepted == before);
  };
  refused({0, 5, 4, 6, 10, 14}, 2);
  refused({-1, 5, 5, 6, 10, 14}, 0);
  refused({0, 5, 5, 6, 10, 15}, 5);
}
