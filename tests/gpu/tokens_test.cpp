// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "golden/cases_tokens.hpp"
#include "gpu/support/both_backends.hpp"
#include "gpu/support/forced_backend.hpp"
#include "gpu/support/forced_tokens.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"

using bi::bf16;
using bi::fp16;
using test::compare;
using test::matrix_case;
using test::replayed;
using test::values;

namespace {

template <class Fn>
void for_types(Fn fn) {
  fn(bf16{});
  fn(fp16{});
  fn(float{});
}

// Rows [first, first + n) of `all`, `width` elements each.
template <class T>
std::string rows_differ(const std::vector<T>& got, const std::vector<T>& all, std::int64_t first, std::int64_t n,
                        std::int64_t width) {
  return test::difference(got.data(), all.data() + first * width, n * width);
}

// batch(first, n) gives the outputs of rows [first, first + n) run as one call, `width` elements a row. Each row alone,
// then each row in batches of every size, at every position.
template <class T, class Batch>
std::vector<T> check_batches(std::int64_t most, std::int64_t width, Batch batch) {
  std::vector<T> alone;
  for (std::int64_t r = 0; r < most; ++r) {
    const std::vector<T> one = batch(r, 1);
    alone.insert(alone.end(), one.begin(), one.end());
  }
  for (std::int64_t n = 1; n <= most; ++n) {
    INFO("batch of " << n);
    REQUIRE(rows_differ<T>(batch(0, n), alone, 0, n, width) == "");
    REQUIRE(rows_differ<T>(batch(most - n, n), alone, most - n, n, width) == "");
  }
  return alone;
}

}  // namespace

// ---- silu_mul, gelu_mul, gelu_tanh_mul, add

TEST_CASE("activations: GPU bytes equal the reference's", "[gpu]") {
  std::int64_t outputs = 0;
  for_types([&](auto type) {
    using T = decltype(type);
    std::uint64_t seed = 1;
    for (const values kind : test::all_values) {
      for (const matrix_case& c : {matrix_case{40, 1024, kind}, matrix_case{61, 203, kind, 3, 1},
                                   matrix_case{17, 96, kind, 0, 0, 2}, matrix_case{300, 7, kind, 1, 0, 3}}) {
        const std::string name = to_string(c);
        const auto gate = [&](auto op) {
          using op_type = decltype(op);
          outputs += compare(op_type::name + (" " + name),
                             [&](auto& b) { return test::run_gate_mul<op_type, T>(b, c, seed); });
        };
        gate(test::silu_mul_op{});
        gate(test::gelu_mul_op{});
        gate(test::gelu_tanh_mul_op{});
        if (c.step == 1) outputs += compare("add " + name, [&](auto& b) { return test::run_add<T>(b, c, seed); });
        ++seed;
      }
    }
    for (std::int64_t cols = 1; cols <= 40; ++cols) {
      const matrix_case c{3, cols, values::normal, cols % 3, cols % 2};
      compare("silu_mul " + to_string(c),
              [&](auto& b) { return test::run_gate_mul<test::silu_mul_op, T>(b, c, seed); });
      compare("add " + to_string(c), [&](auto& b) { return test::run_add<T>(b, c, seed); });
    }
  });
  CHECK(outputs >= 400000);
}

TEST_CASE("silu_mul: every bf16 gate equals the reference's", "[gpu]") {
  std::vector<bf16> gate, up;
  for (std::uint32_t u = 0; u < 65536; ++u) {
    gate.push_back(bf16{static_cast<std::uint16_t>(u)});
    up.push_back(bf16{static_cast<std::uint16_t>(u % 3 == 0 ? 0x3f80 : 0x4049 + u % 64)});
  }
  const auto run = [&](auto op) {
    using op_type = decltype(op);
    compare(op_type::name, [&](auto& b) {
      bi::gate_mul_args<bf16> a;
      a.rows = 64, a.cols = 1024;
      a.gate = b.input(gate);
      a.up = b.input(up);
      a.out = b.template output<bf16>(65536);
      b.run(op_type{}, a);
      return b.read(a.out);
    });
  };
  run(test::silu_mul_op{});
  run(test::gelu_mul_op{});
  run(test::gelu_tanh_mul_op{});
}

TEST_CASE("silu_mul, add: in place, and a row alone equals the row in batches of 1..257", "[gpu]") {
  const std::int64_t most = 257, cols = 203;
  test::gpu_backend gpu;
  const auto x = test::random_vector<bf16>(most * cols, values::normal, 1);
  const auto y = test::random_vector<bf16>(most * cols, values::normal, 2);
  const bf16* dx = gpu.input(x);
  const bf16* dy = gpu.input(y);
  bf16* out = gpu.output<bf16>(most * cols);
  const auto gate = [&](std::int64_t first, std::int64_t n) {
    bi::gate_mul_args<bf16> a;
    a.gate = dx + first * cols, a.up = dy + first * cols, a.out = out;
    a.rows = n, a.cols = cols;
    gpu.run(test::silu_mul_op{}, a);
    return gpu.read(out);
  };
  const auto alone = [&](auto batch) {
    return check_batches<bf16>(most, cols, [&](std::int64_t first, std::int64_t n) {
      auto all = batch(first, n);
      all.resize(static_cast<std::size_t>(n * cols));
      return all;
    });
  };
  const auto silu = alone(gate);
  const auto sum = alone([&](std::int64_t first, std::int64_t n) {
    bi::add_args<bf16> a;
    a.x = dx + first * cols, a.y = dy + first * cols, a.out = out;
    a.rows = n, a.cols = cols;
    gpu.run(test::add_op{}, a);
    return gpu.read(out);
  });
  // Control: a second rounding, as an unfused silu would have it, is seen.
  std::vector<bf16> twice;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const bf16 s = bi::cvt_rn<bf16>(bi::silu(bi::to_f32(x[i])));
    twice.push_back(bi::cvt_rn<bf16>(bi::mul_rn(bi::to_f32(s), bi::to_f32(y[i]))));
  }
  CHECK(test::difference(twice, silu) != "");

  bf16* in_place = gpu.input(x);
  bi::gate_mul_args<bf16> g;
  g.gate = in_place, g.up = dy, g.out = in_place, g.rows = most, g.cols = cols;
  gpu.run(test::silu_mul_op{}, g);
  CHECK(test::difference(gpu.read(in_place), silu) == "");
  in_place = gpu.input(y);
  bi::add_args<bf16> a;
  a.x = dx, a.y = in_place, a.out = in_place, a.rows = most, a.cols = cols;
  gpu.run(test::add_op{}, a);
  CHECK(test::difference(gpu.read(in_place), sum) == "");
  gpu.clear();
}

