// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/contract/row_tree.hpp"

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "bi/contract/norm.hpp"
#include "bi/contract/reduce.hpp"
#include "bi/contract/softmax.hpp"
#include "bi/reference/fp_env.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/row_schedules.hpp"

namespace c = bi::contract;
using test::schedule;

namespace {

// The sizes of the tree are part of the contract: a change here is a change of every result.
static_assert(c::row_vector == 8 && c::row_lanes == 256 && c::row_block == 8192);
static_assert(c::row_blocks(0) == 0 && c::row_blocks(1) == 1 && c::row_blocks(8192) == 1 && c::row_blocks(8193) == 2);
static_assert(c::row_blocks(INT64_MAX) == (std::int64_t{1} << 50));
static_assert(c::block_length(8193, 0) == 8192 && c::block_length(8193, 1) == 1 && c::block_length(5, 0) == 5);
static_assert(c::active_lanes(0) == 0 && c::active_lanes(1) == 1 && c::active_lanes(8) == 1 && c::active_lanes(9) == 2);
static_assert(c::active_lanes(2040) == 255 && c::active_lanes(2041) == 256 && c::active_lanes(8192) == 256);
static_assert(c::lane_of(0) == 0 && c::lane_of(7) == 0 && c::lane_of(8) == 1 && c::lane_of(2047) == 255);
static_assert(c::lane_of(2048) == 0 && c::lane_of(8191) == 255);

using test::mix_step;
using test::row;

std::string hex(float a, float b) { return test::difference(&a, &b, 1); }

// Lengths at which some part of the tree begins or ends.
std::vector<std::int64_t> lengths() {
  std::vector<std::int64_t> out;
  for (std::int64_t n = 0; n <= 600; ++n) out.push_back(n);
  for (std::int64_t k = 10; k <= 14; ++k) {
    for (std::int64_t n = (std::int64_t{1} << k) - 1; n <= (std::int64_t{1} << k) + 1; ++n) out.push_back(n);
  }
  for (const std::int64_t n : {2040, 4099, 24577, 65535, 65536, 65537, 73729, 131073}) out.push_back(n);
  return out;
}

}  // namespace

TEST_CASE("row tree: the shape is the same in every schedule", "[contract][row_tree]") {
  const bi::reference::fp_environment environment;
  const auto x = test::random_vector<float>(131073, test::values::normal, 1);
  for (const std::int64_t n : lengths()) {
    const float expected = row(x, n, 1.0f, mix_step{}, mix_step{});
    for (const schedule s : {schedule::definition, schedule::warp, schedule::block, schedule::scattered}) {
      INFO("length " << n << ", schedule " << static_cast<int>(s));
      REQUIRE(hex(test::simulate_row(s, x.data(), n, 1.0f, mix_step{}, mix_step{}), expected).empty());
      REQUIRE(hex(test::simulate_row(s, x.data(), n, 1.0f, mix_step{}, mix_step{}, 3, true), expected).empty());
    }
  }
}

TEST_CASE("row tree: all lengths to 4096, powers of two and their neighbours to 2^20", "[contract][row_tree]") {
  const bi::reference::fp_environment environment;
  const auto x = test::random_vector<float>((1 << 20) + 1, test::values::normal, 5);
  const auto check = [&](std::int64_t n) {
    const float expected = row(x, n, 1.0f, mix_step{}, mix_step{});
    for (const schedule s : {schedule::warp, schedule::block}) {
      INFO("length " << n << ", schedule " << static_cast<int>(s));
      REQUIRE(hex(test::simulate_row(s, x.data(), n, 1.0f, mix_step{}, mix_step{}), expected).empty());
    }
  };
  for (std::int64_t n = 601; n <= 4096; ++n) check(n);
  for (int k = 15; k <= 20; ++k) {
    for (const std::int64_t d : {-1, 0, 1}) check((std::int64_t{1} << k) + d);
  }
}

