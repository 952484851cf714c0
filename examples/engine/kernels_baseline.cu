// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "bi/runtime.hpp"
#include "kernels.hpp"

// What engines without batch invariance run, for comparison. Each result is right, and its order of additions follows the
// batch.

namespace engine {
namespace {

__device__ float load(const bf16* p) { return __uint_as_float(static_cast<unsigned>(p->bits) << 16); }
__device__ bf16 store(float v) { return {__bfloat16_as_ushort(__float2bfloat16_rn(v))}; }

struct norm_params {
  const bf16 *x, *residual, *weight;
  bf16 *residual_out, *out;
  std::int64_t cols;
  float eps;
  unsigned busy;  // threads that add; the others of a warp look on
};

// cols is a multiple of 8, and rows are aligned to 16 bytes: as the model's are.
__global__ void norm_by_rows_kernel(norm_params p) {
  extern __shared__ float held[];  // [cols], then [32]
  float* const share = held + p.cols;
  const std::int64_t row = std::int64_t{blockIdx.x} * p.cols;
  const std::int64_t first = threadIdx.x < p.busy ? std::int64_t{threadIdx.x} * 8 : p.cols,
                     step = std::int64_t{p.busy} * 8;
  float sum = 0;
  for (std::int64_t i = first; i < p.cols; i += step) {
    bf16 x[8], r[8];
    *reinterpret_cast<uint4*>(x) = *reinterpret_cast<const uint4*>(p.x + row + i);
    if (p.residual != nullptr) {
      *reinterpret_cast<uint4*>(r) = *reinterpret_cast<const uint4*>(p.residual + row + i);
      for (int j = 0; j < 8; ++j) x[j] = store(load(&x[j]) + load(&r[j]));
      *reinterpret_cast<uint4*>(p.residual_out + row + i) = *reinterpret_cast<const uint4*>(x);
    }
    for (int j = 0; j < 8; ++j) {
      held[i + j] = load(&x[j]);
      sum += held[i + j] * held[i + j];
    }
  }
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
  if (threadIdx.x % 32 == 0) share[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) sum += share[w];
  const float scale = rsqrtf(sum / static_cast<float>(p.cols) + p.eps);
  for (std::int64_t i = first; i < p.cols; i += step) {
    bf16 w[8], y[8];
    *reinterpret_cast<uint4*>(w) = *reinterpret_cast<const uint4*>(p.weight + i);
    for (int j = 0; j < 8; ++j) y[j] = store(held[i + j] * scale * load(&w[j]));
    *reinterpret_cast<uint4*>(p.out + row + i) = *reinterpret_cast<const uint4*>(y);
  }
}

struct split_params {
  const bf16* q;
  std::int64_t q_stride, width, requests, parts, page_size;
  const std::int32_t *start, *len;
  std::int32_t *part_start, *part_len;
  bf16* part_q;
};

// Block (part, request). A part is some whole pages of its view.
__global__ void split_kernel(split_params p) {
  const std::int64_t request = blockIdx.y, part = blockIdx.x, to = request * p.parts + part;
  for (std::int64_t i = threadIdx.x; i < p.width; i += blockDim.x) {
    p.part_q[to * p.width + i] = p.q[request * p.q_stride + i];
  }
  if (threadIdx.x != 0) return;
  const std::int64_t len = p.len[request], pages = (len + p.page_size - 1) / p.page_size;
  const std::int64_t share = (pages + p.parts - 1) / p.parts, first = min(part * share, pages);
  const std::int64_t left = len - first * p.page_size, most = share * p.page_size;
  p.part_start[to] = p.start[request] + static_cast<std::int32_t>(first);
  p.part_len[to] = static_cast<std::int32_t>(max(std::int64_t{0}, min(left, most)));
  if (to + 1 == p.requests * p.parts) p.part_start[to + 1] = p.start[request] + static_cast<std::int32_t>(pages);
}

struct join_params {
  const bf16* part_out;
  const float* part_lse;
  bf16* out;
  std::int64_t parts, heads, head_dim, out_stride;
};

// Block (head, request), a thread for each element.
__global__ void join_kernel(join_params p) {
  const std::int64_t request = blockIdx.y, head = blockIdx.x, i = threadIdx.x;
  const float* lse = p.part_lse + request * p.parts * p.heads + head;
  float most = -INFINITY;
  for (std::int64_t s = 0; s < p.parts; ++s) most = fmaxf(most, lse[s * p.heads]);
  float sum = 0, value = 0;
  for (std::int64_t s = 0; s < p.parts; ++s) {
    const float weight = most == -INFINITY ? 0.0f : __expf(lse[s * p.heads] - most);
    sum += weight;
    value += weight * load(p.part_out + ((request * p.parts + s) * p.heads + head) * p.head_dim + i);
  }
  p.out[request * p.out_stride + head * p.head_dim + i] = store(sum > 0 ? value / sum : 0.0f);
}

}  // namespace

bi::status launch_norm_by_rows(const bi::rms_norm_args<bf16>& a, bi::cuda_stream stream) {
  norm_params p = {a.x, a.residual, a.weight, a.residual_out, a.out, a.cols, a.eps, 1};
  const std::int64_t each = a.rows < 32 ? 8 : a.rows < 256 ? 16 : 32;  // elements of a thread
  p.busy = static_cast<unsigned>(std::clamp<std::int64_t>(a.cols / each, 1, 1024));
  bi::launch_shape s;
  s.grid.x = static_cast<unsigned>(a.rows);
  s.block.x = (p.busy + 31) / 32 * 32;
  s.shared_bytes = static_cast<std::size_t>(a.cols + 32) * sizeof(float);
  return bi::launch("norm_by_rows", norm_by_rows_kernel, s, p, stream);
}

bi::status launch_split(const split_args& a, bi::cuda_stream stream) {
  const bi::attention_args<bf16>& w = a.whole;
  const bi::attention_strides q = bi::q_strides(w);
  const split_params p = {w.q,
                          q.token,
                          w.limits.heads_q * w.limits.head_dim,
                          w.requests,
                          a.parts,
                          w.cache.page_size,
                          w.view.csr.start,
                          w.len,
                          a.page_start,
                          a.len,
                          a.q};
  bi::launch_shape s;
  s.grid.x = static_cast<unsigned>(a.parts);
  s.grid.y = static_cast<unsigned>(w.requests);
  s.block.x = 256;
  return bi::launch("split", split_kernel, s, p, stream);
}

bi::status launch_join(const split_args& a, bi::cuda_stream stream) {
  const bi::attention_args<bf16>& w = a.whole;
  const join_params p = {a.out, a.lse, w.out, a.parts, w.limits.heads_q, w.limits.head_dim, bi::out_strides(w).token};
  bi::launch_shape s;
  s.grid.x = static_cast<unsigned>(w.limits.heads_q);
  s.grid.y = static_cast<unsigned>(w.requests);
  s.block.x = static_cast<unsigned>(w.limits.head_dim);
  return bi::launch("join", join_kernel, s, p, stream);
}

}  // namespace engine