TEST_CASE("silu_mul, add: 50 replays of a graph over changed inputs", "[gpu]") {
  const std::int64_t rows = 13, cols = 515, n = rows * cols;
  test::gpu_backend gpu;
  bf16* x = gpu.output<bf16>(n);
  bf16* y = gpu.output<bf16>(n);
  bf16* silu = gpu.output<bf16>(n);
  bf16* sum = gpu.output<bf16>(n);
  bi::gate_mul_args<bf16> g;
  g.gate = x, g.up = y, g.out = silu, g.rows = rows, g.cols = cols;
  bi::add_args<bf16> a;
  a.x = silu, a.y = x, a.out = sum, a.rows = rows, a.cols = cols;
  replayed graph(gpu, [&](bi::cuda_stream stream) {
    const bi::status st = bi::silu_mul(g, stream);
    return st ? bi::add(a, stream) : st;
  });
  for (std::uint64_t i = 0; i < 50; ++i) {
    const auto hx = test::random_vector<bf16>(n, i % 5 == 4 ? values::hostile : values::normal, 2 * i);
    const auto hy = test::random_vector<bf16>(n, values::normal, 2 * i + 1);
    gpu.write(x, hx);
    gpu.write(y, hy);
    gpu.poison(silu, n);
    gpu.poison(sum, n);
    graph();
    auto expected = test::poisoned<bf16>(n), expected_sum = expected;
    bi::gate_mul_args<bf16> hg = g;
    hg.gate = hx.data(), hg.up = hy.data(), hg.out = expected.data();
    REQUIRE(bi::describe(bi::reference::silu_mul(hg)) == "ok");
    bi::add_args<bf16> ha = a;
    ha.x = expected.data(), ha.y = hx.data(), ha.out = expected_sum.data();
    REQUIRE(bi::describe(bi::reference::add(ha)) == "ok");
    REQUIRE(test::difference(gpu.read(silu), expected) == "");
    REQUIRE(test::difference(gpu.read(sum), expected_sum) == "");
  }
  gpu.clear();
}

// ---- embedding

TEST_CASE("embedding: GPU bytes equal the reference's, padding stays", "[gpu]") {
  std::int64_t outputs = 0;
  for_types([&](auto type) {
    using T = decltype(type);
    std::uint64_t seed = 1;
    for (const values kind : test::all_values) {
      for (const matrix_case& c : {matrix_case{70, 256, kind}, matrix_case{70, 131, kind, 2, 1}}) {
        outputs += compare(to_string(c), [&](auto& b) { return test::run_embedding<T>(b, c, seed); });
        ++seed;
      }
    }
  });
  CHECK(outputs >= 300000);
}

TEST_CASE("embedding: replays with changed ids, an id past the table is padding", "[gpu]") {
  const std::int64_t table_rows = 50, rows = 33, cols = 72;
  test::gpu_backend gpu;
  const auto table = test::random_vector<bf16>(table_rows * cols, values::hostile, 1);
  bi::embedding_args<bf16> a;
  a.table = gpu.input(table);
  a.table_rows = table_rows, a.rows = rows, a.cols = cols;
  std::int32_t* id = gpu.output<std::int32_t>(rows);
  a.id = id;
  a.out = gpu.output<bf16>(rows * cols);
  replayed graph(gpu, [&](bi::cuda_stream stream) { return bi::embedding(a, stream); });
  test::generator g(3);
  for (int i = 0; i < 50; ++i) {
    std::vector<std::int32_t> ids;
    for (std::int64_t r = 0; r < rows; ++r) ids.push_back(static_cast<std::int32_t>(g.between(-5, table_rows + 5)));
    ids[5] = 0x7fffffff;
    gpu.write(id, ids);
    gpu.poison(a.out, rows * cols);
    graph();
    auto expected = test::poisoned<bf16>(rows * cols);
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t from = ids[static_cast<std::size_t>(r)];
      for (std::int64_t j = 0; from >= 0 && from < table_rows && j < cols; ++j) {
        expected[static_cast<std::size_t>(r * cols + j)] = table[static_cast<std::size_t>(from * cols + j)];
      }
    }
    REQUIRE(test::difference(gpu.read(a.out), expected) == "");
  }
  gpu.clear();
}

// ---- rope

TEST_CASE("rope: GPU bytes equal the reference's", "[gpu]") {
  std::int64_t outputs = 0;
  for_types([&](auto type) {
    using T = decltype(type);
    std::uint64_t seed = 1;
    for (const values kind : test::all_values) {
      for (const bi::rope_style style : {bi::rope_style::half, bi::rope_style::interleaved}) {
        for (const test::rope_case& c :
             {test::rope_case{31, 4, 128, 128, style, kind}, test::rope_case{17, 3, 80, 36, style, kind, 3, 1},
              test::rope_case{9, 5, 33, 2, style, kind, 0, 1}, test::rope_case{9, 2, 64, 0, style, kind},
              test::rope_case{5, 2, 256, 64, style, kind, 8}}) {
          outputs += compare(to_string(c), [&](auto& b) { return test::run_rope<T>(b, c, seed); });
          ++seed;
        }
      }
    }
    for (std::int64_t rotary = 2; rotary <= 40; rotary += 2) {
      for (const bi::rope_style style : {bi::rope_style::half, bi::rope_style::interleaved}) {
        const test::rope_case c{3, 2, 40, rotary, style, values::normal};
        compare(to_string(c), [&](auto& b) { return test::run_rope<T>(b, c, seed); });
        ++seed;
      }
    }
  });
  CHECK(outputs >= 500000);
}

TEST_CASE("rope: a token alone equals the token in batches of 1..257, in place too", "[gpu]") {
  const std::int64_t most = 257, heads = 2, dim = 72, width = heads * dim, positions = 100;
  test::gpu_backend gpu;
  const auto x = test::random_vector<bf16>(most * width, values::normal, 1);
  const bf16* dx = gpu.input(x);
  std::vector<std::int32_t> position;
  for (std::int64_t t = 0; t < most; ++t) position.push_back(static_cast<std::int32_t>(t * 7 % positions));
  const std::int32_t* dp = gpu.input(position);
  bf16* out = gpu.output<bf16>(most * width);
  bi::rope_args<bf16> a;
  a.table = test::random_table(gpu, positions, 64, bi::rope_style::half, 0, 5);
  a.heads = heads, a.head_dim = dim;
  const auto alone = check_batches<bf16>(most, width, [&](std::int64_t first, std::int64_t n) {
    a.x = dx + first * width, a.position = dp + first, a.out = out, a.tokens = n;
    gpu.run(test::rope_op{}, a);
    auto all = gpu.read(out);
    all.resize(static_cast<std::size_t>(n * width));
    return all;
  });
  bf16* in_place = gpu.input(x);
  a.x = in_place, a.out = in_place, a.position = dp, a.tokens = most;
  gpu.run(test::rope_op{}, a);
  CHECK(test::difference(gpu.read(in_place), alone) == "");
  // Control: the row of the table follows the place in the batch.
  std::vector<std::int32_t> by_row;
  for (std::int64_t t = 0; t < most; ++t) by_row.push_back(static_cast<std::int32_t>(t % positions));
  a.x = dx, a.out = out, a.position = gpu.input(by_row);
  gpu.run(test::rope_op{}, a);
  CHECK(test::difference(gpu.read(out), alone) != "");
  gpu.clear();
}

