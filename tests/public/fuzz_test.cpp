// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/good_args.hpp"
#include "support/sanitized.hpp"

// Argument structs with hostile contents: a million of them through the checks of all operations, the same ones each
// time. A check has to return, always the same, and to say what it means; where it says "ok", a predicate written
// another way has to agree.

using bi::bf16;
using bi::error;
using bi::status;

namespace {

constexpr int structs_in_all = test::sanitized ? 100000 : 1000000;

// What an eight-byte word of arguments may become: a size, a stride, a pointer, two small fields.
std::uint64_t hostile(test::generator& g) {
  const auto as_word = [](std::int64_t v) { return static_cast<std::uint64_t>(v); };
  const auto pair = [](std::uint32_t low, std::uint32_t high) { return std::uint64_t{high} << 32 | low; };
  constexpr std::int64_t sizes[] = {0,   1,   2,   3,   7,   8,   16,  63,   64,   65,   100,   127,
                                    128, 129, 255, 256, 257, 300, 512, 1000, 4096, 8193, 65536, 1 << 20};
  constexpr std::uint32_t floats[] = {0,           0x80000000u, 0x3f800000u, 0xbf800000u, 0x7f800000u, 0xff800000u,
                                      0x7fffffffu, 0x7f800001u, 1,           0x7f7fffffu, 0x00800000u, 0x80000001u};
  switch (g.below(8)) {
    case 0:
    case 1:
      return as_word(sizes[g.below(24)]);
    case 2:
      return as_word(-sizes[g.below(24)]);
    case 3: {
      const std::int64_t power = std::int64_t{1} << g.below(63);
      return as_word(power + g.between(-2, 2));
    }
    case 4: {
      constexpr std::int64_t edges[] = {INT64_MAX, INT64_MIN, INT64_MAX - 1, INT64_MIN + 1, INT32_MAX, INT32_MIN};
      return as_word(edges[g.below(6)]);
    }
    case 5:  // a pointer: null, another argument's, beside it, misaligned
      return reinterpret_cast<std::uintptr_t>(test::nowhere<char>(static_cast<int>(g.below(12)))) +
             as_word(g.chance(40) ? 0 : g.between(-9000, 9000));
    case 6:
      return pair(floats[g.below(12)], floats[g.below(12)]);
    default:
      return as_word(static_cast<std::int64_t>(g.next()));
  }
}

bool same(const status& a, const status& b) {
  return a.code == b.code && a.operation == b.operation && a.argument == b.argument && a.relation == b.relation &&
         a.value == b.value && a.bound == b.bound && a.position == b.position &&
         std::memcmp(&a.real, &b.real, sizeof a.real) == 0;
}

// Empty, or what is wrong with a status.
std::string inconsistent(const status& st, const std::string& operation) {
  if (st) return {};
  if (st.operation == nullptr || operation != st.operation) return "another operation";
  if (st.argument == nullptr || *st.argument == 0) return "no argument";
  const std::string text = bi::describe(st);
  if (text.rfind(operation + ": " + st.argument, 0) != 0) return "does not begin with its argument: " + text;
  const bool shows_value = st.code != error::null_pointer && st.code != error::overlap &&
                           st.code != error::misaligned && st.code != error::not_valid;
  if (shows_value && text.find(std::to_string(st.value)) == std::string::npos)
    return "does not show its value: " + text;
  switch (st.code) {
    case error::too_small:
      return st.value < st.bound ? "" : "not too small: " + text;
    case error::too_large:
      return st.value > st.bound ? "" : "not too large: " + text;
    case error::not_multiple:
      return st.bound > 0 && st.value % st.bound != 0 ? "" : "a multiple: " + text;
    case error::misaligned:
      return static_cast<std::uint64_t>(st.value) % static_cast<std::uint64_t>(st.bound) != 0 ? "" : "aligned: " + text;
    case error::not_supported:
    case error::not_valid:
      return st.relation != nullptr ? "" : "does not say what is: " + text;
    case error::overlap:
      return st.relation != nullptr ? "" : "does not say with what: " + text;
    case error::overflow:
      return st.value != 0 ? "" : "overflows with nothing: " + text;
    case error::null_pointer:
      return {};
    default:
      return "a code that no check has: " + text;
  }
}

// `Args` hold words, of which some are spoiled. Bytes that are a bool are put back: other values than 0 and 1 are none.
template <class Args, class Check, class Repair, class Agrees>
void fuzz(const char* operation, const Args& good, std::uint64_t seed, int count, Check check, Repair repair,
          Agrees agrees) {
  static_assert(std::is_trivially_copyable_v<Args> && sizeof(Args) % 8 == 0);
  constexpr std::size_t words = sizeof(Args) / 8;
  test::generator g(seed);
  int accepted = 0;
  std::array<int, 16> codes{};
  for (int i = 0; i < count; ++i) {
    std::array<std::uint64_t, words> raw;
    std::memcpy(raw.data(), &good, sizeof good);
    for (std::int64_t n = g.chance(10) ? g.between(3, static_cast<std::int64_t>(words)) : g.between(1, 3); n > 0; --n) {
      raw[static_cast<std::size_t>(g.below(static_cast<std::int64_t>(words)))] = hostile(g);
    }
    Args a = good;
    std::memcpy(static_cast<void*>(&a), raw.data(), sizeof a);
    repair(a);
    const status first = check(a), second = check(a);
    if (!same(first, second)) FAIL(operation << " " << i << ": two answers");
    if (const std::string wrong = inconsistent(first, operation); !wrong.empty()) {
      FAIL(operation << " " << i << ": " << wrong);
    }
    if (!agrees(a, first)) FAIL(operation << " " << i << ": " << bi::describe(first) << ", and should not be");
    accepted += first ? 1 : 0;
    ++codes[static_cast<std::size_t>(first.code) % 16];
  }
  INFO(operation << ": " << accepted << " of " << count << " accepted");
  CHECK((accepted > count / 200 && accepted < count * 9 / 10));
  int kinds = 0;
  for (const int n : codes) kinds += n > 0 ? 1 : 0;
  CHECK(kinds >= 4);
}

const auto nothing = [](auto&) {};
const auto no_opinion = [](const auto&, const status&) { return true; };
const auto plain = [](const auto& a) { return check(a); };

// ---- predicates, in arithmetic that does not overflow

using wide = __int128;

wide bytes_of(const void* p) { return static_cast<wide>(reinterpret_cast<std::uintptr_t>(p)); }
bool null_or_odd(const void* p, std::size_t alignment) {
  return p == nullptr || reinterpret_cast<std::uintptr_t>(p) % alignment != 0;
}

// Rows of elements in memory: sizes and strides that a call may have.
struct block {
  const void* p;
  std::int64_t rows, stride, cols;
  int element;

