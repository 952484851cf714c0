// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "bi/bi.hpp"

// What an engine has of its own: memory with weights, a KV cache and requests in it. None of it is about bi.

constexpr std::int64_t hidden = 512, heads = 4, heads_kv = 2, dim = 128, vocab = 32000;
constexpr std::int64_t requests = 64, length = 300, page = 16, pages = (length + page - 1) / page;

inline void require(bool ok, const std::string& text) {
  if (ok) return;
  std::puts(text.c_str());
  std::exit(1);
}
inline void require(bi::status st) { require(static_cast<bool>(st), bi::describe(st)); }
inline void require(cudaError_t code) { require(code == cudaSuccess, cudaGetErrorString(code)); }

// ctest takes the exit code 77 for a test that could not run.
inline bool gpu_is_here() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return true;
  std::puts("no GPU here");
  return false;
}

template <class T>
T* upload(const std::vector<T>& values) {
  void* p = nullptr;
  require(cudaMalloc(&p, values.size() * sizeof(T)));
  require(cudaMemcpy(p, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return static_cast<T*>(p);
}
template <class T>
std::vector<T> download(const T* p, std::int64_t count, cudaStream_t stream) {
  std::vector<T> out(static_cast<std::size_t>(count));
  require(cudaMemcpyAsync(out.data(), p, out.size() * sizeof(T), cudaMemcpyDeviceToHost, stream));
  require(cudaStreamSynchronize(stream));
  return out;
}
inline bi::bf16* random_numbers(std::int64_t count, float scale, std::uint64_t seed) {
  std::vector<bi::bf16> out;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint64_t bits = bi::mix64((seed << 40) + static_cast<std::uint64_t>(i));
    const auto value = bi::float_from_int(static_cast<std::int32_t>(bits >> 32));
    out.push_back(bi::cvt_rn<bi::bf16>(bi::mul_rn(value, bi::mul_rn(scale, 0x1p-31f))));
  }
  return upload(out);
}

struct engine {
  bi::bf16* x = random_numbers(requests * hidden, 2, 1);  // [requests, hidden]
  bi::bf16* norm_weight = random_numbers(hidden, 2, 2);
  bi::bf16* q_weight = random_numbers(heads * dim * hidden, 0.1f, 3);  // [heads * dim, hidden]
  bi::bf16* vocab_weight = random_numbers(vocab * heads * dim, 1, 4);  // [vocab, heads * dim]
  bi::paged_cache<const bi::bf16> cache;                               // all requests' keys and values
  bi::page_table table;                                                // pages of each request
  std::int32_t* len = nullptr;                                         // [requests]
  bi::sample_params* params = nullptr;                                 // [requests]
  bi::bf16* normed = random_numbers(requests * hidden, 0, 0);
  bi::bf16* q = random_numbers(requests * heads * dim, 0, 0);
  bi::bf16* attended = random_numbers(requests * heads * dim, 0, 0);
  float* logits = upload(std::vector<float>(requests * vocab));
  std::int32_t* token = upload(std::vector<std::int32_t>(requests));
  bi::workspace workspace;

  explicit engine(std::size_t workspace_bytes) {
    const std::int64_t elements = requests * pages * page * heads_kv * dim;
    cache.k = random_numbers(elements, 2, 5), cache.v = random_numbers(elements, 2, 6);
    cache.num_pages = requests * pages, cache.page_size = page, cache.heads = heads_kv, cache.head_dim = dim;
    std::vector<std::int32_t> page_of, lengths;
    std::vector<bi::sample_params> how(requests);
    for (std::int32_t r = 0; r < requests; ++r) {
      for (std::int32_t i = 0; i < pages; ++i) page_of.push_back(r + i * static_cast<std::int32_t>(requests));
      lengths.push_back(static_cast<std::int32_t>(length) - r);
      how[static_cast<std::size_t>(r)].temperature = 1;
      how[static_cast<std::size_t>(r)].seed = 7u + static_cast<std::uint64_t>(r);
    }
    table.pages = upload(page_of), table.row_stride = pages;
    len = upload(lengths), params = upload(how);
    workspace.data = upload(std::vector<char>(workspace_bytes + 1)), workspace.bytes = workspace_bytes;
  }
};
