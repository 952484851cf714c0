// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "peers.hpp"

#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
#include <cub/device/device_reduce.cuh>
#include <cub/device/device_segmented_reduce.cuh>
#if __has_include(<cuda/__execution/determinism.h>)
#include <cuda/__execution/determinism.h>
#include <cuda/__execution/require.h>
#define BENCH_CUB_MODES 1
#endif

#include "../common/timing.hpp"
#include "bi/contract/arithmetic.hpp"
#include "bi/device/held.cuh"

namespace bench {
namespace {

__device__ float sum_of_block(float v, float* scratch) {
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
  __syncthreads();
  v = 0.0f;
  for (int w = 0; w < 8; ++w) v += scratch[w];
  return v;
}
__device__ float max_of_block(float v, float* scratch) {
  for (int d = 16; d > 0; d /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, d));
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
  __syncthreads();
  v = scratch[0];
  for (int w = 1; w < 8; ++w) v = fmaxf(v, scratch[w]);
  return v;
}

// Calls f(i, v) on each of the thread's vectors [i, i + 8).
template <class T, class F>
__device__ void each_vector(const T* x, std::int64_t cols, F f) {
#pragma unroll 4
  for (std::int64_t i = threadIdx.x * 8ll; i < cols; i += 256 * 8) {
    bi::device::held_vector<T> packed;
    packed.load(x + i);
    float v[8];
    for (int e = 0; e < 8; ++e) v[e] = packed[e];
    f(i, v);
  }
}
template <class T>
__device__ void put(T* p, const float (&v)[8]) {
  T y[8];
  for (int e = 0; e < 8; ++e) y[e] = bi::cvt_rn<T>(v[e]);
  bi::device::held_vector<T> packed;
  packed.set(y);
  packed.store(p);
}

template <class T>
__global__ __launch_bounds__(256) void free_kernel(row_op op, row_problem<T> p) {
  __shared__ float scratch[8];
  const std::int64_t begin = blockIdx.x * p.cols;
  const T* x = p.x + begin;
  T* out = p.out + begin;
  if (op == row_op::rms_norm || op == row_op::add_rms_norm) {
    float ss = 0.0f;
    each_vector(x, p.cols, [&](std::int64_t i, float(&v)[8]) {
      if (op == row_op::add_rms_norm) {
        bi::device::held_vector<T> r;
        r.load(p.residual + begin + i);
        for (int e = 0; e < 8; ++e) v[e] = bi::to_f32(bi::cvt_rn<T>(v[e] + r[e]));
        put(p.residual + begin + i, v);
      }
      for (int e = 0; e < 8; ++e) ss += v[e] * v[e];
    });
    const float scale = rsqrtf(sum_of_block(ss, scratch) / static_cast<float>(p.cols) + 1e-6f);
    each_vector(op == row_op::add_rms_norm ? p.residual + begin : x, p.cols, [&](std::int64_t i, float(&v)[8]) {
      bi::device::held_vector<T> w;
      w.load(p.weight + i);
      for (int e = 0; e < 8; ++e) v[e] *= scale * w[e];
      put(out + i, v);
    });
  } else if (op == row_op::layer_norm) {
    float sum = 0.0f, squares = 0.0f;
    each_vector(x, p.cols, [&](std::int64_t, float(&v)[8]) {
      for (int e = 0; e < 8; ++e) sum += v[e], squares += v[e] * v[e];
    });
    const float n = static_cast<float>(p.cols), mean = sum_of_block(sum, scratch) / n;
    const float scale = rsqrtf(sum_of_block(squares, scratch) / n - mean * mean + 1e-5f);
    each_vector(x, p.cols, [&](std::int64_t i, float(&v)[8]) {
      bi::device::held_vector<T> w, b;
      w.load(p.weight + i);
      b.load(p.bias + i);
      for (int e = 0; e < 8; ++e) v[e] = (v[e] - mean) * scale * w[e] + b[e];
      put(out + i, v);
    });
  } else if (op == row_op::sum) {
    float sum = 0.0f;
    each_vector(x, p.cols, [&](std::int64_t, float(&v)[8]) {
      for (int e = 0; e < 8; ++e) sum += v[e];
    });
    sum = sum_of_block(sum, scratch);
    if (threadIdx.x == 0) p.result[blockIdx.x] = sum;
  } else if (op == row_op::digest) {
    std::uint32_t bits = 0;  // only reads
    each_vector(x, p.cols, [&](std::int64_t, float(&v)[8]) {
      for (int e = 0; e < 8; ++e) bits ^= bi::bits_of(v[e]);
    });
    bits = __reduce_xor_sync(0xffffffffu, bits);
    if (threadIdx.x == 0) p.result[2 * blockIdx.x] = bi::float_of(bits);
  } else {
    // Each thread rescales as it goes.
    float m = -3e38f, l = 0.0f;
    each_vector(x, p.cols, [&](std::int64_t, float(&v)[8]) {
      float larger = m;
      for (int e = 0; e < 8; ++e) larger = fmaxf(larger, v[e]);
      l *= __expf(m - larger);
      m = larger;
      for (int e = 0; e < 8; ++e) l += __expf(v[e] - m);
    });
    const float all = max_of_block(m, scratch);
    l = sum_of_block(l * __expf(m - all), scratch);
    if (op == row_op::logsumexp) {
      if (threadIdx.x == 0) p.result[blockIdx.x] = all + __logf(l);
      return;
    }
    const float log_l = __logf(l), inverse = 1.0f / l;
    each_vector(x, p.cols, [&](std::int64_t i, float(&v)[8]) {
      for (int e = 0; e < 8; ++e) v[e] = op == row_op::softmax ? __expf(v[e] - all) * inverse : v[e] - all - log_l;
      put(out + i, v);
    });
  }
}

// Ends of equal rows.
struct row_begin {
  std::int64_t cols;
  __host__ __device__ std::int64_t operator()(std::int64_t row) const { return row * cols; }
};

}  // namespace

