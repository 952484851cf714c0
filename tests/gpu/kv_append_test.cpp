// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/kv_cache.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "golden/cases_tokens.hpp"
#include "gpu/support/forced_backend.hpp"
#include "gpu/support/forced_tokens.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "gpu/support/late_copy.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/ops_rows.hpp"

// kv_append with q and digests; tokens_test.cpp has it without.

using bi::bf16;
using bi::fp16;
using test::kv_case;
using test::values;

namespace {

using norm = bi::contract::rms_norm_draft;

constexpr std::int64_t positions = 43;

struct appended {
  std::vector<std::uint64_t> digest;
  std::vector<std::uint32_t> bits;  // of the cache's K and V, and of q_out, whole buffers
};
std::string difference(const appended& a, const appended& b) {
  const std::string of_digest = test::difference(a.digest, b.digest);
  return of_digest.empty() ? test::difference(a.bits, b.bits) : "digest, " + of_digest;
}
template <class T>
void append_bits(std::vector<std::uint32_t>& to, const std::vector<T>& from) {
  for (const T& x : from) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &x, sizeof x);
    to.push_back(bits);
  }
}

// q, k and v are parts of one array, as a projection leaves them, where `projected`; then q_out is q. The digests are
// made in `with_digest`.
template <class T>
struct inputs {
  kv_case c;
  std::int64_t heads_q;
  bool projected = false, with_digest = true;

  std::int64_t head_stride() const { return c.head_dim + c.pad; }
  std::int64_t width(std::int64_t heads) const { return heads * head_stride() + c.pad; }
  std::int64_t row() const { return width(heads_q) + 2 * width(c.heads); }

  std::vector<std::int64_t> slot(std::uint64_t seed) const { return test::random_slots(c, seed + 8); }
  std::vector<std::int32_t> position(std::uint64_t seed) const {
    test::generator g(seed + 9);
    std::vector<std::int32_t> out;
    for (const std::int64_t s : slot(seed)) out.push_back(s < 0 ? -7 : static_cast<std::int32_t>(g.below(positions)));
    return out;
  }
  std::vector<std::int32_t> run_index() const {
    std::vector<std::int32_t> out;
    for (std::int64_t t = 0; t < c.tokens; ++t) out.push_back(static_cast<std::int32_t>(t * 77777 % 100003));
    return out;
  }
  template <class Backend>
  bi::kv_append_args<T> args(Backend& b, std::uint64_t seed) const {
    bi::kv_append_args<T> a;
    a.cache = test::cache_layout<T>(c);
    const std::int64_t cache = test::cache_elements(a.cache) + c.offset;
    a.cache.k = b.template output<T>(cache) + c.offset;
    a.cache.v = b.template output<T>(cache) + c.offset;
    a.tokens = c.tokens;
    a.heads_q = heads_q;
    T* const q = b.input(test::random_vector<T>(c.tokens * row() + c.offset, c.kind, seed)) + c.offset;
    a.q = q;
    a.k = a.q + width(heads_q);
    a.v = a.k + width(c.heads);
    a.k_head_stride = a.q_head_stride = a.q_out_head_stride = head_stride();
    a.k_token_stride = a.q_token_stride = a.q_out_token_stride = row();
    a.q_out = projected ? q : b.template output<T>(c.tokens * row() + c.offset) + c.offset;
    a.slot = b.input(slot(seed));
    if (c.norm) {
      a.norm_weight = b.input(test::random_vector<T>(c.head_dim, values::normal, seed + 2));
      if (seed % 4 != 0) a.q_norm_weight = b.input(test::random_vector<T>(c.head_dim, values::normal, seed + 3));
    }
    if (c.rotary_dim > 0) {
      a.table = test::random_table(b, positions, c.rotary_dim, c.style, c.offset, seed + 4);
      a.position = b.input(position(seed));
    }
    if (with_digest) {
      a.digest = b.template output<std::uint64_t>(c.tokens);
      if (seed % 3 != 0) a.run_index = b.input(run_index());
    }
    return a;
  }
  template <class Backend>
  appended read(Backend& b, const bi::kv_append_args<T>& a) const {
    appended out;
    if (a.digest != nullptr) out.digest = b.read(a.digest);
    append_bits(out.bits, b.read(a.cache.k - c.offset));
    append_bits(out.bits, b.read(a.cache.v - c.offset));
    append_bits(out.bits, b.read(a.q_out - c.offset));
    return out;
  }
  template <class Norm, class Backend>
  appended run(Backend& b, std::uint64_t seed) const {
    const auto a = args(b, seed);
    b.run(test::kv_append_op<Norm>{}, a);
    return read(b, a);
  }
};

