// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "golden/cases_tokens.hpp"
#include "bi/schedule/rows.hpp"
#include "needle/build.hpp"
#include "support/manifest.hpp"
#include "support/ops_rows.hpp"
#include "support/ops_tokens.hpp"
#ifdef BI_NEEDLE_GPU
#include "gpu/support/forced_tokens.hpp"
#endif

namespace test::needle {
namespace {

template <class Op, class T>
void add_gate(case_list& all, const char* operation, std::int64_t cols) {
  const auto make = [cols](std::uint64_t seed) {
    table t;
    t.in = {values_column<T>("gate", cols, seed), values_column<T>("up", cols, seed + 1)};
    t.out = {output_column<T>("out", cols)};
    bind<Op>(t, unless_fp16<T>(always(flat_schedules)), [cols](const call& c) {
      bi::gate_mul_args<T> a;
      a.gate = c.input<T>(0), a.gate_stride = c.input_stride<T>(0);
      a.up = c.input<T>(1), a.up_stride = c.input_stride<T>(1);
      a.rows = c.rows, a.cols = cols;
      a.out = c.output<T>(0), a.out_stride = c.output_stride<T>(0);
      return a;
    });
    return t;
  };
  all.push_back({operation, bi::contract::activation_draft::name, type_name<T>(), shape_of("cols", cols), make});
}

template <class T>
void add_add(case_list& all, std::int64_t cols) {
  const auto make = [cols](std::uint64_t seed) {
    table t;
    t.in = {values_column<T>("x", cols, seed), values_column<T>("y", cols, seed + 1)};
    t.out = {output_column<T>("out", cols)};
    bind<add_op>(t, unless_fp16<T>(always(flat_schedules)), [cols](const call& c) {
      bi::add_args<T> a;
      a.x = c.input<T>(0), a.x_stride = c.input_stride<T>(0);
      a.y = c.input<T>(1), a.y_stride = c.input_stride<T>(1);
      a.rows = c.rows, a.cols = cols;
      a.out = c.output<T>(0), a.out_stride = c.output_stride<T>(0);
      return a;
    });
    return t;
  };
  all.push_back({"add", bi::contract::activation_draft::name, type_name<T>(), shape_of("cols", cols), make});
}

std::vector<std::int32_t> own_ids(std::int64_t each, std::int64_t low, std::int64_t high, std::uint64_t seed) {
  generator g(seed);
  std::vector<std::int32_t> all;
  for (std::int64_t i = 0; i < pool_rows * each; ++i) all.push_back(static_cast<std::int32_t>(g.between(low, high)));
  return all;
}

template <class T>
void add_embedding(case_list& all, std::int64_t cols) {
  constexpr std::int64_t table_rows = 61;
  const auto make = [cols](std::uint64_t seed) {
    table t;
    // Some rows are padding.
    t.in = {own_column("id", own_ids(1, -2, table_rows - 1, seed))};
    t.shared = {bytes_of(random_vector<T>(table_rows * cols, values::hostile, seed + 1))};
    t.out = {output_column<T>("out", cols)};
    bind<embedding_op>(t, unless_fp16<T>(always(flat_schedules)), [cols](const call& c) {
      bi::embedding_args<T> a;
      a.table = c.array<T>(0), a.table_rows = table_rows;
      a.id = c.input<std::int32_t>(0);
      a.rows = c.rows, a.cols = cols;
      a.out = c.output<T>(0), a.out_stride = c.output_stride<T>(0);
      return a;
    });
    return t;
  };
  all.push_back({"embedding", "none", type_name<T>(), shape_of("cols", cols), make});
}

constexpr std::int64_t positions = 61;
template <class T>
bi::rope_table rope_table_of(const call& c, std::size_t first, std::int64_t rotary, bi::rope_style style) {
  bi::rope_table t;
  t.cos = c.array<float>(first), t.sin = c.array<float>(first + 1);
  t.positions = positions, t.rotary_dim = rotary, t.style = style;
  return t;
}

template <class T>
void add_rope(case_list& all, std::int64_t heads, std::int64_t dim, std::int64_t rotary, bi::rope_style style) {
  const auto make = [=](std::uint64_t seed) {
    table t;
    t.in = {values_column<T>("x", heads * dim, seed), own_column("position", own_ids(1, -2, positions - 1, seed + 1))};
    t.shared = {shared_values<float>(positions * rotary / 2, seed + 2),
                shared_values<float>(positions * rotary / 2, seed + 3)};
    t.out = {output_column<T>("out", heads * dim)};
    bind<rope_op>(t, unless_fp16<T>(always(flat_schedules)), [=](const call& c) {
      bi::rope_args<T> a;
      a.x = c.input<T>(0), a.x_token_stride = c.input_stride<T>(0);
      a.position = c.input<std::int32_t>(1);
      a.table = rope_table_of<T>(c, 0, rotary, style);
      a.tokens = c.rows, a.heads = heads, a.head_dim = dim;
      a.out = c.output<T>(0), a.out_token_stride = c.output_stride<T>(0);
      return a;
    });
    return t;
  };
  all.push_back({"rope", bi::contract::rope_draft::name, type_name<T>(),
                 "heads=" + std::to_string(heads) + ",head_dim=" + std::to_string(dim) +
                     ",rotary=" + std::to_string(rotary) + (style == bi::rope_style::half ? ",half" : ",interleaved"),
                 make});
}

// K, V, q and a digest of each token; a token's place in the cache is its place in the batch.
template <class T, class Norm>
void add_kv_append(case_list& all, std::int64_t heads, std::int64_t heads_q, std::int64_t dim, bi::rope_style style) {
  constexpr std::int64_t page = 16;
  const auto make = [=](std::uint64_t seed) {
    table t;
    t.in = {values_column<T>("k", heads * dim, seed), values_column<T>("v", heads * dim, seed + 1),
            values_column<T>("q", heads_q * dim, seed + 2),
            own_column("position", own_ids(1, 0, positions - 1, seed + 3)),
            own_column("run_index", own_ids(1, 0, 1000, seed + 4))};
    t.shared = {places<std::int64_t>(t.most_rows), shared_values<float>(positions * dim / 2, seed + 5),
                shared_values<float>(positions * dim / 2, seed + 6), shared_values<T>(dim, seed + 7),
                shared_values<T>(dim, seed + 8)};
    t.out = {output_column<T>("k", heads * dim), output_column<T>("v", heads * dim),
             output_column<T>("q_out", heads_q * dim), output_column<std::uint64_t>("digest", 1, true)};
    bind<kv_append_op<Norm>>(t, unless_fp16<T>(always(shared_schedules)), [=](const call& c) {
      bi::kv_append_args<T> a;
      a.cache.k = c.output<T>(0), a.cache.v = c.output<T>(1);
      // The last page ends with the last token: rows are as many as pages of 1.
      a.cache.page_size = c.rows % page == 0 ? page : 1;
      a.cache.num_pages = c.rows / a.cache.page_size;
      a.cache.heads = heads, a.cache.head_dim = dim;
      a.cache.k_token_stride = c.output_stride<T>(0), a.cache.v_token_stride = c.output_stride<T>(1);
      a.cache.v_page_stride = a.cache.page_size * a.cache.v_token_stride;
      a.k = c.input<T>(0), a.k_token_stride = c.input_stride<T>(0);
      a.v = c.input<T>(1), a.v_token_stride = c.input_stride<T>(1);
      a.q = c.input<T>(2), a.q_token_stride = c.input_stride<T>(2), a.heads_q = heads_q;
      a.position = c.input<std::int32_t>(3), a.run_index = c.input<std::int32_t>(4);
      a.slot = c.array<std::int64_t>(0);
      a.tokens = c.rows;
      a.table = rope_table_of<T>(c, 1, dim, style);
      a.norm_weight = c.array<T>(3), a.q_norm_weight = c.array<T>(4);
      a.q_out = c.output<T>(2), a.q_out_token_stride = c.output_stride<T>(2);
      a.digest = c.output<std::uint64_t>(3);
      return a;
    });
    return t;
  };
  all.push_back({"kv_append", std::string(Norm::name) + "+" + bi::contract::rope_draft::name, type_name<T>(),
                 "heads=" + std::to_string(heads_q) + "/" + std::to_string(heads) + ",head_dim=" + std::to_string(dim) +
                     (style == bi::rope_style::half ? ",half" : ",interleaved"),
                 make});
}

void add_digest_rows(case_list& all, std::int64_t bytes) {
  const auto make = [bytes](std::uint64_t seed) {
    table t;
    t.in = {values_column<bi::bf16>("data", bytes / 2, seed)};
    t.out = {output_column<std::uint64_t>("out", 1, true)};
    bind<digest_rows_op>(t, always(digest_schedules), [bytes](const call& c) {
      bi::digest_rows_args a;
      a.data = c.in[0], a.row_stride_bytes = c.in_stride[0];
      a.rows = c.rows, a.row_bytes = bytes;
      a.out = c.output<std::uint64_t>(0);
      return a;
    });
    set_schedule(t, [bytes](std::int64_t rows) { return bi::schedule::pick_digest_schedule(rows, bytes, true); });
    return t;
  };
  all.push_back({"digest_rows", bi::contract::digest_words_draft::name, "bytes", shape_of("bytes", bytes), make});
}

// A row is a request: its pages, and which of their tokens.
template <class T>
void add_digest_kv(case_list& all, std::int64_t heads, std::int64_t dim) {
  constexpr std::int64_t num_pages = 50, page = 16, each = 6;
  const auto make = [=](std::uint64_t seed) {
    generator g(seed);
    std::vector<std::int32_t> first, count;
    for (std::int64_t r = 0; r < pool_rows; ++r) {
      first.push_back(static_cast<std::int32_t>(g.below(each * page)));
      count.push_back(static_cast<std::int32_t>(r % 7 == 3 ? 0 : g.between(0, each * page - first.back())));
    }
    table t;
    t.in = {own_column("pages", own_ids(each, 0, num_pages - 1, seed + 1)), own_column("first", first),
            own_column("count", count)};
    t.shared = {bytes_of(random_vector<T>(num_pages * page * heads * dim, values::hostile, seed + 2)),
                bytes_of(random_vector<T>(num_pages * page * heads * dim, values::hostile, seed + 3))};
    const std::int64_t of_page = page * heads * dim * static_cast<std::int64_t>(sizeof(T));
    t.pieces = {of_page, of_page};
    t.out = {output_column<std::uint64_t>("out", 1, true)};
    bind<digest_kv_op>(t, unless_fp16<T>(always(digest_schedules)), [=](const call& c) {
      bi::digest_kv_args<T> a;
      a.cache.k = c.array<T>(0), a.cache.v = c.array<T>(1);
      a.cache.num_pages = num_pages, a.cache.page_size = page;
      a.cache.k_page_stride = c.array_stride<T>(0), a.cache.v_page_stride = c.array_stride<T>(1);
      a.cache.heads = heads, a.cache.head_dim = dim;
      a.view = bi::page_table{c.input<std::int32_t>(0), each};
      a.first = c.input<std::int32_t>(1), a.count = c.input<std::int32_t>(2);
      a.requests = c.rows;
      a.out = c.output<std::uint64_t>(0);
      return a;
    });
    return t;
  };
  all.push_back({"digest_kv", bi::contract::digest_words_draft::name, type_name<T>(),
                 "heads=" + std::to_string(heads) + ",head_dim=" + std::to_string(dim), make});
}

template <class T>
void add_of(case_list& all) {
  using namespace bi::contract;
  for (const std::int64_t cols : {1024, 203}) {
    add_gate<silu_mul_op, T>(all, "silu_mul", cols);
    add_gate<gelu_mul_op, T>(all, "gelu_mul", cols);
    add_gate<gelu_tanh_mul_op, T>(all, "gelu_tanh_mul", cols);
    add_add<T>(all, cols);
    add_embedding<T>(all, cols);
  }
  add_rope<T>(all, 4, 128, 128, bi::rope_style::half);
  add_rope<T>(all, 3, 80, 36, bi::rope_style::interleaved);
  add_kv_append<T, rms_norm_draft>(all, 2, 4, 128, bi::rope_style::half);
  add_kv_append<T, rms_norm_draft>(all, 2, 3, 80, bi::rope_style::interleaved);
  add_kv_append<T, rms_norm_hf_draft>(all, 2, 4, 128, bi::rope_style::half);
  add_kv_append<T, rms_norm_one_plus_draft>(all, 2, 4, 64, bi::rope_style::half);
  add_digest_kv<T>(all, 2, 64);
}

}  // namespace

void add_token_cases(case_list& all) {
  add_of<bi::bf16>(all);
  add_of<bi::fp16>(all);
  add_of<float>(all);
  for (const std::int64_t bytes : {1000, 40002}) add_digest_rows(all, bytes);
}

}  // namespace test::needle