TEST_CASE("row tree: sums, squares, maxima and minima in every schedule", "[contract][row_tree]") {
  const bi::reference::fp_environment environment;
  for (const test::values kind : test::all_values) {
    const auto x = test::random_vector<float>(131073, kind, 2);
    for (const std::int64_t n : lengths()) {
      if (n > 40 && n < 500 && n % 8 > 1) continue;
      const float sum = row(x, n, 0.0f, c::add_step{}, c::add_step{});
      const float squares = row(x, n, 0.0f, c::square_step{}, c::add_step{});
      const float largest = row(x, n, bi::neg_inf_f32(), c::max_step{}, c::max_step{});
      const float smallest = row(x, n, bi::inf_f32(), c::min_step{}, c::min_step{});
      for (const schedule s : test::all_schedules) {
        if (n > 10000 && s == schedule::definition) continue;
        INFO("length " << n << ", data " << static_cast<int>(kind) << ", schedule " << static_cast<int>(s));
        const float* p = x.data();
        REQUIRE(hex(test::simulate_row(s, p, n, 0.0f, c::add_step{}, c::add_step{}, 2, true), sum).empty());
        REQUIRE(hex(test::simulate_row(s, p, n, 0.0f, c::square_step{}, c::add_step{}, 4), squares).empty());
        REQUIRE(hex(test::simulate_row(s, p, n, bi::neg_inf_f32(), c::max_step{}, c::max_step{}), largest).empty());
        REQUIRE(hex(test::simulate_row(s, p, n, bi::inf_f32(), c::min_step{}, c::min_step{}), smallest).empty());
      }
    }
  }
}

TEST_CASE("row tree: three levels of blocks", "[contract][row_tree]") {
  const bi::reference::fp_environment environment;
  // As many block results as a row of 2^27 elements and one more block has.
  const auto x = test::random_vector<float>(16385, test::values::normal, 3);
  for (const std::int64_t n : {1, 2, 8191, 8192, 8193, 16384, 16385}) {
    auto results = x;
    const float expected = test::simulate_row(schedule::block, x.data(), n, 1.0f, mix_step{}, mix_step{});
    const float got = c::reduce_results(results.data(), n, 1.0f, mix_step{});
    INFO("results " << n);
    // One result is the row's value as it stands; a row of one element would be folded with the start value.
    REQUIRE(hex(got, n == 1 ? x[0] : expected).empty());
  }
  float none = 7.0f;
  REQUIRE(c::reduce_results(&none, 0, 1.0f, mix_step{}) == 1.0f);
  REQUIRE(none == 7.0f);
}

TEST_CASE("row tree: values known by hand", "[contract][row_tree]") {
  const bi::reference::fp_environment environment;
  // 2^24 + 1 rounds to 2^24: which of the ones are lost tells the order.
  std::vector<float> x(2049, 0.0f);
  x[0] = 0x1p24f;
  x[1] = 1.0f;     // same vector: lost
  x[8] = 1.0f;     // lane 1 and
  x[1032] = 1.0f;  // lane 129 meet at distance 128: 2 survives
  REQUIRE(row(x, 2048, 0.0f, c::add_step{}, c::add_step{}) == 0x1p24f + 2.0f);
  x[8] = x[1032] = 0.0f;
  x[2048] = 1.0f;  // lane 0 again, after x[1]: lost
  REQUIRE(row(x, 2049, 0.0f, c::add_step{}, c::add_step{}) == 0x1p24f);
  // A row of -0 sums to +0, because every lane starts at +0.
  const std::vector<float> zeros(20, bi::float_of(0x80000000u));
  REQUIRE(bi::bits_of(row(zeros, 20, 0.0f, c::add_step{}, c::add_step{})) == 0u);
  REQUIRE(bi::bits_of(row(zeros, 20, bi::neg_inf_f32(), c::max_step{}, c::max_step{})) == 0x80000000u);
  // (1 + 2^-12)^2 has 25 bits: a rounded square would lose the last one.
  REQUIRE(c::square_step{}(-0x1.002p0f, 0x1.001p0f) == 0x1p-24f);
  REQUIRE(c::centred_square_step{1.0f}(-0x1.002p0f, 0x2.001p0f) == 0x1p-24f);
  for (std::int64_t n = 1; n < 1000; ++n) {  // one division, not a product with 1 / n
    const float sum = bi::float_from_int64(3 * n + 1);
    REQUIRE(c::reduce_draft::mean(sum, n) == bi::div_rn(sum, bi::float_from_int64(n)));
    REQUIRE(c::layer_norm_draft::mean(sum, n) == bi::div_rn(sum, bi::float_from_int64(n)));
    const float root = bi::sqrt_rn(bi::add_rn(bi::div_rn(sum, bi::float_from_int64(n)), 0.25f));
    REQUIRE(c::norm_scale(sum, n, 0.25f) == bi::div_rn(1.0f, root));
  }
}

