// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lanes/warps.hpp"
// The lanes' words come first.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bi/contract/norm.hpp"
#include "bi/contract/row_tree.hpp"
#include "bi/device/held_sum.cuh"
#include "bi/device/row.cuh"
#include "bi/kernel/rms_norm.cuh"
#include "bi/reference/rms_norm.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/row_schedules.hpp"

// What threads make of a row, by bi/device/row.cuh and bi/device/held_sum.cuh themselves, lane by lane: the contract's tree.

namespace {

namespace c = bi::contract;

using test::mix_step;
using test::row;

std::string differ(const std::vector<float>& got, float expected) {
  for (std::size_t thread = 0; thread < got.size(); ++thread) {
    const std::string text = test::difference(&got[thread], &expected, 1);
    if (!text.empty()) return "thread " + std::to_string(thread) + ": " + text;
  }
  return "";
}

// All rows of x with these lengths, one after another by the same group; what each thread has of each.
template <int Threads, class Step>
std::vector<std::vector<float>> fold_rows(const std::vector<float>& x, const std::vector<std::int64_t>& lengths,
                                          float start, Step step, test::generator& g) {
  bi::device::row_scratch<Threads> scratch;
  std::vector<std::vector<float>> out(lengths.size(), std::vector<float>(Threads));
  const auto body = [&](int thread) {
    bi::device::row_group<Threads> group(thread, &scratch);
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      const auto fold = [&](float acc, std::int64_t at, int n) {
        for (int e = 0; e < n; ++e) acc = step(acc, x[static_cast<std::size_t>(at + e)]);
        return acc;
      };
      out[i][static_cast<std::size_t>(thread)] = group.fold_row(lengths[i], start, fold, step);
    }
  };
  lanes::run_block(Threads, body, g);
  return out;
}

template <int Threads>
void check_group(const std::vector<float>& x, const std::vector<std::int64_t>& lengths, test::generator& g) {
  const auto mixed = fold_rows<Threads>(x, lengths, 1.0f, mix_step{}, g);
  const auto summed = fold_rows<Threads>(x, lengths, 0.0f, c::add_step{}, g);
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    INFO(Threads << " threads, length " << lengths[i]);
    REQUIRE(differ(mixed[i], row(x, lengths[i], 1.0f, mix_step{}, mix_step{})) == "");
    REQUIRE(differ(summed[i], row(x, lengths[i], 0.0f, c::add_step{}, c::add_step{})) == "");
  }
}

// Rows of whole vectors, as many as fit Held a thread.
template <int Threads, int Held>
void check_held(const std::vector<float>& x, test::generator& g) {
  using sum_type = bi::device::held_sum<Threads, Held, false>;
  std::vector<std::int64_t> lengths;
  for (std::int64_t n = 8; n <= std::int64_t{Threads} * Held * 8; n += 8 * g.between(1, Threads * Held / 5 + 1))
    lengths.push_back(n);
  auto memory = std::make_unique<typename sum_type::memory_type>();
  std::vector<std::vector<float>> out(lengths.size(), std::vector<float>(Threads));
  const auto body = [&](int thread) {
    sum_type sum(*memory);
    sum.ready();
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      out[i][static_cast<std::size_t>(thread)] = sum(1, [&](float acc, int j) {
        const std::int64_t at = (std::int64_t{j} * Threads + thread) * 8;
        for (std::int64_t e = at; e < at + 8 && at < lengths[i]; ++e)
          acc = bi::add_rn(acc, x[static_cast<std::size_t>(e)]);
        return acc;
      });
    }
  };
  lanes::run_block(Threads, body, g);
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    INFO(Threads << " threads, " << Held << " vectors, length " << lengths[i]);
    REQUIRE(differ(out[i], row(x, lengths[i], 0.0f, c::add_step{}, c::add_step{})) == "");
  }
}

// The kernel's row by so many threads.
template <class T, int Threads>
void check_rms_norm(std::int64_t cols, bool with_residual, test::generator& g) {
  using contract = bi::contract::rms_norm_draft;
  const auto size = static_cast<std::size_t>(cols);
  const auto x = test::random_vector<T>(cols, test::values::normal, g.next()),
             residual = test::random_vector<T>(cols, test::values::wide, g.next()),
             weight = test::random_vector<T>(cols, test::values::normal, g.next());
  std::vector<T> out(size), sum(size), expected(size), expected_sum(size);
  bi::rms_norm_args<T> a;
  a.x = x.data(), a.weight = weight.data(), a.out = expected.data(), a.rows = 1, a.cols = cols;
  if (with_residual) a.residual = residual.data(), a.residual_out = expected_sum.data();
  REQUIRE(bi::describe(bi::reference::rms_norm(a, 1)) == "ok");
  bi::kernel::rms_norm_params<T> p = {};
  p.x = x.data(), p.weight = weight.data(), p.out = out.data();
  if (with_residual) p.residual = residual.data(), p.residual_out = sum.data();
  p.rows = 1, p.inner = 1, p.cols = cols, p.eps = a.eps;
  p.aligned = bi::device::vector_aligned(x.data(), cols) && bi::device::vector_aligned(weight.data(), cols) &&
              bi::device::vector_aligned(residual.data(), cols) && bi::device::vector_aligned(sum.data(), cols) &&
              bi::device::vector_aligned(out.data(), cols);
  bi::device::row_scratch<Threads> scratch;
  const auto body = [&](int thread) {
    bi::device::row_group<Threads> group(thread, &scratch);
    bi::kernel::rms_norm_row<contract>(group, p, 0);
  };
  lanes::run_block(Threads, body, g);
  INFO(Threads << " threads, " << cols << " columns, residual " << with_residual);
  REQUIRE(test::difference(out, expected) == "");
  REQUIRE(test::difference(sum, expected_sum) == "");
}

}  // namespace