template <class T>
void launch_free(row_op op, const row_problem<T>& p, cudaStream_t stream) {
  free_kernel<<<static_cast<unsigned>(p.rows), 256, 0, stream>>>(op, p);
  require(cudaGetLastError(), "free_kernel");
}
template void launch_free(row_op, const row_problem<bi::bf16>&, cudaStream_t);
template void launch_free(row_op, const row_problem<float>&, cudaStream_t);

void cub_sum(void* temporary, std::size_t& bytes, const float* x, float* result, std::int64_t rows, std::int64_t cols,
             cudaStream_t stream) {
  if (rows == 1) {
    BENCH_REQUIRE(cub::DeviceReduce::Sum(temporary, bytes, x, result, cols, stream));
    return;
  }
  const auto begins = thrust::make_transform_iterator(thrust::counting_iterator<std::int64_t>(0), row_begin{cols});
  BENCH_REQUIRE(cub::DeviceSegmentedReduce::Sum(temporary, bytes, x, result, rows, begins, begins + 1, stream));
}

bool cub_sum_mode([[maybe_unused]] cub_mode mode, [[maybe_unused]] const float* x, [[maybe_unused]] float* result,
                  [[maybe_unused]] std::int64_t n, [[maybe_unused]] cudaStream_t stream) {
#ifdef BENCH_CUB_MODES
  namespace execution = cuda::execution;
  const auto sum = [&](auto determinism) {
    const auto environment = cuda::std::execution::env{cuda::stream_ref{stream}, execution::require(determinism)};
    BENCH_REQUIRE(cub::DeviceReduce::Sum(x, result, n, environment));
  };
  if (mode == cub_mode::run_to_run) {
    sum(execution::determinism::run_to_run);
  } else {
    sum(execution::determinism::gpu_to_gpu);
  }
  return true;
#else
  return false;
#endif
}

}  // namespace bench