TEST_CASE("rope: 50 replays with changed positions, padding untouched", "[gpu]") {
  const std::int64_t tokens = 21, heads = 3, dim = 64, n = tokens * heads * dim, positions = 40;
  test::gpu_backend gpu;
  test::host_backend host;
  const auto x = test::random_vector<fp16>(n, values::hostile, 1);
  std::int32_t* position = gpu.output<std::int32_t>(tokens);
  fp16* out = gpu.output<fp16>(n);
  bi::rope_args<fp16> a;
  a.x = gpu.input(x), a.position = position, a.out = out;
  a.tokens = tokens, a.heads = heads, a.head_dim = dim;
  a.table = test::random_table(gpu, positions, dim, bi::rope_style::interleaved, 0, 5);
  bi::rope_args<fp16> h = a;
  h.table = test::random_table(host, positions, dim, bi::rope_style::interleaved, 0, 5);
  replayed graph(gpu, [&](bi::cuda_stream stream) { return bi::rope(a, stream); });
  test::generator g(2);
  for (int i = 0; i < 50; ++i) {
    std::vector<std::int32_t> p, clamped;
    for (std::int64_t t = 0; t < tokens; ++t) {
      p.push_back(static_cast<std::int32_t>(g.between(-10, positions + 3)));
      clamped.push_back(p.back() < positions ? p.back() : -1);  // kernels take it for padding
    }
    gpu.write(position, p);
    gpu.poison(out, n);
    graph();
    auto expected = test::poisoned<fp16>(n);
    h.x = x.data(), h.position = clamped.data(), h.out = expected.data();
    REQUIRE(bi::describe(bi::reference::rope(h)) == "ok");
    REQUIRE(test::difference(gpu.read(out), expected) == "");
  }
  gpu.clear();
}

// ---- kv_append

TEST_CASE("kv_append: GPU bytes equal the reference's", "[gpu]") {
  using namespace bi::contract;
  std::int64_t outputs = 0;
  for_types([&](auto type) {
    using T = decltype(type);
    std::uint64_t seed = 1;
    const auto run = [&](const test::kv_case& c) {
      outputs += compare(to_string(c), [&](auto& b) { return test::run_kv_append<rms_norm_draft, T>(b, c, seed); });
      if (c.norm) {
        compare("hf " + to_string(c), [&](auto& b) { return test::run_kv_append<rms_norm_hf_draft, T>(b, c, seed); });
        compare("one_plus " + to_string(c),
                [&](auto& b) { return test::run_kv_append<rms_norm_one_plus_draft, T>(b, c, seed); });
      }
      ++seed;
    };
    for (const values kind : test::all_values) {
      for (const bi::rope_style style : {bi::rope_style::half, bi::rope_style::interleaved}) {
        run({23, 2, 128, 16, true, 128, style, kind});
        run({23, 3, 64, 5, true, 32, style, kind, true});
        run({11, 2, 77, 1, true, 30, style, kind, false, 1, 1});
        run({11, 2, 80, 7, false, 80, style, kind, true, 3});
      }
      run({19, 2, 128, 16, true, 0, bi::rope_style::half, kind});
      run({19, 2, 40, 3, false, 0, bi::rope_style::half, kind, false, 0, 1});
    }
    run({3, 1, 600, 2, true, 64});
    run({2, 1, 9000, 2, true, 256});
  });
  CHECK(outputs >= 400000);
}

TEST_CASE("kv_append: a token alone equals the token in batches of 1..257", "[gpu]") {
  const std::int64_t most = 257, heads = 2, dim = 128, width = heads * dim, positions = 64;
  test::gpu_backend gpu;
  const auto x = test::random_vector<bf16>(most * width, values::normal, 1);
  bi::kv_append_args<bf16> a;
  const bf16* k = gpu.input(x);
  const bf16* v = gpu.input(test::random_vector<bf16>(most * width, values::normal, 2));
  const auto weight = test::random_vector<bf16>(dim, values::normal, 3);
  a.norm_weight = gpu.input(weight);
  a.table = test::random_table(gpu, positions, dim, bi::rope_style::half, 0, 4);
  std::vector<std::int32_t> position;
  std::vector<std::int64_t> slot;
  for (std::int64_t t = 0; t < most; ++t) {
    position.push_back(static_cast<std::int32_t>(t % positions));
    slot.push_back(t);
  }
  const std::int32_t* dp = gpu.input(position);
  const std::int64_t* ds = gpu.input(slot);
  a.cache.num_pages = most, a.cache.page_size = 1, a.cache.heads = heads, a.cache.head_dim = dim;
  bf16* cache_k = gpu.output<bf16>(most * width);
  a.cache.k = cache_k;
  a.cache.v = gpu.output<bf16>(most * width);
  const auto batch = [&](std::int64_t first, std::int64_t n) {
    a.k = k + first * width, a.v = v + first * width, a.slot = ds, a.position = dp + first, a.tokens = n;
    gpu.run(test::kv_append_op<bi::contract::rms_norm_draft>{}, a);
    auto all = gpu.read(cache_k);
    all.resize(static_cast<std::size_t>(n * width));
    return all;
  };
  const auto alone = check_batches<bf16>(most, width, batch);
  // Control: the same formulas with the sum of squares taken one element after another give other bytes.
  std::vector<bf16> serial;
  std::vector<bf16> tree;
  for (std::int64_t r = 0; r < most * heads; ++r) {
    float ss = 0.0f, results[1], wide[128];
    for (std::int64_t i = 0; i < dim; ++i) wide[i] = bi::to_f32(x[static_cast<std::size_t>(r * dim + i)]);
    for (std::int64_t i = 0; i < dim; ++i) ss = bi::fma_rn(wide[i], wide[i], ss);
    const float of_tree =
        bi::contract::reduce_row(wide, dim, 0.0f, bi::contract::square_step{}, bi::contract::add_step{}, results);
    for (std::int64_t i = 0; i < dim; ++i) {
      const float w = bi::to_f32(weight[static_cast<std::size_t>(i)]);
      serial.push_back(
          bi::contract::rms_norm_draft::value<bf16>(wide[i], bi::contract::norm_scale(ss, dim, a.norm_eps), w));
      tree.push_back(
          bi::contract::rms_norm_draft::value<bf16>(wide[i], bi::contract::norm_scale(of_tree, dim, a.norm_eps), w));
    }
  }
  a.table = {};
  CHECK(test::difference(batch(0, most), tree) == "");
  CHECK(test::difference(batch(0, most), serial) != "");
  gpu.clear();
}