TEST_CASE("rms_norm: a row by 32 to 256 threads has the reference's bytes", "[lanes][rms_norm]") {
  test::generator g(9);
  for (const std::int64_t cols : {1, 7, 64, 65, 511, 2048, 2050, 8192, 8200, 16391}) {
    for (const bool with_residual : {false, true}) {
      check_rms_norm<bi::bf16, 32>(cols, with_residual, g);
      check_rms_norm<bi::bf16, 64>(cols, with_residual, g);
      check_rms_norm<bi::fp16, 128>(cols, with_residual, g);
      check_rms_norm<float, 256>(cols, with_residual, g);
    }
  }
}

TEST_CASE("row_group: 32 to 256 threads fold every row as the contract does", "[lanes][row_tree]") {
  test::generator g(1);
  const auto x = test::random_vector<float>(40000, test::values::normal, 2);
  std::vector<std::int64_t> lengths;
  for (std::int64_t n = 0; n <= 40; ++n) lengths.push_back(n);
  for (const std::int64_t n : {63,   64,   65,   255,  257,  511,  1024,  1025,  2039,  2040, 2041,
                               2048, 2049, 4099, 8191, 8192, 8193, 16384, 16385, 24577, 39999}) {
    lengths.push_back(n);
  }
  for (int i = 0; i < 20; ++i) lengths.push_back(g.below(9000));
  check_group<32>(x, lengths, g);
  check_group<64>(x, lengths, g);
  check_group<128>(x, lengths, g);
  check_group<256>(x, lengths, g);
}

TEST_CASE("row_group: block results of three levels", "[lanes][row_tree]") {
  test::generator g(3);
  const auto x = test::random_vector<float>(8200, test::values::normal, 4);
  for (const std::int64_t count : {0, 1, 2, 8, 300, 8192, 8193}) {
    bi::device::row_scratch<64> scratch;
    std::vector<float> out(64);
    lanes::run_block(
        64,
        [&](int thread) {
          bi::device::row_group<64> group(thread, &scratch);
          out[static_cast<std::size_t>(thread)] = group.fold_results(
              count, 1.0f, [&](std::int64_t b) { return x[static_cast<std::size_t>(b)]; }, mix_step{});
        },
        g);
    auto results = x;
    INFO("results " << count);
    REQUIRE(differ(out, c::reduce_results(results.data(), count, 1.0f, mix_step{})) == "");
  }
}

TEST_CASE("held_sum: a warp and 256 threads add up rows that they hold as the contract does", "[lanes][row_tree]") {
  test::generator g(5);
  const auto x = test::random_vector<float>(70000, test::values::normal, 6);
  check_held<32, 1>(x, g);
  check_held<32, 3>(x, g);
  check_held<32, 8>(x, g);
  check_held<32, 40>(x, g);
  check_held<256, 1>(x, g);
  check_held<256, 2>(x, g);
  check_held<256, 4>(x, g);
  check_held<256, 8>(x, g);
  check_held<256, 32>(x, g);
}

// The tests' own: lanes that meet in another order are seen.
TEST_CASE("lanes: a tree of another shape has other bits", "[lanes][row_tree]") {
  test::generator g(7);
  const auto x = test::random_vector<float>(2048, test::values::normal, 8);
  std::vector<float> out(256);
  bi::device::row_scratch<256> scratch;
  lanes::run_block(
      256,
      [&](int thread) {
        bi::device::row_group<256> group(thread ^ 1, &scratch);  // neighbours in each other's place
        const auto fold = [&](float acc, std::int64_t at, int n) {
          for (int e = 0; e < n; ++e) acc = mix_step{}(acc, x[static_cast<std::size_t>(at + e)]);
          return acc;
        };
        out[static_cast<std::size_t>(thread)] = group.fold_row(2048, 1.0f, fold, mix_step{});
      },
      g);
  CHECK(differ(out, row(x, 2048, 1.0f, mix_step{}, mix_step{})) != "");
}
