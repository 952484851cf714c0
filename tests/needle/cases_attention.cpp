// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "needle/build.hpp"
#include "support/manifest.hpp"
#include "support/ops_attention.hpp"
#ifdef BI_NEEDLE_GPU
#include "gpu/support/forced_attention.hpp"
#endif

namespace test::needle {
namespace {

using bi::bf16;
using bi::fp16;

constexpr std::int64_t page = 16, heads_kv = 2;

struct attention_shape {
  std::int64_t heads = 4, window = 0;
  float soft_cap = 0;
};

// Sequences that lie in one cache, their pages in no order. The tokens of each are of a kind of their own.
constexpr std::int64_t sequences = 8;
struct sequence_pages {
  std::int64_t pages;  // of a sequence
  std::vector<std::int32_t> id;

  explicit sequence_pages(std::int64_t tokens, std::uint64_t seed) : pages((tokens + page - 1) / page) {
    for (std::int64_t i = 0; i < sequences * pages; ++i) id.push_back(static_cast<std::int32_t>(i));
    generator g(seed);
    for (std::size_t i = id.size(); i-- > 1;) {
      std::swap(id[i], id[static_cast<std::size_t>(g.below(static_cast<std::int64_t>(i) + 1))]);
    }
  }
  std::vector<std::int32_t> of(std::int64_t sequence) const {
    const auto first = id.begin() + sequence * pages;
    return {first, first + pages};
  }
};

template <class T>
std::vector<unsigned char> cache_values(const sequence_pages& p, std::int64_t dim, std::uint64_t seed) {
  const std::int64_t of_page = page * heads_kv * dim;
  std::vector<T> all(static_cast<std::size_t>(sequences * p.pages * of_page));
  for (std::int64_t s = 0; s < sequences; ++s) {
    const std::uint64_t own = seed * 100 + static_cast<std::uint64_t>(s);
    const auto tokens =
        s < 6 ? random_vector<T>(p.pages * of_page, all_values[s], own)
              : neighbour_values<T>(s == 6 ? neighbours::infinity : neighbours::nan, p.pages * of_page, own);
    const auto pages = p.of(s);
    for (std::size_t i = 0; i < pages.size(); ++i) {
      std::copy_n(tokens.begin() + static_cast<std::int64_t>(i) * of_page, of_page, all.begin() + pages[i] * of_page);
    }
  }
  return bytes_of(all);
}

// shared: K, V. Inputs and outputs: q; out, lse.
template <class T, class Contract>
bi::attention_args<T> common_args(const call& c, const attention_shape& s, std::int64_t dim, std::int64_t pages) {
  bi::attention_args<T> a;
  a.q = c.input<T>(0), a.q_token_stride = c.input_stride<T>(0);
  a.cache.k = c.array<T>(0), a.cache.v = c.array<T>(1);
  a.cache.num_pages = sequences * pages, a.cache.page_size = page;
  a.cache.k_page_stride = c.array_stride<T>(0), a.cache.v_page_stride = c.array_stride<T>(1);
  a.cache.heads = heads_kv, a.cache.head_dim = dim;
  a.rows = c.rows;
  a.window = s.window;
  a.scale = bi::rsqrt_rn(bi::float_from_int64(dim));
  a.soft_cap = Contract::has_soft_cap ? s.soft_cap : 0.0f;
  a.limits.heads_q = s.heads, a.limits.heads_kv = heads_kv, a.limits.head_dim = dim;
  a.limits.max_view = pages * page;
  a.out = c.output<T>(0), a.out_token_stride = c.output_stride<T>(0);
  a.lse = c.output<float>(1), a.lse_token_stride = c.output_stride<float>(1);
  return a;
}

template <class T>
void set_pages(table& t, std::int64_t dim) {
  const std::int64_t of_page = page * heads_kv * dim * static_cast<std::int64_t>(sizeof(T));
  t.pieces = {of_page, of_page};
}

// Of views of so many pages.
std::int64_t leaves_of(std::int64_t pages) {
  constexpr std::int64_t leaf = bi::contract::attention_order::leaf;
  return (pages * page + leaf - 1) / leaf;
}
// Of so many requests, each of at most `most_q` rows.
std::vector<bi::schedule::attention_schedule> schedules_of(const attention_shape& s, std::int64_t dim,
                                                           std::int64_t pages, std::int64_t requests,
                                                           std::int64_t most_q) {
  const std::int64_t packed = most_q * s.heads / heads_kv;
  auto all = attention_schedules(dim, packed);
  const auto clusters = attention_cluster_schedules(dim, packed, requests * heads_kv, leaves_of(pages));
  all.insert(all.end(), clusters.begin(), clusters.end());
  const auto of_long = attention_long_schedules(dim, packed, requests);
  all.insert(all.end(), of_long.begin(), of_long.end());
  return all;
}

template <class T, class Contract>
std::string name_of(const attention_shape& s, std::int64_t dim, const char* what) {
  return std::string(what) + ",heads=" + std::to_string(s.heads) + "/2,head_dim=" + std::to_string(dim) +
         (s.window > 0 ? ",window=" + std::to_string(s.window) : "");
}

// Decode: a row is a request. Lengths stand around leaves and tiles; neighbours have none, one token, or the most.
// `shared`: those of one sequence are a group.
template <class T, int Dim, class Contract>
void add_decode(case_list& all, const attention_shape& s, bool shared) {
  constexpr std::int64_t most = 800;
  const auto make = [s, shared](std::uint64_t seed) {
    const sequence_pages p(most, seed);
    const std::int32_t lengths[] = {1,   2,   15,  16,  17,  63,  64,  65,  127, 128, 129, 200,
                                    255, 256, 257, 300, 511, 512, 513, 640, 700, 767, 768, 800};
    std::vector<std::int32_t> len, pages, sequence;
    for (std::int64_t r = 0; r < pool_rows; ++r) {
      const std::int64_t of = r < needles ? r % 6 : (r * 5) % sequences;
      const std::int32_t ends[] = {0, 1, static_cast<std::int32_t>(most), 0};
      len.push_back(r < needles ? lengths[r / 2] : ends[(r - needles) % rows_of_kind]);
      const auto own = p.of(of);
      pages.insert(pages.end(), own.begin(), own.end());
      sequence.push_back(static_cast<std::int32_t>(of));
    }
    table t;
    t.in = {values_column<T>("q", s.heads * Dim, seed), own_column("len", len), own_column("pages", pages)};
    t.shared = {cache_values<T>(p, Dim, seed + 1), cache_values<T>(p, Dim, seed + 2)};
    t.out = {output_column<T>("out", s.heads * Dim), output_column<float>("lse", s.heads)};
    set_pages<T>(t, Dim);
    const std::int64_t of_view = p.pages;
    const auto schedules = [s, of_view](const call& c) { return schedules_of(s, Dim, of_view, c.rows, 1); };
    bind<attention_op<T, Dim, Contract>>(t, schedules, [s, of_view](const call& c) {
      auto a = common_args<T, Contract>(c, s, Dim, of_view);
      a.len = c.input<std::int32_t>(1);
      a.view = bi::page_table{c.input<std::int32_t>(2), of_view};
      a.requests = c.rows;
      a.limits.max_requests = a.limits.max_rows = c.rows;
      if (!c.numbers.empty()) {
        a.sharing.start = c.array<std::int32_t>(2), a.sharing.member = c.array<std::int32_t>(3);
        a.sharing.shared = c.array<std::int32_t>(4);
        a.sharing.groups = a.limits.max_groups = c.numbers[0];
      }
      return a;
    });
    if (!shared) {
      set_schedule(t, [s, of_view](std::int64_t rows) {
        auto picked = bi::schedule::pick_attention_schedule(rows, rows, 1, s.heads / heads_kv, heads_kv,
                                                            Dim == 256 ? 2 : 4, 132, leaves_of(of_view), 0, Dim <= 128);
        picked.whole_items = false;  // changes with every few rows
        return picked;
      });
      return t;
    }
    t.schedules = nullptr;  // requests that share have a kernel of their own
    t.most_rows = 1100;
    t.arrange = [len, sequence](const std::vector<std::int32_t>& batch) {
      std::vector<std::int32_t> start = {0}, member, same;
      for (std::int32_t of = 0; of < sequences; ++of) {
        std::int32_t least = most;
        for (std::size_t i = 0; i < batch.size(); ++i) {
          const auto row = static_cast<std::size_t>(batch[i]);
          // Those that see little would make the others share no more.
          if (sequence[row] != of || len[row] < 129) continue;
          member.push_back(static_cast<std::int32_t>(i));
          least = std::min(least, len[row]);
        }
        start.push_back(static_cast<std::int32_t>(member.size()));
        same.push_back(least);
      }
      if (member.empty()) member.push_back(0);
      return arrangement{{bytes_of(start), bytes_of(member), bytes_of(same)}, {sequences}};
    };
    return t;
  };
  all.push_back({shared ? "attention_sharing" : "attention", Contract::name, type_name<T>(),
                 name_of<T, Contract>(s, Dim, shared ? "shared" : "decode"), make});
}

// Chunks and prefill: a row is a token of a sequence, whose query sees what is before it. Alone it is a decode step.
template <class T, int Dim, class Contract>
void add_chunks(case_list& all, const attention_shape& s) {
  constexpr std::int64_t tokens = 700, of_pool = 3;  // sequences that have queries
  const auto make = [s](std::uint64_t seed) {
    const sequence_pages p(tokens, seed);
    table t;
    t.pool = of_pool * tokens;
    t.reference_step = 37;
    t.most_rows = 4200;
    std::vector<T> q;
    for (std::int64_t i = 0; i < of_pool; ++i) {
      const auto own =
          random_vector<T>(tokens * s.heads * Dim, all_values[i * 2], seed + static_cast<std::uint64_t>(i));
      q.insert(q.end(), own.begin(), own.end());
    }
    t.in = {output_column<T>("q", s.heads * Dim)};
    t.in[0].pool = bytes_of(q);
    t.shared = {cache_values<T>(p, Dim, seed + 11), cache_values<T>(p, Dim, seed + 12)};
    t.out = {output_column<T>("out", s.heads * Dim), output_column<float>("lse", s.heads)};
    t.choose = [](std::int64_t rows, std::uint64_t own) {
      constexpr std::int64_t chunks[] = {1, 2, 3, 15, 16, 17, 63, 64, 65, 128, 129, 200, 511, 700};
      generator g(own);
      std::vector<std::int32_t> batch;
      while (static_cast<std::int64_t>(batch.size()) < rows) {
        std::int64_t n = std::min(chunks[g.below(std::size(chunks))], rows - static_cast<std::int64_t>(batch.size()));
        const std::int64_t first = g.below(tokens - n + 1) + g.below(of_pool) * tokens;
        for (std::int64_t i = 0; i < n; ++i) batch.push_back(static_cast<std::int32_t>(first + i));
      }
      return batch;
    };
    t.arrange = [p](const std::vector<std::int32_t>& batch) {
      std::vector<std::int32_t> len, q_start, pages;
      std::int64_t longest = 1;
      for (std::size_t i = 0; i < batch.size(); ++i) {
        const bool follows = i > 0 && batch[i] == batch[i - 1] + 1 && batch[i] % tokens != 0;
        if (!follows) {
          q_start.push_back(static_cast<std::int32_t>(i));
          len.push_back(0);
          const auto own = p.of(batch[i] / tokens);
          pages.insert(pages.end(), own.begin(), own.end());
        }
        len.back() = static_cast<std::int32_t>(batch[i] % tokens) + 1;
        longest = std::max(longest, static_cast<std::int64_t>(i) - q_start.back() + 1);
      }
      const auto requests = static_cast<std::int64_t>(len.size());
      q_start.push_back(static_cast<std::int32_t>(batch.size()));
      return arrangement{{bytes_of(len), bytes_of(q_start), bytes_of(pages)}, {requests, longest}};
    };
    set_pages<T>(t, Dim);
    const std::int64_t of_view = p.pages;
    const auto schedules = [s, of_view](const call& c) {
      return schedules_of(s, Dim, of_view, c.numbers[0], c.numbers[1]);
    };
    bind<attention_op<T, Dim, Contract>>(t, schedules, [s, of_view](const call& c) {
      auto a = common_args<T, Contract>(c, s, Dim, of_view);
      a.len = c.array<std::int32_t>(2), a.q_start = c.array<std::int32_t>(3);
      a.view = bi::page_table{c.array<std::int32_t>(4), of_view};
      a.requests = a.limits.max_requests = c.numbers[0];
      a.limits.max_rows = c.rows, a.limits.max_q_len = c.numbers[1];
      return a;
    });
    return t;
  };
  all.push_back({"attention", Contract::name, type_name<T>(), name_of<T, Contract>(s, Dim, "chunks"), make});
}

template <class T, int Dim, class Contract = bi::contract::attention_v1<T>>
void add_of(case_list& all, const attention_shape& s) {
  add_decode<T, Dim, Contract>(all, s, false);
  add_chunks<T, Dim, Contract>(all, s);
}

}  // namespace

void add_attention_cases(case_list& all) {
  using cap = bi::contract::attention_soft_cap_v1<bf16>;
  add_of<bf16, 64>(all, {4});
  add_of<bf16, 128>(all, {16});
  add_of<bf16, 128>(all, {4, 300});
  add_of<bf16, 256>(all, {4});
  add_of<fp16, 64>(all, {2});
  add_of<fp16, 128>(all, {4});
  add_of<bf16, 128, cap>(all, {4, 0, 20.0f});
  add_decode<bf16, 64, bi::contract::attention_v1<bf16>>(all, {4}, true);
  add_decode<bf16, 128, bi::contract::attention_v1<bf16>>(all, {4}, true);
  add_decode<fp16, 128, bi::contract::attention_v1<fp16>>(all, {4}, true);
  add_decode<bf16, 128, cap>(all, {4, 0, 20.0f}, true);
}

}  // namespace test::needle