TEST_CASE("kv_append: 50 replays with changed slots and positions", "[gpu]") {
  const test::kv_case c{25, 2, 64, 4};
  const std::int64_t n = c.tokens * c.heads * c.head_dim, positions = 30;
  test::gpu_backend gpu;
  test::host_backend host;
  const auto k = test::random_vector<bf16>(n, values::hostile, 1), v = test::random_vector<bf16>(n, values::hostile, 2);
  const auto weight = test::random_vector<bf16>(c.head_dim, values::normal, 3);
  bi::kv_append_args<bf16> a;
  a.cache = test::cache_layout<bf16>(c);
  const std::int64_t cache = test::cache_elements(a.cache), slots = a.cache.num_pages * c.page_size;
  a.tokens = c.tokens;
  a.k = gpu.input(k), a.v = gpu.input(v), a.norm_weight = gpu.input(weight);
  std::int64_t* slot = gpu.output<std::int64_t>(c.tokens);
  std::int32_t* position = gpu.output<std::int32_t>(c.tokens);
  a.slot = slot, a.position = position;
  a.table = test::random_table(gpu, positions, 48, bi::rope_style::half, 0, 4);
  a.cache.k = gpu.output<bf16>(cache), a.cache.v = gpu.output<bf16>(cache);
  bi::kv_append_args<bf16> h = a;
  h.table = test::random_table(host, positions, 48, bi::rope_style::half, 0, 4);
  replayed graph(gpu, [&](bi::cuda_stream stream) { return bi::kv_append(a, stream); });
  test::generator g(9);
  for (std::uint64_t i = 0; i < 50; ++i) {
    auto s = test::random_slots(c, i), s_host = s;
    std::vector<std::int32_t> p, p_host;
    for (std::size_t t = 0; t < s.size(); ++t) {
      p.push_back(static_cast<std::int32_t>(g.between(0, positions - 1)));
      p_host.push_back(p[t]);
      const std::int64_t fault = g.below(12);
      if (fault == 0) s[t] = slots + g.below(3);  // past the cache
      if (fault == 1) s[t] = std::int64_t{1} << 62;
      if (fault == 2) p[t] = static_cast<std::int32_t>(positions + g.below(5));  // past the table
      if (fault == 3) p[t] = -1;
      if (fault <= 3) s_host[t] = -1;  // kernels take each for padding
    }
    gpu.write(slot, s);
    gpu.write(position, p);
    gpu.poison(a.cache.k, cache);
    gpu.poison(a.cache.v, cache);
    graph();
    auto expected_k = test::poisoned<bf16>(cache), expected_v = expected_k;
    h.cache.k = expected_k.data(), h.cache.v = expected_v.data();
    h.k = k.data(), h.v = v.data(), h.norm_weight = weight.data(), h.slot = s_host.data(), h.position = p_host.data();
    REQUIRE(bi::describe(bi::reference::kv_append(h)) == "ok");
    REQUIRE(test::difference(gpu.read(a.cache.k), expected_k) == "");
    REQUIRE(test::difference(gpu.read(a.cache.v), expected_v) == "");
  }
  gpu.clear();
}

// ---- sample

TEST_CASE("sample: tokens, log-probabilities and flags equal the reference's", "[gpu]") {
  std::int64_t rows = 0;
  for_types([&](auto type) {
    using T = decltype(type);
    std::uint64_t seed = 1;
    for (const values kind : test::all_values) {
      for (const matrix_case& c :
           {matrix_case{69, 32000, kind}, matrix_case{46, 1003, kind, 5, 1}, matrix_case{46, 8192, kind},
            matrix_case{23, 8193, kind, 0, 3}, matrix_case{46, 5, kind}}) {
        rows += compare(to_string(c), [&](auto& b) { return test::run_sample<T>(b, c, seed); }) / 3;
        ++seed;
      }
    }
    for (std::int64_t vocab = 1; vocab <= 40; ++vocab) {
      const matrix_case c{23, vocab, vocab % 2 == 0 ? values::ties : values::normal};
      rows += compare(to_string(c), [&](auto& b) { return test::run_sample<T>(b, c, seed); }) / 3;
      ++seed;
    }
    const matrix_case large{23, 151936, values::normal};
    rows += compare(to_string(large), [&](auto& b) { return test::run_sample<T>(b, large, seed); }) / 3;
  });
  CHECK(rows >= 6000);
}

TEST_CASE("sample: a uniform row, the largest vocabulary and every top_k of a row with ties", "[gpu]") {
  // All equal: the order of ids alone decides what is kept.
  const matrix_case uniform{23, 5000, values::normal};
  const auto run = [&](const std::vector<float>& logits, std::int64_t vocab,
                       const std::vector<bi::sample_params>& params) {
    return compare("vocab=" + std::to_string(vocab), [&](auto& b) {
      bi::sample_args<float> a;
      a.rows = static_cast<std::int64_t>(params.size()), a.vocab = vocab;
      a.logits = b.input(logits);
      a.params = b.input(params);
      a.token = b.template output<std::int32_t>(a.rows);
      a.logprob = b.template output<float>(a.rows);
      b.run(test::sample_op{}, a);
      std::vector<std::uint32_t> out;
      for (const std::int32_t t : b.read(a.token)) out.push_back(static_cast<std::uint32_t>(t));
      for (const float x : b.read(a.logprob)) out.push_back(bi::bits_of(x));
      return out;
    });
  };
  run(std::vector<float>(static_cast<std::size_t>(uniform.rows * uniform.cols), 1.5f), uniform.cols,
      test::sample_settings(uniform.rows, uniform.cols, 3));
  const std::int64_t most = bi::contract::sample_max_vocab;
  auto params = test::sample_settings(16, most, 4);
  params.erase(params.begin(), params.begin() + 13);
  run(test::random_vector<float>(3 * most, values::normal, 5), most, params);

  const std::int64_t vocab = 200;
  const auto row = test::random_vector<float>(vocab, values::ties, 6);
  std::vector<float> logits;
  std::vector<bi::sample_params> every;
  for (std::int32_t k = 0; k <= vocab; ++k) {
    logits.insert(logits.end(), row.begin(), row.end());
    bi::sample_params p;
    p.temperature = 8.0f, p.top_k = k, p.seed = 77, p.ordinal = static_cast<std::uint32_t>(k);
    if (k % 3 == 1) p.top_p = bi::div_rn(bi::float_from_int(k), 200.0f);
    every.push_back(p);
  }
  run(logits, vocab, every);
}

TEST_CASE("sample: a row alone equals the row in batches of 1..257", "[gpu]") {
  const std::int64_t most = 257, vocab = 777;
  test::gpu_backend gpu;
  const auto logits = test::random_vector<bf16>(most * vocab, values::normal, 1);
  const auto params = test::sample_settings(most, vocab, 2);
  bi::sample_args<bf16> a;
  const bf16* dl = gpu.input(logits);
  const bi::sample_params* dp = gpu.input(params);
  a.vocab = vocab;
  a.token = gpu.output<std::int32_t>(most);
  a.logprob = gpu.output<float>(most);
  const auto batch = [&](std::int64_t first, std::int64_t n) {
    a.logits = dl + first * vocab, a.params = dp + first, a.rows = n;
    gpu.run(test::sample_op{}, a);
    const auto token = gpu.read(a.token);
    const auto logprob = gpu.read(a.logprob);
    std::vector<std::uint32_t> out;
    for (std::size_t r = 0; r < static_cast<std::size_t>(n); ++r) {
      out.push_back(static_cast<std::uint32_t>(token[r]));
      out.push_back(bi::bits_of(logprob[r]));
    }
    return out;
  };
  const auto alone = check_batches<std::uint32_t>(most, 2, batch);
  // Controls: noise that knows the row gives other tokens; a sum in another order gives other log-probabilities.
  auto by_row = params;
  for (std::size_t r = 0; r < by_row.size(); ++r) by_row[r].branch += r;
  dp = gpu.input(by_row);
  CHECK(test::difference(batch(0, most), alone) != "");
  std::int64_t other = 0;
  for (std::int64_t r = 0; r < most; ++r) {
    const auto token = static_cast<std::int32_t>(alone[static_cast<std::size_t>(2 * r)]);
    if (token < 0) continue;
    const bf16* x = logits.data() + r * vocab;
    float m = bi::neg_inf_f32(), l = 0.0f;
    for (std::int64_t i = 0; i < vocab; ++i) m = bi::max_nan(m, bi::to_f32(x[i]));
    for (std::int64_t i = 0; i < vocab; ++i) l = bi::add_rn(l, bi::exp(bi::sub_rn(bi::to_f32(x[i]), m)));
    const float serial = bi::sub_rn(bi::sub_rn(bi::to_f32(x[token]), m), bi::log(l));
    other += bi::bits_of(serial) != alone[static_cast<std::size_t>(2 * r + 1)] ? 1 : 0;
  }
  CHECK(other > 0);
  gpu.clear();
}

