// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/activation.hpp"
#include "bi/attention.hpp"
#include "bi/digest.hpp"
#include "bi/gemm.hpp"
#include "bi/kv_cache.hpp"
#include "bi/layer_norm.hpp"
#include "bi/logits_edit.hpp"
#include "bi/reduce.hpp"
#include "bi/rms_norm.hpp"
#include "bi/rope.hpp"
#include "bi/sample.hpp"
#include "bi/softmax.hpp"
#include "bi/token_counts.hpp"

// Good arguments of every operation, for checks and launchers, which look at pointers and never at what they point to:
// each array has an address of its own, 2^48 bytes from the next, where there is nothing.

namespace test {

template <class T>
T* nowhere(int number) {
  return reinterpret_cast<T*>((static_cast<std::uintptr_t>(number) + 1) << 48);
}

template <class T>
bi::paged_cache<T> nowhere_cache() {
  bi::paged_cache<T> c{};
  c.k = nowhere<T>(20);
  c.v = nowhere<T>(21);
  c.num_pages = 64;
  c.page_size = 16;
  c.heads = 2;
  c.head_dim = 128;
  return c;
}
inline bi::kv_view nowhere_view() { return bi::page_table{nowhere<const std::int32_t>(22), 32}; }
inline bi::token_counts nowhere_counts() {
  bi::token_counts t{};
  t.count = nowhere<std::int32_t>(23);
  t.output = nowhere<std::uint32_t>(24);
  t.prompt = nowhere<std::uint32_t>(25);
  t.slots = 8;
  t.vocab = 1000;
  return t;
}

template <class T>
bi::rms_norm_args<T> good_rms_norm() {
  bi::rms_norm_args<T> a{};
  a.x = nowhere<T>(0);
  a.residual = nowhere<T>(1);
  a.residual_out = nowhere<T>(2);
  a.weight = nowhere<T>(3);
  a.out = nowhere<T>(4);
  a.rows = 37;
  a.cols = 4096;
  return a;
}
template <class T>
bi::qk_norm_args<T> good_qk_norm() {
  bi::qk_norm_args<T> a{};
  a.x = nowhere<T>(0);
  a.weight = nowhere<T>(1);
  a.out = nowhere<T>(2);
  a.tokens = 37;
  a.heads = 8;
  a.head_dim = 128;
  return a;
}
template <class T>
bi::layer_norm_args<T> good_layer_norm() {
  bi::layer_norm_args<T> a{};
  a.x = nowhere<T>(0);
  a.weight = nowhere<T>(1);
  a.bias = nowhere<T>(2);
  a.out = nowhere<T>(3);
  a.rows = 37;
  a.cols = 4096;
  return a;
}
template <class T, class Out = T>
bi::softmax_args<T, Out> good_softmax() {
  bi::softmax_args<T, Out> a{};
  a.x = nowhere<T>(0);
  a.out = nowhere<Out>(1);
  a.rows = 37;
  a.cols = 32000;
  return a;
}
template <class T>
bi::logsumexp_args<T> good_logsumexp() {
  bi::logsumexp_args<T> a{};
  a.x = nowhere<T>(0);
  a.out = nowhere<float>(1);
  a.rows = 37;
  a.cols = 32000;
  return a;
}
template <class T, class Out = float>
bi::reduce_args<T, Out> good_reduce() {
  bi::reduce_args<T, Out> a{};
  a.x = nowhere<T>(0);
  a.out = nowhere<Out>(1);
  a.rows = 37;
  a.cols = 32000;
  return a;
}
template <class T, class Out = float>
bi::reduce_columns_args<T, Out> good_reduce_columns() {
  bi::reduce_columns_args<T, Out> a{};
  a.x = nowhere<T>(0);
  a.out = nowhere<Out>(1);
  a.outer = 3;
  a.cols = 32000;
  a.inner = 64;
  return a;
}
template <class T>
bi::arg_reduce_args<T> good_arg_reduce() {
  bi::arg_reduce_args<T> a{};
  a.x = nowhere<T>(0);
  a.index = nowhere<std::int64_t>(1);
  a.rows = 37;
  a.cols = 32000;
  return a;
}
template <class T>
bi::arg_reduce_columns_args<T> good_arg_reduce_columns() {
  bi::arg_reduce_columns_args<T> a{};
  a.x = nowhere<T>(0);
  a.index = nowhere<std::int64_t>(1);
  a.outer = 3;
  a.cols = 32000;
  a.inner = 64;
  return a;
}
template <class T>
bi::gate_mul_args<T> good_gate_mul() {
  bi::gate_mul_args<T> a{};
  a.gate = nowhere<T>(0);
  a.up = nowhere<T>(1);
  a.out = nowhere<T>(2);
  a.rows = 37;
  a.cols = 4096;
  return a;
}
template <class T>
bi::add_args<T> good_add() {
  bi::add_args<T> a{};
  a.x = nowhere<T>(0);
  a.y = nowhere<T>(1);
  a.out = nowhere<T>(2);
  a.rows = 37;
  a.cols = 4096;
  return a;
}
template <class T>
bi::embedding_args<T> good_embedding() {
  bi::embedding_args<T> a{};
  a.table = nowhere<T>(0);
  a.table_rows = 1000;
  a.id = nowhere<std::int32_t>(1);
  a.out = nowhere<T>(2);
  a.rows = 37;
  a.cols = 4096;
  return a;
}
inline bi::rope_table nowhere_table() {
  bi::rope_table t{};
  t.cos = nowhere<float>(26);
  t.sin = nowhere<float>(27);
  t.positions = 1000;
  t.rotary_dim = 128;
  return t;
}
template <class T>
bi::rope_args<T> good_rope() {
  bi::rope_args<T> a{};
  a.x = nowhere<T>(0);
  a.position = nowhere<std::int32_t>(1);
  a.table = nowhere_table();
  a.tokens = 37;
  a.heads = 8;
  a.head_dim = 128;
  a.out = nowhere<T>(2);
  return a;
}
template <class T>
bi::kv_append_args<T> good_kv_append() {
  bi::kv_append_args<T> a{};
  a.cache = nowhere_cache<T>();
  a.k = nowhere<T>(0);
  a.v = nowhere<T>(1);
  a.slot = nowhere<std::int64_t>(2);
  a.tokens = 37;
  a.norm_weight = nowhere<T>(3);
  a.position = nowhere<std::int32_t>(4);
  a.table = nowhere_table();
  a.q = nowhere<T>(5);
  a.heads_q = 8;
  a.q_norm_weight = nowhere<T>(6);
  a.q_out = nowhere<T>(7);
  a.digest = nowhere<std::uint64_t>(8);
  a.run_index = nowhere<std::int32_t>(9);
  return a;
}
template <class T>
bi::sample_args<T> good_sample() {
  bi::sample_args<T> a{};
  a.logits = nowhere<T>(0);
  a.rows = 37;
  a.vocab = 151936;
  a.params = nowhere<bi::sample_params>(1);
  a.token = nowhere<std::int32_t>(2);
  a.logprob = nowhere<float>(3);
  a.flags = nowhere<std::uint32_t>(4);
  return a;
}
template <class T>
bi::verify_args<T> good_verify() {
  bi::verify_args<T> a{};
  a.sample = good_sample<T>();
  a.draft = nowhere<std::int32_t>(5);
  a.start = nowhere<std::int32_t>(6);
  a.requests = 9;
  a.accepted = nowhere<std::int32_t>(7);
  return a;
}
template <class T, class Out = T>
bi::logits_edit_args<T, Out> good_logits_edit() {
  bi::logits_edit_args<T, Out> a{};
  a.logits = nowhere<T>(0);
  a.rows = 37;
  a.vocab = 1000;
  a.params = nowhere<bi::logits_edit_params>(1);
  a.counts = nowhere_counts();
  a.draft = nowhere<std::int32_t>(2);
  a.drafts = 20;
  a.bias_id = nowhere<std::int32_t>(3);
  a.bias = nowhere<float>(4);
  a.biases = 30;
  a.mask = nowhere<std::int32_t>(5);
  a.masks = 4;
  a.out = nowhere<Out>(6);
  return a;
}
inline bi::clear_counts_args good_clear_counts() {
  bi::clear_counts_args a{};
  a.counts = nowhere_counts();
  a.slot = nowhere<std::int32_t>(0);
  a.requests = 5;
  return a;
}
inline bi::count_tokens_args good_count_tokens() {
  bi::count_tokens_args a{};
  a.counts = nowhere_counts();
  a.token = nowhere<std::int32_t>(0);
  a.slot = nowhere<std::int32_t>(1);
  a.tokens = 37;
  return a;
}
inline bi::count_view_args good_count_view() {
  bi::count_view_args a{};
  a.counts = nowhere_counts();
  a.view = nowhere_view();
  a.num_pages = 64;
  a.token = nowhere<std::int32_t>(0);
  a.first = nowhere<std::int32_t>(1);
  a.count = nowhere<std::int32_t>(2);
  a.slot = nowhere<std::int32_t>(3);
  a.requests = 5;
  return a;
}
inline bi::digest_rows_args good_digest_rows() {
  bi::digest_rows_args a{};
  a.data = nowhere<char>(0);
  a.rows = 37;
  a.row_bytes = 303872;
  a.out = nowhere<std::uint64_t>(1);
  return a;
}
template <class T>
bi::digest_kv_args<T> good_digest_kv() {
  bi::digest_kv_args<T> a{};
  a.cache = nowhere_cache<const T>();
  a.view = nowhere_view();
  a.first = nowhere<std::int32_t>(0);
  a.count = nowhere<std::int32_t>(1);
  a.requests = 5;
  a.out = nowhere<std::uint64_t>(2);
  return a;
}
template <class T>
bi::attention_args<T> good_attention() {
  bi::attention_args<T> a{};
  a.q = nowhere<T>(0);
  a.cache = nowhere_cache<const T>();
  a.view = nowhere_view();
  a.len = nowhere<std::int32_t>(1);
  a.q_start = nowhere<std::int32_t>(2);
  a.requests = 5;
  a.rows = 20;
  a.scale = 0.125f;
  a.limits.max_requests = 5;
  a.limits.max_rows = 2000;
  a.limits.max_q_len = 4;
  a.limits.max_view = 512;
  a.limits.heads_q = 8;
  a.limits.heads_kv = 2;
  a.limits.head_dim = 128;
  a.limits.max_groups = 2;
  a.sharing.start = nowhere<std::int32_t>(3);
  a.sharing.member = nowhere<std::int32_t>(4);
  a.sharing.shared = nowhere<std::int32_t>(5);
  a.sharing.groups = 2;
  a.lse = nowhere<float>(6);
  a.out = nowhere<T>(7);
  return a;
}
inline bi::gemm_limits good_gemm_limits() {
  bi::gemm_limits l{};
  l.n = 1024;
  l.k = 4096;
  l.max_m = 4096;
  l.slices = 2;
  return l;
}
template <class T, class Epilogue, class Out = T>
bi::gemm_args<T, Epilogue, Out> good_gemm() {
  bi::gemm_args<T, Epilogue, Out> a{};
  a.a = nowhere<T>(0);
  a.b = nowhere<T>(1);
  a.bias = nowhere<T>(2);
  a.residual = nowhere<T>(3);
  a.d = nowhere<Out>(4);
  a.m = 37;
  return a;
}
template <class T, class Epilogue, class Out = T>
bi::gemm_finish_args<T, Epilogue, Out> good_gemm_finish() {
  bi::gemm_finish_args<T, Epilogue, Out> a{};
  a.partial = nowhere<float>(0);
  a.ranks = 4;
  a.bias = nowhere<T>(1);
  a.residual = nowhere<T>(2);
  a.d = nowhere<Out>(3);
  a.m = 37;
  a.n = 1024;
  return a;
}
inline bi::gemm_f32_args good_gemm_f32() {
  bi::gemm_f32_args a{};
  a.a = nowhere<float>(0);
  a.a_row_stride = 300;
  a.b = nowhere<float>(1);
  a.b_row_stride = 300;
  a.m = 37;
  a.n = 64;
  a.k = 300;
  a.d = nowhere<float>(2);
  return a;
}

}  // namespace test
