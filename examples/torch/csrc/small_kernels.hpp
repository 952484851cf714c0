// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/contract/arithmetic.hpp"
#include "bi/dtype.hpp"
#include "bi/sample.hpp"
#include "bi/status.hpp"

// The extension's own kernels: what PyTorch's arguments need beside the library's operations. Each is a function of an
// item, which a thread of the GPU or a loop on the CPU calls. No CUDA header.

namespace bi_torch {

// out = acc * alpha + beta * c, an element alone: a product in fp32 each, added in fp32, rounded once. alpha = 1 and
// beta = 1 are no operation. So a bias that the product itself adds (bi::epilogue::bias) has the bits of this.
template <class T>
struct scale_add_args {
  const float* acc = nullptr;  // [batch, m, n], contiguous; may be out
  const T* c = nullptr;        // [batch, m, n] of any strides, 0 and negative ones included; null: no such term
  std::int64_t c_batch_stride = 0, c_row_stride = 0, c_col_stride = 0;
  std::int64_t batch = 0, m = 0, n = 0;
  float alpha = 1, beta = 1;
  T* out = nullptr;  // [batch, m, n], contiguous
};
template <class T>
BI_HD std::int64_t items(const scale_add_args<T>& p) {
  return p.batch * p.m * p.n;
}
template <class T>
BI_HD void item(const scale_add_args<T>& p, std::int64_t i) {
  float v = p.acc[i];
  if (bi::bits_of(p.alpha) != bi::bits_of(1.0f)) v = bi::mul_rn(v, p.alpha);
  if (p.c != nullptr) {
    const std::int64_t col = i % p.n, row = i / p.n % p.m, entry = i / p.n / p.m;
    float c = bi::to_f32(p.c[entry * p.c_batch_stride + row * p.c_row_stride + col * p.c_col_stride]);
    if (bi::bits_of(p.beta) != bi::bits_of(1.0f)) c = bi::mul_rn(c, p.beta);
    v = bi::add_rn(v, c);
  }
  p.out[i] = bi::cvt_rn<T>(v);
}

// The arrays of a batch of requests of one length each, request i being page i: page[i] = i, len[i] = len, and
// q_start[i] = i * q_len for i <= requests.
struct batch_views_args {
  std::int32_t* page = nullptr;
  std::int32_t* len = nullptr;
  std::int32_t* q_start = nullptr;
  std::int64_t requests = 0;
  std::int32_t view_len = 0, q_len = 0;
};
BI_HD inline std::int64_t items(const batch_views_args& p) { return p.requests + 1; }
BI_HD inline void item(const batch_views_args& p, std::int64_t i) {
  p.q_start[i] = static_cast<std::int32_t>(i * p.q_len);
  if (i < p.requests) {
    p.page[i] = static_cast<std::int32_t>(i);
    p.len[i] = p.view_len;
  }
}

// An array of bi::sample_params from one array a field; null: the field's default.
struct pack_params_args {
  const float* temperature = nullptr;
  const std::int32_t* top_k = nullptr;
  const float* top_p = nullptr;
  const float* min_p = nullptr;
  const std::int64_t* seed = nullptr;
  const std::int32_t* sample_index = nullptr;
  const std::int32_t* ordinal = nullptr;
  std::int64_t rows = 0;
  bi::sample_params* out = nullptr;
};
BI_HD inline std::int64_t items(const pack_params_args& p) { return p.rows; }
BI_HD inline void item(const pack_params_args& p, std::int64_t i) {
  bi::sample_params s;
  if (p.temperature != nullptr) s.temperature = p.temperature[i];
  if (p.top_k != nullptr) s.top_k = p.top_k[i];
  if (p.top_p != nullptr) s.top_p = p.top_p[i];
  if (p.min_p != nullptr) s.min_p = p.min_p[i];
  if (p.seed != nullptr) s.seed = static_cast<std::uint64_t>(p.seed[i]);
  if (p.sample_index != nullptr) s.sample_index = static_cast<std::uint32_t>(p.sample_index[i]);
  if (p.ordinal != nullptr) s.ordinal = static_cast<std::uint32_t>(p.ordinal[i]);
  p.out[i] = s;
}

template <class T>
struct fill_ones_args {
  T* out = nullptr;
  std::int64_t count = 0;
};
template <class T>
BI_HD std::int64_t items(const fill_ones_args<T>& p) {
  return p.count;
}
template <class T>
BI_HD void item(const fill_ones_args<T>& p, std::int64_t i) {
  p.out[i] = bi::cvt_rn<T>(1.0f);
}

// item() of all of them. Enqueued on the stream.
template <class Args>
bi::status run_items(const Args& args, bi::cuda_stream stream);

// Makes `index` the current device of the CUDA runtime that this library is linked with.
bi::status set_device(int index);

}  // namespace bi_torch