TEST_CASE("row tree: other orders give other bits", "[contract][row_tree]") {
  // Positive control: were the bits the same for any order, the tests above would show nothing.
  const bi::reference::fp_environment environment;
  const auto x = test::random_vector<float>(20000, test::values::normal, 4);
  int serial = 0, halves = 0, lanes128 = 0, cases = 0;
  for (std::int64_t n = 100; n <= 20000; n += 100, ++cases) {
    const float expected = row(x, n, 0.0f, c::add_step{}, c::add_step{});
    float left_to_right = 0.0f;
    for (std::int64_t i = 0; i < n; ++i) left_to_right = bi::add_rn(left_to_right, x[static_cast<std::size_t>(i)]);
    const std::int64_t h = n / 2;
    const auto part = [&](std::int64_t from, std::int64_t to) {
      return test::simulate_row(schedule::block, x.data() + from, to - from, 0.0f, c::add_step{}, c::add_step{});
    };
    std::vector<float> half(128, 0.0f);
    for (std::int64_t i = 0; i < n; ++i) {
      float& l = half[static_cast<std::size_t>(i / 8 % 128)];
      l = bi::add_rn(l, x[static_cast<std::size_t>(i)]);
    }
    for (std::size_t d = 64; d > 0; d /= 2) {
      for (std::size_t l = 0; l < d; ++l) half[l] = bi::add_rn(half[l], half[l + d]);
    }
    serial += !hex(left_to_right, expected).empty();
    halves += !hex(bi::add_rn(part(0, h), part(h, n)), expected).empty();
    lanes128 += !hex(half[0], expected).empty();
  }
  REQUIRE(serial > cases / 2);
  REQUIRE(halves > cases / 2);
  REQUIRE(lanes128 > cases / 3);
}

TEST_CASE("row contracts: names and ids", "[contract][row_tree]") {
  const std::uint64_t ids[] = {c::reduce_draft::id(),      c::rms_norm_draft::id(),
                               c::rms_norm_hf_draft::id(), c::rms_norm_one_plus_draft::id(),
                               c::layer_norm_draft::id(),  c::softmax_draft::id()};
  for (std::size_t i = 0; i < 6; ++i) {
    for (std::size_t j = 0; j < i; ++j) REQUIRE(ids[i] != ids[j]);
  }
  REQUIRE(c::reduce_draft::id() == bi::contract_id("reduce_draft", 8, 256, 8192));
  REQUIRE(std::string(c::softmax_draft::name) == "softmax_draft");
}

TEST_CASE("better_arg does not depend on the order of its operands", "[contract][reduce]") {
  const float values[] = {
      0.0f, -0.0f, 1.0f, -1.0f, bi::inf_f32(), bi::neg_inf_f32(), bi::nan_f32(), bi::float_of(0xffc00001u), 0x1p-149f};
  for (const float a : values) {
    for (const float b : values) {
      for (const std::int64_t i : {-1, 3}) {
        const c::arg_value p{a, i}, q{b, 5};
        const auto max1 = c::better_arg<c::arg_max_step>(p, q), max2 = c::better_arg<c::arg_max_step>(q, p);
        REQUIRE(max1.index == max2.index);
        const auto min1 = c::better_arg<c::arg_min_step>(p, q), min2 = c::better_arg<c::arg_min_step>(q, p);
        REQUIRE(min1.index == min2.index);
        if (i < 0) REQUIRE(max1.index == 5);
      }
    }
  }
}