template <class T>
std::string name_of(const inputs<T>& in) {
  return to_string(in.c) + ",heads_q=" + std::to_string(in.heads_q) + (in.projected ? ",projected" : "");
}

// Heads that one kernel has and heads that the other has; full, partial and no rotation.
const inputs<bf16> shapes[] = {
    {{23, 8, 128, 16, true, 128}, 32},
    {{23, 2, 128, 16, true, 128, bi::rope_style::interleaved, values::hostile}, 6, true},
    {{23, 1, 64, 5, true, 64, bi::rope_style::half, values::hostile, true}, 3},
    {{23, 3, 64, 5, true, 32, bi::rope_style::half, values::wide, true}, 5, true},
    {{17, 2, 128, 64, true, 64, bi::rope_style::interleaved, values::cancelling}, 4},
    {{17, 2, 256, 8, true, 64, bi::rope_style::half, values::normal}, 2},
    {{17, 2, 96, 8, true, 96, bi::rope_style::half, values::hostile, false, 8}, 7},
    {{17, 2, 80, 8, true, 16, bi::rope_style::half, values::subnormal, true, 8}, 1},
    {{9, 2, 512, 3, true, 512, bi::rope_style::half, values::wide}, 3},
    {{9, 1, 16, 1, true, 16, bi::rope_style::half, values::normal}, 300},
    {{9, 5, 128, 16, true, 0, bi::rope_style::half, values::hostile}, 3},
    {{9, 5, 128, 16, false, 128, bi::rope_style::half, values::hostile}, 3, true},
    {{9, 2, 64, 16, false, 0, bi::rope_style::half, values::hostile}, 2},
    {{11, 2, 77, 7, true, 30, bi::rope_style::half, values::hostile, false, 1, 1}, 3, true},
    {{11, 3, 5, 2, true, 4, bi::rope_style::interleaved, values::normal, true, 3}, 2},
    {{11, 2, 128, 16, true, 24, bi::rope_style::half, values::normal, false, 0, 1}, 2},
    {{3, 1, 600, 2, true, 64}, 2, true},
};

template <class Norm, class T>
std::int64_t compare_all(std::uint64_t seed) {
  std::int64_t outputs = 0;
  for (const inputs<bf16>& s : shapes) {
    inputs<T> in{s.c, s.heads_q, s.projected};
    for (const bool with_digest : {true, false}) {
      in.with_digest = with_digest;
      test::host_backend host;
      test::gpu_backend gpu;
      const auto expected = in.template run<Norm>(host, seed), got = in.template run<Norm>(gpu, seed);
      gpu.clear();
      INFO(name_of(in));
      CHECK(difference(got, expected) == "");
      outputs += static_cast<std::int64_t>(expected.bits.size());
    }
    ++seed;
  }
  return outputs;
}