  wide step() const { return stride == 0 ? cols : stride; }
  bool fits() const {
    if (rows < 0 || cols < 0 || step() < cols) return false;
    return rows == 0 || static_cast<wide>(rows) * step() <= (static_cast<wide>(1) << 62) / element;
  }
  wide begin() const { return bytes_of(p); }
  wide end() const { return begin() + ((rows - 1) * step() + cols) * element; }
  bool meets(const block& o) const { return p != nullptr && o.p != nullptr && begin() < o.end() && o.begin() < end(); }
  bool is(const block& o) const { return p == o.p && (rows == 1 || step() == o.step()); }
};

// The addresses have to exist: an end beyond 2^64 is nobody's.
bool beyond(std::initializer_list<block> all) {
  for (const block& b : all) {
    if (b.p != nullptr && b.end() > static_cast<wide>(1) << 64) return true;
  }
  return false;
}

bool good_softmax(const bi::softmax_args<float>& a, bool& unknown) {
  const block x{a.x, a.rows, a.x_stride, a.cols, 4}, out{a.out, a.rows, a.out_stride, a.cols, 4};
  if (!x.fits() || !out.fits()) return false;
  if (a.rows == 0 || a.cols == 0) return true;
  if (null_or_odd(a.x, 4) || null_or_odd(a.out, 4)) return false;
  unknown = beyond({x, out});
  return !out.meets(x) || out.is(x);
}

bool good_rms_norm(const bi::rms_norm_args<bf16>& a, bool& unknown) {
  const block x{a.x, a.rows, a.x_stride, a.cols, 2}, r{a.residual, a.rows, a.residual_stride, a.cols, 2},
      s{a.residual_out, a.rows, a.residual_out_stride, a.cols, 2}, w{a.weight, 1, 0, a.cols, 2},
      out{a.out, a.rows, a.out_stride, a.cols, 2};
  if (!(a.eps >= 0.0f && a.eps <= 0x1.fffffep127f)) return false;
  for (const block& b : {x, r, s, out}) {
    if (!b.fits()) return false;
  }
  if (a.rows == 0 || a.cols == 0) return true;
  if (null_or_odd(a.x, 2) || null_or_odd(a.weight, 2) || null_or_odd(a.out, 2)) return false;
  if ((a.residual == nullptr) != (a.residual_out == nullptr)) return false;
  if (a.residual != nullptr && (null_or_odd(a.residual, 2) || null_or_odd(a.residual_out, 2))) return false;
  unknown = beyond({x, r, s, w, out});
  for (const block& to : {s, out}) {
    for (const block& from : {x, r}) {
      if (to.meets(from) && !to.is(from)) return false;
    }
    if (to.meets(w)) return false;
  }
  return !out.meets(s);
}

bool good_gemm_f32(const bi::gemm_f32_args& a, bool& unknown) {
  const block d{a.d, a.m, a.d_row_stride, a.n, 4};
  if (a.k < 0 || !d.fits()) return false;
  if (a.m == 0 || a.n == 0) return true;
  if (null_or_odd(a.d, 4)) return false;
  if (a.k == 0) return true;
  if (null_or_odd(a.a, 4) || null_or_odd(a.b, 4)) return false;
  const auto reach = [&](const float* p, std::int64_t rows, std::int64_t row, std::int64_t col, wide& begin,
                         wide& end) {
    const wide r = static_cast<wide>(rows - 1) * row, c = static_cast<wide>(a.k - 1) * col;
    constexpr wide limit = static_cast<wide>(1) << 60;
    begin = bytes_of(p) + 4 * ((r < 0 ? r : 0) + (c < 0 ? c : 0));
    end = bytes_of(p) + 4 * ((r > 0 ? r : 0) + (c > 0 ? c : 0) + 1);
    unknown |= begin < 0 || end > static_cast<wide>(1) << 64;
    return r <= limit && r >= -limit && c <= limit && c >= -limit;
  };
  wide begin = 0, end = 0;
  bool apart = true;
  if (!reach(a.a, a.m, a.a_row_stride, a.a_col_stride, begin, end)) return false;
  apart = apart && (end <= d.begin() || d.end() <= begin);
  if (!reach(a.b, a.n, a.b_row_stride, a.b_col_stride, begin, end)) return false;
  apart = apart && (end <= d.begin() || d.end() <= begin);
  unknown |= beyond({d});
  return apart;
}

// A check agrees with a predicate, unless addresses are asked for that no machine has.
template <class Args>
auto agrees_with(bool (*good)(const Args&, bool&)) {
  return [good](const Args& a, const status& st) {
    bool unknown = false;
    const bool expected = good(a, unknown);
    return unknown || expected == static_cast<bool>(st);
  };
}

}  // namespace

