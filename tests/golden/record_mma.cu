// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Records what a Hopper GPU's tensor cores return for the operands of tests/support/mma_cases.hpp. A CPU test holds the
// model in bi/reference/mma.hpp against the file. Run it again for a new GPU or toolkit and compare the files.
//
//   nvcc -std=c++17 -O2 -gencode=arch=compute_90a,code=sm_90a -cudart static -I include -I . -I tests
//        -o build/record/record_mma tests/golden/record_mma.cu
//   build/record/record_mma tests/golden/mma_hopper.txt
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <type_traits>
#include <vector>

#include "bi/reference/fp_env.hpp"
#include "bi/reference/mma.hpp"
#include "support/mma_cases.hpp"

namespace {

using test::mma_chain_columns;
using test::mma_chain_depth;
using test::mma_chain_rows;

void require(cudaError_t e, const char* what) {
  if (e == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(e));
  std::exit(1);
}

template <class T>
class device_array {
 public:
  explicit device_array(std::size_t n) : n_(n) { require(cudaMalloc(&p_, n * sizeof(T)), "cudaMalloc"); }
  explicit device_array(const std::vector<T>& x) : device_array(x.size()) {
    require(cudaMemcpy(p_, x.data(), n_ * sizeof(T), cudaMemcpyHostToDevice), "copy to the device");
  }
  ~device_array() { cudaFree(p_); }
  device_array(const device_array&) = delete;
  device_array& operator=(const device_array&) = delete;
  T* get() const { return p_; }
  std::vector<T> host() const {
    std::vector<T> x(n_);
    require(cudaMemcpy(x.data(), p_, n_ * sizeof(T), cudaMemcpyDeviceToHost), "copy from the device");
    return x;
  }

 private:
  T* p_ = nullptr;
  std::size_t n_ = 0;
};

// ---- device

__device__ std::uint32_t pair(const bi::bf16* p) { return *reinterpret_cast<const std::uint32_t*>(p); }
__device__ std::uint32_t pair(const bi::fp16* p) { return *reinterpret_cast<const std::uint32_t*>(p); }

// One warp's fragments: 16 x 16 of A, 8 columns of B, both k-major with `ld` elements between rows.
template <class T>
struct fragments {
  std::uint32_t a[4], b[2];

  __device__ void load_a(const T* x, int ld) {
    const int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    a[0] = pair(x + g * ld + 2 * q);
    a[1] = pair(x + (g + 8) * ld + 2 * q);
    a[2] = pair(x + g * ld + 2 * q + 8);
    a[3] = pair(x + (g + 8) * ld + 2 * q + 8);
  }
  __device__ void load_b(const T* x, int ld) {
    const int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    b[0] = pair(x + g * ld + 2 * q);
    b[1] = pair(x + g * ld + 2 * q + 8);
  }
  __device__ void step(float (&c)[4]) const {
    if constexpr (std::is_same_v<T, bi::bf16>) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  }
};

__device__ int output_row(int i) { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 * 8; }
__device__ int output_column(int i) { return threadIdx.x % 4 * 2 + i % 2; }

// One warp a tile.
template <class T>
__global__ void steps(const test::mma_tile<T>* tiles, float* d) {
  const test::mma_tile<T>& t = tiles[blockIdx.x];
  fragments<T> f;
  f.load_a(&t.a[0][0], 16);
  f.load_b(&t.b[0][0], 16);
  float c[4];
  for (int i = 0; i < 4; ++i) c[i] = t.c[output_row(i)][output_column(i)];
  f.step(c);
  for (int i = 0; i < 4; ++i) d[blockIdx.x * 128 + output_row(i) * 8 + output_column(i)] = c[i];
}

// Four warps a case: 64 x 8 outputs over 256 of k.
template <class T>
__global__ void chain_mma(const T* a, const T* b, float* d) {
  a += blockIdx.x * mma_chain_rows * mma_chain_depth + threadIdx.x / 32 * 16 * mma_chain_depth;
  b += blockIdx.x * mma_chain_columns * mma_chain_depth;
  float c[4] = {};
  for (int k = 0; k < mma_chain_depth; k += 16) {
    fragments<T> f;
    f.load_a(a + k, mma_chain_depth);
    f.load_b(b + k, mma_chain_depth);
    f.step(c);
  }
  for (int i = 0; i < 4; ++i) d[blockIdx.x * 512 + output_row(i) * 8 + output_column(i)] = c[i];
}

template <class T>
__global__ void chain_wgmma(const T* a, const T* b, float* d) {
  // For each step two core matrices of 8 columns x 8 k, not swizzled.
  __shared__ alignas(128) T shared[mma_chain_depth * mma_chain_columns];
  a += blockIdx.x * mma_chain_rows * mma_chain_depth + threadIdx.x / 32 * 16 * mma_chain_depth;
  b += blockIdx.x * mma_chain_columns * mma_chain_depth;
  for (int i = threadIdx.x; i < mma_chain_depth * mma_chain_columns; i += blockDim.x) {
    const int column = i / mma_chain_depth, k = i % mma_chain_depth;
    shared[k / 8 * 64 + column * 8 + k % 8] = b[i];
  }
  asm volatile("fence.proxy.async;" ::: "memory");
  __syncthreads();
  float c[4] = {};
  for (int k = 0; k < mma_chain_depth; k += 16) {
    fragments<T> f;
    f.load_a(a + k, mma_chain_depth);
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared + k * mma_chain_columns));
    const std::uint64_t descriptor =
        (address & 0x3ffffu) >> 4 | std::uint64_t{128 >> 4} << 16 | std::uint64_t{256 >> 4} << 32;
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    if constexpr (std::is_same_v<T, bi::bf16>) {
      asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, {%4,%5,%6,%7}, %8, 1, 1, 1, 0;"
                   : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                   : "r"(f.a[0]), "r"(f.a[1]), "r"(f.a[2]), "r"(f.a[3]), "l"(descriptor));
    } else {
      asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0,%1,%2,%3}, {%4,%5,%6,%7}, %8, 1, 1, 1, 0;"
                   : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                   : "r"(f.a[0]), "r"(f.a[1]), "r"(f.a[2]), "r"(f.a[3]), "l"(descriptor));
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])::"memory");
  }
  for (int i = 0; i < 4; ++i) d[blockIdx.x * 512 + output_row(i) * 8 + output_column(i)] = c[i];
}