// As three operations: qk_norm and rope of k and q in place, then a plain append.
template <class T>
appended one_after_another(test::gpu_backend& gpu, const inputs<T>& in, std::uint64_t seed) {
  auto a = in.args(gpu, seed);
  const auto separate = [&](const T* x, std::int64_t heads, std::int64_t head_stride, std::int64_t token_stride,
                            const T* weight) {
    T* const p = const_cast<T*>(x);
    if (weight != nullptr) {
      bi::qk_norm_args<T> n;
      n.x = n.out = p;
      n.weight = weight, n.eps = a.norm_eps, n.tokens = a.tokens, n.heads = heads, n.head_dim = in.c.head_dim;
      n.x_token_stride = n.out_token_stride = token_stride, n.x_head_stride = n.out_head_stride = head_stride;
      gpu.run(test::qk_norm_op<norm>{}, n);
    }
    if (a.table.cos == nullptr) return;
    bi::rope_args<T> r;
    r.x = r.out = p;
    r.position = a.position, r.table = a.table, r.tokens = a.tokens, r.heads = heads, r.head_dim = in.c.head_dim;
    r.x_token_stride = r.out_token_stride = token_stride, r.x_head_stride = r.out_head_stride = head_stride;
    gpu.run(test::rope_op{}, r);
  };
  separate(a.k, a.cache.heads, a.k_head_stride, a.k_token_stride, a.norm_weight);
  separate(a.q, a.heads_q, a.q_head_stride, a.q_token_stride, a.q_norm_weight);
  a.norm_weight = a.q_norm_weight = nullptr;
  a.table = {};
  gpu.run(test::kv_append_op<norm>{}, a);
  return in.read(gpu, a);
}

}  // namespace

TEMPLATE_TEST_CASE("kv_append: with q and digests, GPU bytes equal the reference's", "[gpu][kv_append]", bf16, fp16,
                   float) {
  CHECK(compare_all<norm, TestType>(1) + compare_all<norm, TestType>(101) >= 500000);
  compare_all<bi::contract::rms_norm_hf_draft, TestType>(2);
  compare_all<bi::contract::rms_norm_one_plus_draft, TestType>(3);
}

TEMPLATE_TEST_CASE("kv_append: one kernel gives the bytes of qk_norm, rope and a plain append", "[gpu][kv_append]",
                   bf16, fp16, float) {
  for (inputs<bf16> s : shapes) {
    const inputs<TestType> in{s.c, s.heads_q};
    test::gpu_backend gpu;
    const auto fused = in.template run<norm>(gpu, 5), separate = one_after_another(gpu, in, 5);
    INFO(name_of(in));
    CHECK(difference(fused, separate) == "");
    gpu.clear();
  }
}

TEMPLATE_TEST_CASE("kv_append: with q and digests, every schedule gives the same bytes", "[gpu][kv_append][schedule]",
                   bf16, float) {
  // Two are enough of each kernel: more rows of threads than a block has, and fewer.
  const inputs<TestType> all[] = {
      {{300, 8, 128, 16, true, 128}, 32, true},
      {{300, 1, 64, 16, true, 32}, 2},
      {{300, 2, 77, 5, true, 30, bi::rope_style::interleaved, values::hostile, true, 1, 1}, 3},
      {{70, 2, 128, 5, true, 24}, 17, true},
  };
  for (const inputs<TestType>& in : all) {
    test::host_backend host;
    const auto expected = in.template run<norm>(host, 7);
    test::forced_backend<bi::schedule::shared_schedule> gpu;
    for (const auto& s : test::shared_schedules()) {
      INFO(name_of(in) << ", " << to_string(s));
      gpu.schedule = s;
      REQUIRE(difference(in.template run<norm>(gpu, 7), expected) == "");
      gpu.clear();
    }
  }
}

