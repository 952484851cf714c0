// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bi/activation.hpp"
#include "bi/attention.hpp"
#include "bi/digest.hpp"
#include "bi/dtype.hpp"
#include "bi/gemm.hpp"
#include "bi/kv_cache.hpp"
#include "bi/rms_norm.hpp"
#include "bi/rope.hpp"
#include "bi/sample.hpp"
#include "bi/status.hpp"

namespace demo {

using bi::bf16;

using gemm_args = bi::gemm_args<bf16>;
using gemm_silu_gate_args = bi::gemm_args<bf16, bi::epilogue::silu_gate>;
using gemm_f32_out_args = bi::gemm_args<bf16, bi::epilogue::none, float>;

struct gather_args {  // out[r] = table[index[r]]
  const bf16* table = nullptr;
  std::int64_t table_rows = 0;
  const std::int32_t* index = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  bf16* out = nullptr;
};

// What a served model needs of its engine's kernels. All pointers, those inside argument structs included, are memory of
// the backend, so model and engine run unchanged on a CPU and on a GPU. Failures are exceptions.
class backend {
 public:
  virtual ~backend() = default;
  virtual std::string name() const = 0;

  virtual void* allocate(std::size_t bytes) = 0;  // zeroed, aligned to 256
  virtual void release(void* p) = 0;
  virtual void upload(void* to, const void* from, std::size_t bytes) = 0;
  virtual void download(void* to, const void* from, std::size_t bytes) = 0;  // after all work before it

  virtual void gather(const gather_args& a) = 0;
  virtual void rms_norm(const bi::rms_norm_args<bf16>& a) = 0;
  virtual void add(const bi::add_args<bf16>& a) = 0;
  virtual void gemm(const bi::gemm_limits& l, const gemm_args& a) = 0;
  virtual void gemm_silu_gate(const bi::gemm_limits& l, const gemm_silu_gate_args& a) = 0;
  virtual void gemm_f32_out(const bi::gemm_limits& l, const gemm_f32_out_args& a) = 0;
  virtual void silu_mul(const bi::gate_mul_args<bf16>& a) = 0;
  virtual void qk_norm(const bi::qk_norm_args<bf16>& a) = 0;
  virtual void rope(const bi::rope_args<bf16>& a) = 0;
  virtual void kv_append(const bi::kv_append_args<bf16>& a) = 0;
  virtual void attention(const bi::attention_args<bf16>& a) = 0;
  virtual void sample(const bi::sample_args<float>& a) = 0;
  virtual void digest_rows(const bi::digest_rows_args& a) = 0;
  virtual void digest_kv(const bi::digest_kv_args<bf16>& a) = 0;
};

inline constexpr const char* baseline_name = "batch-dependent";

// bi's CPU reference. threads = 0: as many as the machine has.
std::unique_ptr<backend> make_reference(int threads);
// The same, but for norm, gemm and attention, whose order of addition follows the batch as other engines' does.
std::unique_ptr<backend> make_baseline(int threads);
#ifdef DETERMINISM_GPU
std::unique_ptr<backend> make_gpu();
std::unique_ptr<backend> make_gpu_baseline();
#endif

inline void require(const bi::status& s) {
  if (!s) throw std::runtime_error(bi::describe(s));
}

// An array in a backend's memory, which must not outlive it.
template <class T>
class buffer {
 public:
  buffer() = default;
  buffer(backend& b, std::size_t count)
      : backend_(&b),
        size_(count),
        data_(static_cast<T*>(b.allocate(count * sizeof(T))), [&b](T* p) { b.release(p); }) {}
  buffer(backend& b, const std::vector<T>& from) : buffer(b, from.size()) { upload(from); }

  T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  void upload(const std::vector<T>& from) const {
    if (from.size() > size_) throw std::logic_error("buffer::upload: more elements than the buffer holds");
    if (!from.empty()) backend_->upload(data(), from.data(), from.size() * sizeof(T));
  }
  std::vector<T> download(std::size_t count) const {
    if (count > size_) throw std::logic_error("buffer::download: more elements than the buffer holds");
    std::vector<T> out(count);
    if (count > 0) backend_->download(out.data(), data(), count * sizeof(T));
    return out;
  }
  std::vector<T> download() const { return download(size_); }

 private:
  backend* backend_ = nullptr;
  std::size_t size_ = 0;
  std::shared_ptr<T> data_;
};

}  // namespace demo