// ---- host

template <class T>
void print_hex(std::FILE* out, const T* x, int n) {
  for (int i = 0; i < n; ++i) std::fprintf(out, "%04x", x[i].bits);
}

unsigned long long number(std::uint64_t x) { return x; }

template <class T>
long record_steps(std::FILE* out, const char* type) {
  std::vector<test::mma_tile<T>> tiles;
  test::word_digest in, result;
  for (std::int64_t i = 0; i < test::recorded_tiles; ++i) {
    tiles.push_back(test::make_mma_tile<T>(i));
    const test::mma_tile<T>& t = tiles.back();
    in.add(&t.a[0][0], 256);
    in.add(&t.b[0][0], 128);
    in.add(&t.c[0][0], 128);
  }
  const device_array<test::mma_tile<T>> x(tiles);
  const device_array<float> y(tiles.size() * 128);
  steps<T><<<static_cast<unsigned>(tiles.size()), 32>>>(x.get(), y.get());
  require(cudaGetLastError(), "steps");
  const std::vector<float> d = y.host();
  result.add(d.data(), static_cast<std::int64_t>(d.size()));
  std::fprintf(out, "tiles %s %lld %016llx %016llx\n", type, static_cast<long long>(tiles.size()), number(in.value()),
               number(result.value()));

  // A sample in full: four outputs of each of the first tiles.
  test::generator g(12345);
  for (std::size_t t = 0; t < 13 * 15; ++t) {
    for (int times = 0; times < 4; ++times) {
      const auto i = static_cast<int>(g.below(16)), j = static_cast<int>(g.below(8));
      std::fprintf(out, "step %s %08x ", type, bi::bits_of(tiles[t].c[i][j]));
      print_hex(out, tiles[t].a[i], 16);
      std::fputc(' ', out);
      print_hex(out, tiles[t].b[j], 16);
      std::fprintf(out, " %08x\n", bi::bits_of(d[t * 128 + static_cast<std::size_t>(i * 8 + j)]));
    }
  }

  const bi::reference::fp_environment environment;
  long differing = 0;
  for (std::size_t t = 0; t < tiles.size(); ++t) {
    for (std::size_t o = 0; o < 128; ++o) {
      const float e = bi::reference::mma_step_exact(tiles[t].c[o / 8][o % 8], tiles[t].a[o / 8], tiles[t].b[o % 8]);
      differing += bi::bits_of(e) != bi::bits_of(d[t * 128 + o]) ? 1 : 0;
    }
  }
  std::printf("%s: %zu steps, %ld differ from the model\n", type, tiles.size() * 128, differing);
  return differing;
}

template <class T>
void record_chains(std::FILE* out, const char* type) {
  std::vector<T> a, b;
  test::word_digest in;
  for (std::int64_t i = 0; i < test::recorded_chains; ++i) {
    const auto c = test::make_mma_chain<T>(i);
    a.insert(a.end(), c.a.begin(), c.a.end());
    b.insert(b.end(), c.b.begin(), c.b.end());
  }
  in.add(a.data(), static_cast<std::int64_t>(a.size()));
  in.add(b.data(), static_cast<std::int64_t>(b.size()));
  const device_array<T> da(a), db(b);
  for (int wgmma = 0; wgmma < 2; ++wgmma) {
    const device_array<float> y(test::recorded_chains * mma_chain_rows * mma_chain_columns);
    if (wgmma != 0) {
      chain_wgmma<T><<<test::recorded_chains, 128>>>(da.get(), db.get(), y.get());
    } else {
      chain_mma<T><<<test::recorded_chains, 128>>>(da.get(), db.get(), y.get());
    }
    require(cudaGetLastError(), "chains");
    const std::vector<float> d = y.host();
    test::word_digest result;
    result.add(d.data(), static_cast<std::int64_t>(d.size()));
    std::fprintf(out, "chains_%s %s %lld %016llx %016llx\n", wgmma != 0 ? "wgmma" : "mma", type,
                 static_cast<long long>(test::recorded_chains), number(in.value()), number(result.value()));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s OUTPUT\n", argv[0]);
    return 2;
  }
  cudaDeviceProp device;
  int driver = 0, runtime = 0;
  require(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  require(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  require(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  std::FILE* out = std::fopen(argv[1], "w");
  if (out == nullptr) {
    std::perror(argv[1]);
    return 1;
  }
  std::fprintf(out,
               "# %s, compute capability %d.%d, CUDA driver %d, runtime %d; written by tests/golden/record_mma.cu\n",
               device.name, device.major, device.minor, driver, runtime);
  long differing = 0;
  differing += record_steps<bi::bf16>(out, "bf16");
  differing += record_steps<bi::fp16>(out, "fp16");
  record_chains<bi::bf16>(out, "bf16");
  record_chains<bi::fp16>(out, "fp16");
  if (std::fclose(out) != 0) {
    std::perror(argv[1]);
    return 1;
  }
  return differing == 0 ? 0 : 3;
}