TEST_CASE("sample: 50 replays with changed parameters and logits", "[gpu]") {
  const std::int64_t rows = 23, vocab = 2500;
  test::gpu_backend gpu;
  bi::sample_args<fp16> a;
  fp16* logits = gpu.output<fp16>(rows * vocab);
  bi::sample_params* params = gpu.output<bi::sample_params>(rows);
  a.logits = logits, a.params = params, a.rows = rows, a.vocab = vocab;
  a.token = gpu.output<std::int32_t>(rows);
  a.flags = gpu.output<std::uint32_t>(rows);  // logprob is not asked for
  replayed graph(gpu, [&](bi::cuda_stream stream) { return bi::sample(a, stream); });
  for (std::uint64_t i = 0; i < 50; ++i) {
    const auto x = test::random_vector<fp16>(rows * vocab, test::all_values[i % 6], i);
    auto p = test::sample_settings(rows + 5, vocab, i);
    p.erase(p.begin(), p.begin() + static_cast<std::ptrdiff_t>(i % 5));
    p.resize(static_cast<std::size_t>(rows));
    gpu.write(logits, x);
    gpu.write(params, p);
    gpu.poison(a.token, rows);
    gpu.poison(a.flags, rows);
    graph();
    auto token = test::poisoned<std::int32_t>(rows);
    auto flags = test::poisoned<std::uint32_t>(rows);
    bi::sample_args<fp16> h = a;
    h.logits = x.data(), h.params = p.data(), h.token = token.data(), h.flags = flags.data();
    REQUIRE(bi::describe(bi::reference::sample(h)) == "ok");
    REQUIRE(test::difference(gpu.read(a.token), token) == "");
    REQUIRE(test::difference(gpu.read(a.flags), flags) == "");
  }
  gpu.clear();
}

// ---- verify

TEST_CASE("verify: tokens and accepted drafts equal the reference's", "[gpu]") {
  std::int64_t outputs = 0;
  for_types([&](auto type) {
    using T = decltype(type);
    std::uint64_t seed = 1;
    const auto run = [&](const matrix_case& c, std::int64_t requests) {
      outputs += compare(to_string(c) + ",requests=" + std::to_string(requests),
                         [&](auto& b) { return test::run_verify<T>(b, c, requests, seed); });
      ++seed;
    };
    for (const values kind : test::all_values) {
      run({2300, 60, kind}, 500);
      run({300, 203, kind, 5, 1}, 3);
      run({69, 9001, kind, 0, 3}, 20);
    }
    run({0, 9, values::normal}, 5);
    run({5, 9, values::normal}, 0);
    run({40, 1, values::normal}, 9);
  });
  CHECK(outputs >= 100000);
}

TEST_CASE("verify: requests of every length, whole and cut at every draft", "[gpu]") {
  // Request n has n rows; in turn it is accepted whole, or its last or some other draft is refused.
  constexpr std::int64_t most = 100;
  const matrix_case c{most * (most + 1) / 2, 50, values::normal};
  for (int round = 0; round < 3; ++round) {
    auto d = test::make_verify_data<float>(c, 1, 3);
    for (bi::sample_params& p : d.params) p.temperature = 1.0f, p.top_p = 1.0f;  // every row has a token
    bi::sample_args<float> s;
    s.logits = d.logits.data(), s.params = d.params.data(), s.rows = c.rows, s.vocab = c.cols, s.token = d.draft.data();
    REQUIRE(bi::describe(bi::reference::sample(s)) == "ok");
    d.start = {0};
    std::vector<std::int32_t> expected;
    for (std::int32_t n = 0; n <= most; ++n) {
      const std::int32_t begin = d.start.back(), wrong = round == 0 ? n : round == 1 ? n - 1 : n * 7 / 10;
      d.start.push_back(begin + n);
      if (wrong >= 0 && wrong < n) d.draft[static_cast<std::size_t>(begin + wrong)] ^= 1;
      expected.push_back(wrong < 0 ? 0 : wrong);
    }
    test::gpu_backend gpu;
    const auto a = test::make_verify_args<float>(gpu, c, d);
    gpu.run(test::verify_op{}, a);
    CHECK(test::difference(gpu.read(a.accepted), expected) == "");
    gpu.clear();
  }
}

TEST_CASE("verify: a request alone equals the request in batches of 1..257", "[gpu]") {
  constexpr std::int64_t most = 257, longest = 8, vocab = 203, width = 1 + 3 * longest;
  test::generator g(1);
  std::vector<std::int32_t> start = {0};
  for (std::int64_t i = 0; i < most; ++i)
    start.push_back(start.back() + static_cast<std::int32_t>(g.below(longest + 1)));
  const matrix_case c{start.back(), vocab, values::normal};
  const auto d = test::make_verify_data<bf16>(c, 1, 2);
  test::gpu_backend gpu;
  const auto all = test::make_verify_args<bf16>(gpu, c, d);
  std::int32_t* accepted = gpu.output<std::int32_t>(most);
  std::int32_t* device_start = gpu.output<std::int32_t>(most + 1);
  const bi::sample_params* params = all.sample.params;
  // Requests [first, first + n): what each accepts, then its rows' outputs; `ahead` rows of nobody lie before them.
  const auto batch = [&](std::int64_t first, std::int64_t n) {
    const std::int64_t ahead =
        first < 3 ? 0 : start[static_cast<std::size_t>(first)] - start[static_cast<std::size_t>(first - 3)];
    const std::int64_t begin = start[static_cast<std::size_t>(first)] - ahead;
    auto a = all;
    std::vector<std::int32_t> s;
    for (std::int64_t i = first; i <= first + n; ++i)
      s.push_back(start[static_cast<std::size_t>(i)] - static_cast<std::int32_t>(begin));
    gpu.write(device_start, s);
    a.sample.logits += begin * vocab;
    a.sample.params = params + begin;
    a.sample.rows = s.back();
    a.draft += begin;
    a.start = device_start, a.accepted = accepted, a.requests = n;
    gpu.run(test::verify_op{}, a);
    const auto count = gpu.read(accepted), token = gpu.read(a.sample.token);
    const auto logprob = gpu.read(a.sample.logprob);
    const auto flags = gpu.read(a.sample.flags);
    std::vector<std::uint32_t> out;
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      const std::size_t end = out.size() + width;
      out.push_back(static_cast<std::uint32_t>(count[i]));
      for (auto r = static_cast<std::size_t>(s[i]); r < static_cast<std::size_t>(s[i + 1]); ++r) {
        out.push_back(static_cast<std::uint32_t>(token[r]));
        out.push_back(bi::bits_of(logprob[r]));
        out.push_back(flags[r]);
      }
      out.resize(end, 0);
    }
    return out;
  };
  const auto alone = check_batches<std::uint32_t>(most, width, batch);
  // Control: ordinals that count the batch's rows give other tokens, so other drafts are accepted.
  auto by_row = d.params;
  for (std::size_t r = 0; r < by_row.size(); ++r) by_row[r].ordinal = static_cast<std::uint32_t>(r);
  params = gpu.input(by_row);
  const auto other = batch(0, most);
  std::int64_t differ = 0;
  for (std::size_t i = 0; i < alone.size(); i += width) differ += alone[i] != other[i] ? 1 : 0;
  CHECK(differ > 20);
  gpu.clear();
}

