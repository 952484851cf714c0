// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
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
#include "bi/sample.hpp"
#include "bi/softmax.hpp"
#include "bi/status.hpp"

namespace engine {

using bi::bf16;

using gemm_args = bi::gemm_args<bf16>;
using gemm_silu_gate_args = bi::gemm_args<bf16, bi::epilogue::silu_gate>;
using gemm_f32_out_args = bi::gemm_args<bf16, bi::epilogue::none, float>;

// out[r] = rows[r][column[r]]
struct pick_args {
  const float* data = nullptr;  // [rows, cols]
  std::int64_t rows = 0, cols = 0;
  const std::int32_t* column = nullptr;  // [rows]
  float* out = nullptr;                  // [rows]
};

// All that the engine asks of its kernels. Pointers, those inside argument structs included, are the backend's memory,
// so model and server run unchanged on a CPU and on a GPU. Calls are enqueued in order; failures are exceptions.
class backend {
 public:
  virtual ~backend() = default;
  virtual std::string name() const = 0;    // of the arm: "bi", "baseline", ...
  virtual std::string device() const = 0;  // "NVIDIA H100 80GB HBM3", "CPU reference"

  virtual void* allocate(std::size_t bytes) = 0;  // zeroed, aligned to 256
  virtual void release(void* p) = 0;
  virtual void upload(void* to, const void* from, std::size_t bytes) = 0;
  virtual void download(void* to, const void* from, std::size_t bytes) = 0;  // after all calls before it

  virtual void random_weights(bf16* out, std::int64_t count, std::uint64_t seed, std::uint64_t tensor, float scale) = 0;
  virtual void embedding(const bi::embedding_args<bf16>& a) = 0;
  virtual void rms_norm(const bi::rms_norm_args<bf16>& a) = 0;
  virtual void gemm(const bi::gemm_limits& l, const gemm_args& a) = 0;
  virtual void gemm_silu_gate(const bi::gemm_limits& l, const gemm_silu_gate_args& a) = 0;
  virtual void gemm_f32_out(const bi::gemm_limits& l, const gemm_f32_out_args& a) = 0;
  virtual void kv_append(const bi::kv_append_args<bf16>& a) = 0;
  virtual void attention(const bi::attention_args<bf16>& a) = 0;
  virtual void sample(const bi::sample_args<float>& a) = 0;
  virtual void log_softmax(const bi::softmax_args<float>& a) = 0;
  virtual void pick(const pick_args& a) = 0;
  virtual void digest_rows(const bi::digest_rows_args& a) = 0;
  virtual void digest_kv(const bi::digest_kv_args<bf16>& a) = 0;

  // Enqueues what `calls` calls. With a key other than 0 the calls are the same, with the same arguments, each time: a GPU
  // records them as a graph at the first time and replays it from then on.
  virtual void run(std::uint64_t key, const std::function<void()>& calls) = 0;
  virtual void forget_runs() = 0;  // what they read or write goes away
};

// Operations whose order of addition follows the batch, as other engines' does.
struct batch_dependent {
  bool norm = false, gemm = false, attention = false;
  bool any() const { return norm || gemm || attention; }
};
inline std::string arm_name(const batch_dependent& d) {
  if (!d.any()) return "bi";
  if (d.norm && d.gemm && d.attention) return "baseline";
  return std::string("bi but for") + (d.norm ? " norm" : "") + (d.gemm ? " gemm" : "") +
         (d.attention ? " attention" : "");
}

// bi's CPU reference, but for the operations named. threads = 0: as many as the machine has.
std::unique_ptr<backend> make_reference(int threads, const batch_dependent& d = {});
#ifdef ENGINE_GPU
std::unique_ptr<backend> make_gpu(const batch_dependent& d = {});
bool gpu_is_here();
#endif

inline void require(const bi::status& s) {
  if (!s) throw std::runtime_error(bi::describe(s));
}

// An array in a backend's memory, which must not outlive it.
template <class T>
class buffer {
 public:
  buffer() = default;
  buffer(backend& b, std::int64_t count)
      : backend_(&b),
        size_(static_cast<std::size_t>(count)),
        data_(static_cast<T*>(b.allocate(size_ * sizeof(T))), [&b](T* p) { b.release(p); }) {}

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

 private:
  backend* backend_ = nullptr;
  std::size_t size_ = 0;
  std::shared_ptr<T> data_;
};

}  // namespace engine
