// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "backend_reference.hpp"

#include <cstdlib>
#include <cstring>
#include <new>

#include "bi/reference/activation.hpp"
#include "bi/reference/attention.hpp"
#include "bi/reference/digest.hpp"
#include "bi/reference/gemm.hpp"
#include "bi/reference/kv_cache.hpp"
#include "bi/reference/rms_norm.hpp"
#include "bi/reference/rope.hpp"
#include "bi/reference/sample.hpp"

namespace demo {

namespace reference = bi::reference;

void* reference_backend::allocate(std::size_t bytes) {
  const std::size_t whole = (bytes + 255) / 256 * 256;
  void* p = std::aligned_alloc(256, whole == 0 ? 256 : whole);
  if (p == nullptr) throw std::bad_alloc();
  return std::memset(p, 0, whole);
}
void reference_backend::release(void* p) { std::free(p); }
void reference_backend::upload(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
void reference_backend::download(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }

void reference_backend::gather(const gather_args& a) {
  const std::size_t bytes = static_cast<std::size_t>(a.cols) * sizeof(bf16);
  for (std::int64_t r = 0; r < a.rows; ++r) std::memcpy(a.out + r * a.cols, a.table + a.index[r] * a.cols, bytes);
}

void reference_backend::rms_norm(const bi::rms_norm_args<bf16>& a) { require(reference::rms_norm(a, threads_)); }
void reference_backend::add(const bi::add_args<bf16>& a) { require(reference::add(a, threads_)); }
void reference_backend::gemm(const bi::gemm_limits& l, const gemm_args& a) { require(reference::gemm(l, a, threads_)); }
void reference_backend::gemm_silu_gate(const bi::gemm_limits& l, const gemm_silu_gate_args& a) {
  require(reference::gemm(l, a, threads_));
}
void reference_backend::gemm_f32_out(const bi::gemm_limits& l, const gemm_f32_out_args& a) {
  require(reference::gemm(l, a, threads_));
}
void reference_backend::silu_mul(const bi::gate_mul_args<bf16>& a) { require(reference::silu_mul(a, threads_)); }
void reference_backend::qk_norm(const bi::qk_norm_args<bf16>& a) { require(reference::qk_norm(a, threads_)); }
void reference_backend::rope(const bi::rope_args<bf16>& a) { require(reference::rope(a, threads_)); }
void reference_backend::kv_append(const bi::kv_append_args<bf16>& a) { require(reference::kv_append(a, threads_)); }
void reference_backend::attention(const bi::attention_args<bf16>& a) { require(reference::attention(a, threads_)); }
void reference_backend::sample(const bi::sample_args<float>& a) { require(reference::sample(a, threads_)); }
void reference_backend::digest_rows(const bi::digest_rows_args& a) { require(reference::digest_rows(a, threads_)); }
void reference_backend::digest_kv(const bi::digest_kv_args<bf16>& a) { require(reference::digest_kv(a, threads_)); }

std::unique_ptr<backend> make_reference(int threads) { return std::make_unique<reference_backend>(threads); }

}  // namespace demo