TEST_CASE("verify: 50 replays with changed logits, drafts and requests", "[gpu]") {
  const matrix_case c{90, 500, values::normal};
  const std::int64_t requests = 21;
  test::gpu_backend gpu;
  const auto d = test::make_verify_data<fp16>(c, requests, 1);
  auto a = test::make_verify_args<fp16>(gpu, c, d);
  fp16* logits = gpu.input(d.logits);
  bi::sample_params* params = gpu.input(d.params);
  std::int32_t *draft = gpu.input(d.draft), *start = gpu.input(d.start);
  a.sample.logits = logits, a.sample.params = params, a.draft = draft, a.start = start;
  replayed graph(gpu, [&](bi::cuda_stream stream) { return bi::verify(a, stream); });
  for (std::uint64_t i = 0; i < 50; ++i) {
    matrix_case changed = c;
    changed.kind = test::all_values[i % 6];
    const auto now = test::make_verify_data<fp16>(changed, requests, 100 + i);
    gpu.write(logits, now.logits);
    gpu.write(params, now.params);
    gpu.write(draft, now.draft);
    gpu.write(start, now.start);
    gpu.poison(a.sample.token, c.rows);
    gpu.poison(a.sample.logprob, c.rows);
    gpu.poison(a.sample.flags, c.rows);
    gpu.poison(a.accepted, requests);
    graph();
    test::host_backend host;
    const auto h = test::make_verify_args<fp16>(host, changed, now);
    host.run(test::verify_op{}, h);
    REQUIRE(test::difference(test::read_verify(gpu, a), test::read_verify(host, h)) == "");
  }
  gpu.clear();
}

TEST_CASE("verify: requests that start puts outside the rows accept nothing, the others what is theirs", "[gpu]") {
  const matrix_case c{40, 100, values::normal};
  auto d = test::make_verify_data<bf16>(c, 1, 5);
  for (bi::sample_params& p : d.params) p.temperature = 1.0f, p.top_p = 1.0f;
  bi::sample_args<bf16> s;
  s.logits = d.logits.data(), s.params = d.params.data(), s.rows = c.rows, s.vocab = c.cols, s.token = d.draft.data();
  REQUIRE(bi::describe(bi::reference::sample(s)) == "ok");  // every draft is right
  d.start = {0, 7, 41, -1, 3, 40, 40, 9, 12, 0x7fffffff, -0x7fffffff - 1, 5};
  test::gpu_backend gpu;
  const auto a = test::make_verify_args<bf16>(gpu, c, d);
  gpu.run(test::verify_op{}, a);
  CHECK(gpu.read(a.accepted) == std::vector<std::int32_t>{7, 0, 0, 0, 37, 0, 0, 3, 0, 0, 0});
  CHECK(test::difference(gpu.read(a.sample.token), d.draft) == "");
  gpu.clear();
}

TEST_CASE("verify: bad input launches nothing", "[gpu]") {
  const matrix_case c{6, 50, values::normal};
  test::gpu_backend gpu;
  const auto good = test::make_verify_args<bf16>(gpu, c, test::make_verify_data<bf16>(c, 3, 7));
  const auto says = [&](auto change) {
    auto a = good;
    change(a);
    const bi::status st = bi::verify(a, gpu.stream());
    CHECK(bi::describe(st) == bi::describe(check(a)));
    return bi::describe(st);
  };
  CHECK(says([](auto& a) { a.sample.rows = -1; }) == "verify: rows = -1 must be at least 0");
  CHECK(says([](auto& a) { a.sample.vocab = 0; }) == "verify: vocab = 0 must be at least 1");
  CHECK(says([](auto& a) { a.sample.token = nullptr; }) == "verify: token is null");
  CHECK(says([](auto& a) { a.requests = -2; }) == "verify: requests = -2 must be at least 0");
  CHECK(says([](auto& a) { a.draft = nullptr; }) == "verify: draft is null");
  CHECK(says([](auto& a) { a.start = nullptr; }) == "verify: start is null");
  CHECK(says([](auto& a) { a.accepted = nullptr; }) == "verify: accepted is null");
  CHECK(says([](auto& a) { a.accepted = const_cast<std::int32_t*>(a.draft); }) == "verify: accepted overlaps draft");
  CHECK(says([](auto& a) { a.draft = a.sample.token; }) == "verify: token overlaps draft");
  CHECK(says([](auto& a) { a.sample.flags = reinterpret_cast<std::uint32_t*>(const_cast<std::int32_t*>(a.draft)); }) ==
        "verify: flags overlaps draft");
  CHECK(says([](auto& a) { a.sample.rows = 0, a.requests = 0, a.start = nullptr; }) == "ok");
  CHECK(test::difference(gpu.read(good.sample.token), test::poisoned<std::int32_t>(c.rows)) == "");
  CHECK(test::difference(gpu.read(good.accepted), test::poisoned<std::int32_t>(3)) == "");
  gpu.clear();
}

// ---- digests

TEST_CASE("digest_rows: equals the reference's at every alignment and length", "[gpu]") {
  std::int64_t rows = 0;
  std::uint64_t seed = 1;
  for (std::int64_t bytes = 0; bytes <= 70; ++bytes) {
    for (const std::int64_t offset : {0, 1, 2, 4, 8}) {
      const test::bytes_case c{3, bytes, offset, offset};
      rows += compare(to_string(c), [&](auto& b) { return test::run_digest_rows(b, c, seed); });
      ++seed;
    }
  }
  for (const std::int64_t bytes : {8192, 8193, 65536, 100003, 303872}) {
    for (const std::int64_t offset : {0, 2, 4, 7, 8, 16}) {
      const test::bytes_case c{3, bytes, 16 - bytes % 16 + offset, offset};
      rows += compare(to_string(c), [&](auto& b) { return test::run_digest_rows(b, c, seed); });
      ++seed;
    }
  }
  const test::bytes_case many{9000, 40};
  rows += compare(to_string(many), [&](auto& b) { return test::run_digest_rows(b, many, seed); });
  CHECK(rows >= 10000);
}

