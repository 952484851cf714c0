// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lanes/warps.hpp"
// The lanes' words come first.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "bi/contract/norm.hpp"
#include "bi/contract/rope.hpp"
#include "bi/contract/trig.hpp"
#include "bi/kernel/kv_append.cuh"
#include "bi/kernel/kv_append_once.cuh"
#include "bi/kv_cache.hpp"
#include "bi/launch_kv_append.cuh"
#include "bi/reference/kv_cache.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

// The kernels of kv_append on the CPU: the reference's bytes, in the cache, of q and of digests.

namespace {

using bi::bf16;
using bi::fp16;
using rope = bi::contract::rope_draft;
using test::values;

constexpr std::int64_t positions = 11, page_size = 3, pages = 5;

struct shape {
  std::int64_t heads_q, heads, head_dim, rotary_dim;
  bi::rope_style style = bi::rope_style::half;
  std::int64_t pages_of = page_size;
};

template <class T>
struct arrays {
  std::vector<T> q, k, v;
  std::vector<std::uint64_t> digest;
};
template <class T>
std::string difference(const arrays<T>& a, const arrays<T>& b) {
  for (const auto& [x, y] : {std::pair(&a.q, &b.q), std::pair(&a.k, &b.k), std::pair(&a.v, &b.v)}) {
    const std::string d = test::difference(*x, *y);
    if (!d.empty()) return d;
  }
  return test::difference(a.digest, b.digest);
}

// The kernel for few tokens, or the one for many, in a grid of so many thread blocks, each block by itself.
template <class Norm, class T>
void launch(const bi::kv_append_args<T>& a, bool few, int threads, std::int64_t blocks, int parts, test::generator& g) {
  namespace kernel = bi::kernel;
  auto p = bi::launch_detail::make_kv_append_params(a);
  const auto run = [&](int lanes, void (*f)(kernel::kv_append_params<T>)) {
    bi::launch_detail::set_lanes(p, lanes);
    lanes::where.grid = {static_cast<unsigned>(blocks), static_cast<unsigned>(parts), 1};
    for (int y = 0; y < parts; ++y) {
      lanes::where.block.y = static_cast<unsigned>(y);
      for (std::int64_t x = 0; x < blocks; ++x) {
        lanes::run_block(
            threads, [&](int) { f(p); }, g, static_cast<unsigned>(x));
      }
    }
    lanes::where.block.y = 0;
  };
  // What it has of shared memory lies near this.
  static int near = 0;
  lanes::shared_memory() = reinterpret_cast<unsigned char*>(reinterpret_cast<std::uintptr_t>(&near) & ~0xffffffffull);
  const bool digest = a.digest != nullptr, one = blocks == a.tokens;
  const int lanes = bi::launch_detail::kv_append_lanes(p, 8);
  if (few) {
    REQUIRE(lanes > 0);
    REQUIRE(one);
    run(lanes, digest ? kernel::kv_append_once_kernel<Norm, rope, T, true>
                      : kernel::kv_append_once_kernel<Norm, rope, T, false>);
    return;
  }
  const int pairs = bi::launch_detail::kv_append_lanes(p, 16);
  bi::launch_detail::set_lanes(p, pairs);
  const auto work = bi::launch_detail::kv_append_work_of(p, blocks, threads, parts > 1);
  run(pairs, bi::launch_detail::kv_append_lanes_kernel_of<Norm, rope, T>(digest, work));
}

template <class Norm, class T>
void check(const shape& s, std::uint64_t seed) {
  test::generator g(seed);
  const std::int64_t tokens = 5, rows = s.heads_q + 2 * s.heads;
  const auto x =
      test::random_vector<T>(tokens * rows * s.head_dim, seed % 2 == 0 ? values::normal : values::hostile, g.next());
  const auto weight = test::random_vector<T>(s.head_dim, values::normal, g.next());
  const auto q_weight = test::random_vector<T>(s.head_dim, values::normal, g.next());
  std::vector<float> cos(static_cast<std::size_t>(positions * s.rotary_dim / 2 + 4)), sin = cos;
  if (s.rotary_dim > 0) REQUIRE(bi::make_rope_table(1e4, s.rotary_dim, positions, cos.data(), sin.data()));
  std::vector<std::int64_t> slot = {4, 0, -1, 13, 7};
  const std::vector<std::int32_t> position = {3, 10, -7, 0, 5}, run_index = {2, 70000, 1, 0, 2147483647};
  arrays<T> expected, got;
  const auto args = [&](arrays<T>& out, bool with_digest) {
    const auto cache = static_cast<std::size_t>(pages * s.pages_of * s.heads * s.head_dim);
    T untouched{};
    std::memset(&untouched, 0x7f, sizeof untouched);
    out.k.assign(cache, untouched), out.v.assign(cache, untouched);
    out.q.assign(static_cast<std::size_t>(tokens * s.heads_q * s.head_dim), untouched);
    out.digest.assign(with_digest ? static_cast<std::size_t>(tokens) : 0, 77u);
    bi::kv_append_args<T> a;
    a.q = s.heads_q > 0 ? x.data() : nullptr, a.q_out = s.heads_q > 0 ? out.q.data() : nullptr, a.heads_q = s.heads_q;
    a.k = x.data() + s.heads_q * s.head_dim, a.v = a.k + s.heads * s.head_dim;
    a.k_token_stride = a.v_token_stride = rows * s.head_dim;
    if (s.heads_q > 0) a.q_token_stride = rows * s.head_dim;
    a.cache.k = out.k.data(), a.cache.v = out.v.data(), a.cache.num_pages = pages, a.cache.page_size = s.pages_of;
    a.cache.heads = s.heads, a.cache.head_dim = s.head_dim;
    a.slot = slot.data(), a.tokens = tokens;
    if (seed % 3 != 0) a.norm_weight = weight.data();
    if (seed % 3 == 1 && s.heads_q > 0) a.q_norm_weight = q_weight.data();
    if (s.rotary_dim > 0) {
      a.position = position.data();
      a.table = {cos.data(), sin.data(), positions, s.rotary_dim, s.style};
    }
    if (with_digest) {
      a.digest = out.digest.data();
      if (seed % 4 != 0) a.run_index = run_index.data();
    }
    return a;
  };
  for (const bool with_digest : {false, true}) {
    REQUIRE(bi::reference::kv_append<Norm, rope>(args(expected, with_digest)));
    const int lanes = bi::launch_detail::kv_append_lanes(bi::launch_detail::make_kv_append_params(args(got, false)), 8);
    for (int parts = lanes > 0 ? 1 : 0; parts > 0 && parts <= 3; ++parts) {
      if (s.heads_q == 0 && parts > 1) continue;
      const std::int64_t first = parts == 1 ? rows : 2 * s.heads;
      const std::int64_t rest = parts == 1 ? 0 : (s.heads_q + parts - 2) / (parts - 1);
      const int least = static_cast<int>((std::max(first, rest) * lanes + 31) / 32 * 32);
      const int threads = parts == 2 ? least + 32 : least;
      if (threads <= 512) {
        INFO(threads << " threads, " << parts << " parts, digest " << with_digest);
        launch<Norm>(args(got, with_digest), true, threads, tokens, parts, g);
        REQUIRE(difference(got, expected) == "");
      }
    }
    for (const int threads : {32, 96, 160}) {
      for (const std::int64_t blocks : {tokens, std::int64_t{2}}) {
        if (s.head_dim % 16 != 0) continue;
        const int many_lanes =
            bi::launch_detail::kv_append_lanes(bi::launch_detail::make_kv_append_params(args(got, false)), 16);
        for (int parts = 1; parts <= 3; ++parts) {
          const std::int64_t groups = threads / many_lanes;
          const bool fits = blocks == tokens && groups >= 2 * s.heads && groups * (parts - 1) >= s.heads_q;
          if (parts > 1 && (s.heads_q == 0 || !fits)) continue;
          INFO(threads << " threads, " << blocks << " blocks, " << parts << " parts, digest " << with_digest);
          launch<Norm>(args(got, with_digest), false, threads, blocks, parts, g);
          REQUIRE(difference(got, expected) == "");
        }
      }
    }
  }
}

template <class Norm, class T>
void check_all(int each) {
  const auto interleaved = bi::rope_style::interleaved;
  std::uint64_t seed = 0;
  for (const shape& s :
       {shape{6, 2, 128, 128}, shape{3, 1, 64, 64, interleaved, 4}, shape{5, 3, 64, 32, {}, 4}, shape{2, 2, 256, 64},
        shape{3, 2, 96, 96}, shape{1, 2, 80, 16}, shape{9, 1, 16, 16}, shape{3, 2, 128, 0, {}, 4},
        shape{0, 3, 128, 64, interleaved}, shape{2, 5, 8, 0}, shape{2, 8, 128, 64}}) {
    for (int i = 0; i < each; ++i) {
      INFO(s.heads_q << "/" << s.heads << " heads of " << s.head_dim << ", seed " << seed);
      check<Norm, T>(s, seed++);
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("kv_append's kernels on the CPU: the reference's bytes", "[lanes]", bf16, fp16, float) {
  check_all<bi::contract::rms_norm_draft, TestType>(2);
}
TEST_CASE("kv_append's kernels on the CPU: other norms", "[lanes]") {
  check_all<bi::contract::rms_norm_hf_draft, bf16>(1);
  check_all<bi::contract::rms_norm_one_plus_draft, bf16>(1);
}