TEST_CASE("kv_append: digests add up to digest_kv's of the cache, appended in any pieces", "[gpu][kv_append][digest]") {
  constexpr std::int64_t n = 150, heads = 2, page_size = 16, pages = 12;
  for (const std::int64_t dim : {128, 80, 77}) {
    test::gpu_backend gpu;
    const std::int64_t width = heads * dim;
    std::vector<std::int32_t> table(pages), index, position;
    for (std::int64_t i = 0; i < pages; ++i) table[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i * 5 % 12);
    std::vector<std::int64_t> slot;
    for (std::int64_t j = 0; j < n; ++j) {
      slot.push_back(table[static_cast<std::size_t>(j / page_size)] * page_size + j % page_size);
      index.push_back(static_cast<std::int32_t>(j));
      position.push_back(static_cast<std::int32_t>(j % positions));
    }
    const bf16* x = gpu.input(test::random_vector<bf16>(2 * n * width, values::hostile, 11));
    const std::int64_t* d_slot = gpu.input(slot);
    const std::int32_t *d_index = gpu.input(index), *d_position = gpu.input(position), *d_table = gpu.input(table);
    bi::kv_append_args<bf16> a;
    a.cache.num_pages = pages, a.cache.page_size = page_size, a.cache.heads = heads, a.cache.head_dim = dim;
    a.cache.k = gpu.output<bf16>(pages * page_size * width), a.cache.v = gpu.output<bf16>(pages * page_size * width);
    a.norm_weight = gpu.input(test::random_vector<bf16>(dim, values::normal, 12));
    a.table = test::random_table(gpu, positions, dim / 16 * 16, bi::rope_style::half, 0, 13);
    auto* digest = gpu.output<std::uint64_t>(n);
    bi::digest_kv_args<bf16> d;
    d.cache.k = a.cache.k, d.cache.v = a.cache.v, d.cache.num_pages = pages, d.cache.page_size = page_size;
    d.cache.heads = heads, d.cache.head_dim = dim;
    d.view = bi::page_table{d_table, pages};
    d.requests = 1;
    d.out = gpu.output<std::uint64_t>(1);
    const std::uint64_t bytes = bi::contract::kv_token_bytes(heads, dim, sizeof(bf16));
    std::vector<std::uint64_t> first_way;
    for (const std::int64_t piece : {n, std::int64_t{1}, std::int64_t{7}, std::int64_t{64}}) {
      gpu.poison(digest, n);
      for (std::int64_t done = 0; done < n; done += a.tokens) {
        a.tokens = std::min(piece, n - done);
        a.k = x + done * width, a.v = x + (n + done) * width;
        a.slot = d_slot + done, a.position = d_position + done, a.run_index = d_index + done, a.digest = digest + done;
        gpu.run(test::kv_append_op<norm>{}, a);
      }
      const auto got = gpu.read(digest);
      if (first_way.empty()) first_way = got;
      INFO("head_dim " << dim << ", pieces of " << piece);
      REQUIRE(test::difference(got, first_way) == "");
      std::uint64_t sum = 0;
      for (std::int64_t j = 0; j < n; ++j) {
        sum += got[static_cast<std::size_t>(j)];
        if (j % 29 != 0 && j != n - 1) continue;
        d.count = gpu.input(std::vector<std::int32_t>{static_cast<std::int32_t>(j + 1)});
        gpu.run(test::digest_kv_op{}, d);
        const auto count = static_cast<std::uint64_t>(j + 1);
        REQUIRE(gpu.read(d.out)[0] == bi::contract::digest_length_term(count * bytes) + sum);
      }
    }
    // Controls: one bit of the cache, and one index, move the sum.
    const std::uint64_t before = gpu.read(d.out)[0];
    auto v = gpu.read(a.cache.v);
    v[static_cast<std::size_t>(slot[77] * width)].bits ^= 1;
    gpu.write(a.cache.v, v);
    gpu.run(test::digest_kv_op{}, d);
    CHECK(gpu.read(d.out)[0] != before);
    a.run_index = nullptr, a.tokens = n, a.k = x, a.v = x + n * width, a.slot = d_slot, a.position = d_position;
    a.digest = digest;
    gpu.run(test::kv_append_op<norm>{}, a);
    const auto without = gpu.read(digest);
    CHECK(without[0] == first_way[0]);
    for (std::size_t j = 1; j < without.size(); ++j) REQUIRE(without[j] != first_way[j]);
    gpu.clear();
  }
}