TEST_CASE("digest_rows: a row alone equals the row in batches, any one bit shows", "[gpu]") {
  const std::int64_t most = 257, bytes = 100;
  test::gpu_backend gpu;
  test::generator g(1);
  std::vector<unsigned char> data(static_cast<std::size_t>(most * bytes));
  for (unsigned char& x : data) x = static_cast<unsigned char>(g.next());
  unsigned char* d = gpu.input(data);
  std::uint64_t* out = gpu.output<std::uint64_t>(most);
  const auto batch = [&](std::int64_t first, std::int64_t n) {
    bi::digest_rows_args a;
    a.data = d + first * bytes, a.rows = n, a.row_bytes = bytes, a.out = out;
    gpu.run(test::digest_rows_op{}, a);
    auto all = gpu.read(out);
    all.resize(static_cast<std::size_t>(n));
    return all;
  };
  const auto alone = check_batches<std::uint64_t>(most, 1, batch);
  for (std::size_t r = 0; r < static_cast<std::size_t>(most); ++r) {
    data[r * static_cast<std::size_t>(bytes) + r % static_cast<std::size_t>(bytes)] ^=
        static_cast<unsigned char>(1u << r % 8);
  }
  gpu.write(d, data);
  const auto changed = batch(0, most);
  for (std::size_t r = 0; r < changed.size(); ++r) CHECK(changed[r] != alone[r]);
  gpu.clear();
}

TEST_CASE("digest_kv: equals the reference's through tables, CSR and runs", "[gpu]") {
  for_types([&](auto type) {
    using T = decltype(type);
    std::uint64_t seed = 1;
    for (const test::kv_case& cache :
         {test::kv_case{60, 2, 64, 16}, test::kv_case{60, 8, 128, 1}, test::kv_case{40, 1, 5, 7},
          test::kv_case{40, 3, 24, 4, false, 0, bi::rope_style::half, values::hostile, true, 0, 1},
          test::kv_case{40, 2, 40, 32, false, 0, bi::rope_style::half, values::hostile, true, 3}}) {
      std::vector<std::uint64_t> forms[3];
      int form = 0;
      for (const bi::view_kind kind : {bi::view_kind::page_table, bi::view_kind::page_csr, bi::view_kind::run_list}) {
        const test::digest_kv_case c{37, cache, kind};
        compare(to_string(cache), [&](auto& b) { return forms[form] = test::run_digest_kv<T>(b, c, seed); });
        ++form;
      }
      // The same tokens, written in three ways.
      CHECK(test::difference(forms[1], forms[0]) == "");
      CHECK(test::difference(forms[2], forms[0]) == "");
      const test::digest_kv_case loose{37, cache, bi::view_kind::run_list, true};
      compare("runs " + to_string(cache), [&](auto& b) { return test::run_digest_kv<T>(b, loose, seed); });
      ++seed;
    }
  });
}

TEST_CASE("digest_kv: 50 replays with changed pages and counts, foreign pages are left out", "[gpu]") {
  const test::kv_case c{40, 2, 32, 8};
  const std::int64_t requests = 11;
  test::gpu_backend gpu;
  const auto layout = test::cache_layout<bf16>(c);
  const std::int64_t n = test::cache_elements(layout);
  const auto k = test::random_vector<bf16>(n, values::hostile, 1), v = test::random_vector<bf16>(n, values::hostile, 2);
  bi::digest_kv_args<bf16> a;
  a.cache.num_pages = layout.num_pages, a.cache.page_size = layout.page_size;
  a.cache.heads = layout.heads, a.cache.head_dim = layout.head_dim;
  a.cache.k = gpu.input(k), a.cache.v = gpu.input(v);
  bi::digest_kv_args<bf16> h = a;
  h.cache.k = k.data(), h.cache.v = v.data();
  bi::page_table table;
  table.row_stride = 9;
  std::int32_t* pages = gpu.output<std::int32_t>(requests * table.row_stride);
  std::int32_t* first = gpu.output<std::int32_t>(requests);
  std::int32_t* count = gpu.output<std::int32_t>(requests);
  table.pages = pages;
  a.view = table;
  a.first = first, a.count = count, a.requests = requests;
  a.out = gpu.output<std::uint64_t>(requests);
  replayed graph(gpu, [&](bi::cuda_stream stream) { return bi::digest_kv(a, stream); });
  for (std::uint64_t i = 0; i < 50; ++i) {
    auto views = test::random_views(requests, layout.num_pages, c.page_size, false, i);
    gpu.write(first, views.first);
    gpu.write(count, views.count);
    gpu.write(pages, views.pages);
    gpu.poison(a.out, requests);
    graph();
    auto expected = test::poisoned<std::uint64_t>(requests);
    table.pages = views.pages.data();
    h.view = table;
    h.first = views.first.data(), h.count = views.count.data(), h.out = expected.data(), h.requests = requests;
    REQUIRE(bi::describe(bi::reference::digest_kv(h)) == "ok");
    REQUIRE(test::difference(gpu.read(a.out), expected) == "");
  }
  // Counts past the table and pages past the cache: nothing is read there.
  gpu.write(pages, std::vector<std::int32_t>(static_cast<std::size_t>(requests * table.row_stride), 0x7fffffff));
  gpu.write(first, std::vector<std::int32_t>(static_cast<std::size_t>(requests), 0x7fffff00));
  gpu.write(count, std::vector<std::int32_t>(static_cast<std::size_t>(requests), 1000));
  graph();
  const std::uint64_t nothing = bi::contract::digest_length_term(1000 * bi::contract::kv_token_bytes(2, 32, 2));
  CHECK(test::difference(gpu.read(a.out), std::vector<std::uint64_t>(static_cast<std::size_t>(requests), nothing)) ==
        "");
  gpu.clear();
}

// ---- every schedule