TEST_CASE("fuzz: the checks of all operations on a million structs", "[public][fuzz]") {
  constexpr int each = structs_in_all / 27;
  std::uint64_t seed = 1;
  const auto try_all = [&](const char* operation, const auto& good, auto check) {
    fuzz(operation, good, ++seed, each, check, nothing, no_opinion);
  };
  try_all("qk_norm", test::good_qk_norm<bf16>(), plain);
  try_all("layer_norm", test::good_layer_norm<float>(), plain);
  try_all("logsumexp", test::good_logsumexp<bf16>(), plain);
  try_all("reduce", test::good_reduce<float>(), [](const auto& a) { return check(a, bi::reduction::max); });
  try_all("reduce_columns", test::good_reduce_columns<bf16>(),
          [](const auto& a) { return check(a, bi::reduction::mean); });
  try_all("argmax", test::good_arg_reduce<bf16>(), plain);
  try_all("argmax_columns", test::good_arg_reduce_columns<bf16>(), plain);
  try_all("silu_mul", test::good_gate_mul<bf16>(), plain);
  try_all("add", test::good_add<float>(), plain);
  try_all("embedding", test::good_embedding<bf16>(), plain);
  try_all("rope", test::good_rope<bf16>(), plain);
  try_all("kv_append", test::good_kv_append<bf16>(), plain);
  try_all("sample", test::good_sample<float>(), plain);
  try_all("verify", test::good_verify<bf16>(), plain);
  try_all("logits_edit", test::good_logits_edit<bf16, float>(), plain);
  try_all("clear_counts", test::good_clear_counts(), plain);
  try_all("count_tokens", test::good_count_tokens(), plain);
  try_all("count_view", test::good_count_view(), plain);
  try_all("digest_rows", test::good_digest_rows(), plain);
  try_all("digest_kv", test::good_digest_kv<float>(), plain);
  try_all("attention", test::good_attention<bf16>(), plain);
  try_all("gemm_finish", test::good_gemm_finish<bf16, bi::epilogue::bias_residual>(), plain);

  // Limits and arguments of gemm together. b_is_constant is a bool.
  struct product {
    bi::gemm_limits limits;
    bi::gemm_args<bf16, bi::epilogue::bias_residual> args;
  };
  const auto repair = [](product& p) { p.args.b_is_constant = false; };
  fuzz(
      "gemm", product{test::good_gemm_limits(), test::good_gemm<bf16, bi::epilogue::bias_residual>()}, ++seed, each,
      [](const product& p) { return check(p.limits, p.args); }, repair, no_opinion);
}

TEST_CASE("fuzz: what a check accepts, and nothing else, is good by another predicate", "[public][fuzz]") {
  constexpr int each = structs_in_all / 20;
  fuzz("softmax", test::good_softmax<float>(), 101, each, plain, nothing, agrees_with(good_softmax));
  fuzz("rms_norm", test::good_rms_norm<bf16>(), 102, each, plain, nothing, agrees_with(good_rms_norm));
  fuzz("gemm_f32", test::good_gemm_f32(), 103, each, plain, nothing, agrees_with(good_gemm_f32));
}