TEST_CASE("kv_append: with q, a token alone equals the token in batches", "[gpu][kv_append]") {
  const inputs<bf16> in{{257, 2, 128, 1, true, 128, bi::rope_style::half, values::hostile}, 4};
  test::gpu_backend gpu;
  auto whole = in.args(gpu, 1);
  gpu.run(test::kv_append_op<norm>{}, whole);
  const auto expected = in.read(gpu, whole);
  for (const std::int64_t n : {1, 2, 3, 8, 31, 100, 256}) {
    auto a = whole;
    gpu.poison(a.cache.k, test::cache_elements(a.cache));
    gpu.poison(a.cache.v, test::cache_elements(a.cache));
    gpu.poison(a.q_out, in.c.tokens * in.row());
    gpu.poison(a.digest, in.c.tokens);
    for (std::int64_t first = 0; first < whole.tokens; first += n) {
      a.tokens = std::min(n, whole.tokens - first);
      a.q = whole.q + first * a.q_token_stride, a.q_out = whole.q_out + first * a.q_out_token_stride;
      a.k = whole.k + first * a.k_token_stride, a.v = whole.v + first * a.k_token_stride;
      a.slot = whole.slot + first, a.position = whole.position + first;
      a.digest = whole.digest + first, a.run_index = whole.run_index + first;
      gpu.run(test::kv_append_op<norm>{}, a);
    }
    INFO("batches of " << n);
    REQUIRE(difference(in.read(gpu, whole), expected) == "");
  }
  gpu.clear();
}

TEST_CASE("kv_append waits for the kernel before it", "[gpu][kv_append]") {
  for (const std::int64_t dim : {128, 76}) {
    for (const std::int64_t tokens : {1, 37, 300}) {
      const inputs<bf16> in{{tokens, 2, dim, 16, true, dim / 2 / 4 * 4}, 4};
      test::host_backend host;
      const auto expected = in.template run<norm>(host, 1);
      test::gpu_backend gpu;
      const auto a = in.args(gpu, 1);
      auto* const x = const_cast<bf16*>(a.q);
      const std::int64_t n = tokens * in.row();
      const bf16* const later = gpu.input(gpu.read(x));
      // Loads the kernel, which takes longer than the copy.
      test::require_ok(test::kv_append_op<norm>::gpu(a, {}, gpu.stream()));
      gpu.poison(x, n);
      gpu.sync();
      test::require_ok(test::copy_late(
          {reinterpret_cast<std::int32_t*>(x), reinterpret_cast<const std::int32_t*>(later), n / 2, 30}, gpu.stream()));
      test::require_ok(test::kv_append_op<norm>::gpu(a, {}, gpu.stream()));
      INFO(tokens << " tokens, head_dim " << dim);
      REQUIRE(difference(in.read(gpu, a), expected) == "");
      gpu.clear();
    }
  }
}

// Every number of digest warps, of rounds, and of heads that a warp has.
TEST_CASE("kv_append: digests of any number of heads", "[gpu][kv_append][digest]") {
  for (const std::int64_t dim : {16, 64, 128, 256}) {
    for (std::int64_t heads = 1; heads <= 40; heads += heads < 9 ? 1 : 5) {
      for (const std::int64_t heads_q : {std::int64_t{1}, 2 * heads}) {
        for (const std::int64_t tokens : {3, 140, 2200}) {
          if (tokens * (heads_q + 2 * heads) * dim > 300000) continue;
          const inputs<bf16> in{{tokens, heads, dim, 16, true, dim, bi::rope_style::half, values::hostile}, heads_q};
          test::host_backend host;
          test::gpu_backend gpu;
          const auto expected = in.template run<norm>(host, 1), got = in.template run<norm>(gpu, 1);
          INFO(name_of(in));
          REQUIRE(difference(got, expected) == "");
          gpu.clear();
        }
      }
    }
  }
}