namespace {

// run(backend) under every schedule.
template <class Schedule, class Run>
bool force(const test::manifest_operation& o, const std::vector<Schedule>& schedules, const std::string& name,
           Run run) {
  test::host_backend host;
  test::check_forced(o, schedules, name, run(host), run);
  return true;
}

template <class Op, class T>
bool force_gate_mul(const test::manifest_operation& o) {
  if (o.operation != Op::name) return false;
  for (const matrix_case& c : {matrix_case{300, 1024, values::hostile}, matrix_case{50, 203, values::normal, 3, 1},
                               matrix_case{17, 96, values::normal, 0, 0, 2}}) {
    force(o, test::flat_schedules(), to_string(c), [&](auto& b) { return test::run_gate_mul<Op, T>(b, c); });
  }
  return true;
}
template <class Norm, class T>
bool force_kv_append(const test::manifest_operation& o) {
  if (o.operation != "kv_append" || o.contract != std::string(Norm::name) + "+" + bi::contract::rope_draft::name) {
    return false;
  }
  for (const test::kv_case& c :
       {test::kv_case{600, 2, 64, 16, true, 64},
        test::kv_case{40, 3, 77, 5, true, 30, bi::rope_style::interleaved, values::hostile, true, 1, 1}}) {
    force(o, test::shared_schedules(), to_string(c), [&](auto& b) { return test::run_kv_append<Norm, T>(b, c); });
  }
  return true;
}
// False for an operation that is not here.
template <class T>
bool force_flat(const test::manifest_operation& o) {
  using namespace bi::contract;
  const auto all = test::flat_schedules();
  const matrix_case c{300, 1024, values::hostile, 8};
  if (o.operation == "add") return force(o, all, to_string(c), [&](auto& b) { return test::run_add<T>(b, c); });
  if (o.operation == "embedding") {
    return force(o, all, to_string(c), [&](auto& b) { return test::run_embedding<T>(b, c); });
  }
  if (o.operation == "rope") {
    for (const test::rope_case& r :
         {test::rope_case{600, 8, 128, 128},
          test::rope_case{40, 3, 80, 36, bi::rope_style::interleaved, values::hostile, 3, 1}}) {
      force(o, all, to_string(r), [&](auto& b) { return test::run_rope<T>(b, r); });
    }
    return true;
  }
  return force_gate_mul<test::silu_mul_op, T>(o) || force_gate_mul<test::gelu_mul_op, T>(o) ||
         force_gate_mul<test::gelu_tanh_mul_op, T>(o);
}
template <class T>
bool force_shared(const test::manifest_operation& o) {
  using namespace bi::contract;
  return force_kv_append<rms_norm_draft, T>(o) || force_kv_append<rms_norm_hf_draft, T>(o) ||
         force_kv_append<rms_norm_one_plus_draft, T>(o);
}
template <class T>
bool force_digest(const test::manifest_operation& o) {
  const auto all = test::digest_schedules();
  if (o.operation == "digest_rows") {
    const test::bytes_case c{300, 1003, 2, 1};
    force(o, all, to_string(c), [&](auto& b) { return test::run_digest_rows(b, c); });
  }
  if (o.operation == "digest_kv") {
    const test::digest_kv_case c{300, {60, 2, 64, 16}, bi::view_kind::run_list, true};
    force(o, all, "runs", [&](auto& b) { return test::run_digest_kv<T>(b, c); });
  }
  return o.operation == "digest_rows" || o.operation == "digest_kv";
}
// Rows of one block of the row tree, of several, and of more than there are thread blocks in a cluster.
template <class T>
void force_sample(const test::manifest_operation& o) {
  const auto all = test::sample_schedules();
  for (const matrix_case& c : {matrix_case{100, 203, values::hostile}, matrix_case{46, 9001, values::ties, 3, 1},
                               matrix_case{46, 20000, values::normal}, matrix_case{23, 90001, values::normal, 7, 0}}) {
    if (o.operation == "sample") force(o, all, to_string(c), [&](auto& b) { return test::run_sample<T>(b, c); });
    if (o.operation == "verify" && c.cols < 10000) {
      force(o, all, to_string(c), [&](auto& b) { return test::run_verify<T>(b, c, 50); });
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("tokens: every schedule gives the reference's bytes", "[gpu][schedule]", bf16, float) {
  for (const test::manifest_operation& o : test::flat_operations()) {
    INFO(o.operation << "/" << o.contract);
    REQUIRE(force_flat<TestType>(o));
  }
  for (const test::manifest_operation& o : test::shared_operations()) {
    INFO(o.operation << "/" << o.contract);
    REQUIRE(force_shared<TestType>(o));
  }
  for (const test::manifest_operation& o : test::digest_operations()) {
    INFO(o.operation << "/" << o.contract);
    REQUIRE(force_digest<TestType>(o));
  }
  for (const test::manifest_operation& o : test::sample_operations()) force_sample<TestType>(o);
}

// ---- bad input

TEST_CASE("silu_mul, add, embedding, rope, kv_append, sample, digests: bad input launches nothing", "[gpu]") {
  test::gpu_backend gpu;
  const auto stream = gpu.stream();
  const bf16* x = gpu.input(test::random_vector<bf16>(4096, values::normal, 1));
  bf16* out = gpu.output<bf16>(4096);
  const auto says = [](const bi::status& st) { return bi::describe(st); };

  bi::gate_mul_args<bf16> g;
  g.gate = x, g.up = x + 64, g.out = out, g.rows = 4, g.cols = 64, g.gate_stride = 63;
  CHECK(says(bi::silu_mul(g, stream)) == says(check(g)));
  CHECK(says(bi::gelu_mul(g, stream)) == says(check(g, "gelu_mul")));
  CHECK(says(bi::gelu_tanh_mul(g, stream)).rfind("gelu_tanh_mul: gate_stride = 63", 0) == 0);
  g.gate_stride = 0, g.out = nullptr;
  CHECK(says(bi::silu_mul(g, stream)) == "silu_mul: out is null");
  g.rows = 0;
  CHECK(says(bi::silu_mul(g, stream)) == "ok");

  bi::add_args<bf16> a;
  a.x = x, a.y = x, a.out = out, a.rows = -1, a.cols = 8;
  CHECK(says(bi::add(a, stream)) == "add: rows = -1 must be at least 0");
  a.rows = 4, a.out = out + 1, a.y = out;
  CHECK(says(bi::add(a, stream)) == "add: out overlaps y");

  bi::embedding_args<bf16> e;
  e.table = x, e.table_rows = 4, e.rows = 2, e.cols = 8, e.out = out;
  CHECK(says(bi::embedding(e, stream)) == "embedding: id is null");

  bi::rope_args<bf16> r;
  const float* table = gpu.input(test::random_vector<float>(1024, values::normal, 2));
  const std::int32_t* position = gpu.input(std::vector<std::int32_t>(64, 0));
  r.x = x, r.out = out, r.position = position, r.tokens = 2, r.heads = 2, r.head_dim = 16;
  r.table.cos = table, r.table.sin = table, r.table.positions = 4, r.table.rotary_dim = 15;
  CHECK(says(bi::rope(r, stream)) == "rope: table.rotary_dim = 15 must be a multiple of 2");
  r.table.rotary_dim = 18;
  CHECK(says(bi::rope(r, stream)) == "rope: table.rotary_dim = 18 must be at most head_dim = 16");

  bi::kv_append_args<bf16> k;
  k.cache.k = out, k.cache.v = out + 1024, k.cache.num_pages = 4, k.cache.page_size = 0;
  k.cache.heads = 2, k.cache.head_dim = 16;
  k.k = x, k.v = x, k.slot = gpu.input(std::vector<std::int64_t>{0, 1}), k.tokens = 2;
  CHECK(says(bi::kv_append(k, stream)) == "kv_append: cache.page_size = 0 must be at least 1");
  k.cache.page_size = 4, k.norm_eps = bi::nan_f32();
  CHECK(says(bi::kv_append(k, stream)) == "kv_append: norm_eps = nan must be finite and at least 0");

  bi::sample_args<bf16> s;
  s.logits = x, s.rows = 2, s.vocab = bi::contract::sample_max_vocab + 1;
  s.token = gpu.output<std::int32_t>(2);
  CHECK(says(bi::sample(s, stream)) == says(check(s)));
  s.vocab = 100;
  CHECK(says(bi::sample(s, stream)) == "sample: params is null");

  bi::digest_rows_args d;
  d.rows = 2, d.row_bytes = 8, d.data = x;
  CHECK(says(bi::digest_rows(d, stream)) == "digest_rows: out is null");
  bi::digest_kv_args<bf16> dk;
  dk.cache.k = out, dk.cache.v = out, dk.cache.num_pages = 4, dk.cache.heads = 2, dk.cache.head_dim = 16;
  dk.requests = 1;
  CHECK(says(bi::digest_kv(dk, stream)) == says(check(dk)));

  CHECK(test::difference(gpu.read(out), test::poisoned<bf16>(4096)) == "");
  gpu.clear();
}
