// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <string>

#include "backend.hpp"

namespace demo {

// Every operation is one call of bi::reference, on the host's memory.
class reference_backend : public backend {
 public:
  explicit reference_backend(int threads) : threads_(threads) {}
  std::string name() const override { return "reference"; }

  void* allocate(std::size_t bytes) override;
  void release(void* p) override;
  void upload(void* to, const void* from, std::size_t bytes) override;
  void download(void* to, const void* from, std::size_t bytes) override;

  void gather(const gather_args& a) override;
  void rms_norm(const bi::rms_norm_args<bf16>& a) override;
  void add(const bi::add_args<bf16>& a) override;
  void gemm(const bi::gemm_limits& l, const gemm_args& a) override;
  void gemm_silu_gate(const bi::gemm_limits& l, const gemm_silu_gate_args& a) override;
  void gemm_f32_out(const bi::gemm_limits& l, const gemm_f32_out_args& a) override;
  void silu_mul(const bi::gate_mul_args<bf16>& a) override;
  void qk_norm(const bi::qk_norm_args<bf16>& a) override;
  void rope(const bi::rope_args<bf16>& a) override;
  void kv_append(const bi::kv_append_args<bf16>& a) override;
  void attention(const bi::attention_args<bf16>& a) override;
  void sample(const bi::sample_args<float>& a) override;
  void digest_rows(const bi::digest_rows_args& a) override;
  void digest_kv(const bi::digest_kv_args<bf16>& a) override;

 protected:
  const int threads_;
};

}  // namespace demo
