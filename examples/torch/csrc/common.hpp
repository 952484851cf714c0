// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <array>
#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bi/dtype.hpp"
#include "bi/status.hpp"
#include "small_kernels.hpp"

// What the operations share: sentences for errors, the stream, memory, and views of tensors as rows or matrices.

namespace bi_torch {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using sizes_t = std::vector<std::int64_t>;

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}
template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) fail(parts...);
}
inline void require_ok(const bi::status& st) {
  if (!st) fail(bi::describe(st));
}

inline const char* name_of(ScalarType t) { return torch::headeronly::toString(t); }

inline std::string shape_of(const Tensor& x) {
  std::string out = "[";
  for (std::int64_t i = 0; i < x.dim(); ++i) out += (i > 0 ? ", " : "") + std::to_string(x.size(i));
  return out + "]";
}

// The tensors of one call are on one GPU, whose current stream is used and which is the current device for as long as
// this lives; or all on the CPU, where the library's reference computes the same bits, slowly.
class place {
 public:
  place(const char* operation, const char* name, const Tensor& x) : operation_(operation), is_cpu_(x.is_cpu()) {
    if (is_cpu_) return;
    require(x.is_cuda(), operation, ": ", name, " must be on a GPU or on the CPU");
    index_ = x.get_device_index();
    guard_.emplace(index_);
    require_ok(set_device(index_));
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &stream));
    stream_ = static_cast<bi::cuda_stream>(stream);
  }

  bool is_cpu() const { return is_cpu_; }
  bi::cuda_stream stream() const { return stream_; }

  void require_here(const char* name, const Tensor& x) const {
    const bool here = is_cpu_ ? x.is_cpu() : x.is_cuda() && x.get_device_index() == index_;
    require(here, operation_, ": ", name, " must be on the same device as the first argument");
  }

  template <class Args>
  void run_each(const Args& args) const {
    if (is_cpu_) {
      for (std::int64_t i = 0; i < items(args); ++i) item(args, i);
    } else {
      require_ok(run_items(args, stream_));
    }
  }

 private:
  const char* operation_;
  bool is_cpu_;
  int index_ = 0;
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
  bi::cuda_stream stream_ = nullptr;
};

inline Tensor empty(const Tensor& like, const sizes_t& sizes, ScalarType dtype) {
  return torch::stable::new_empty(like, sizes, dtype);
}

// Memory of PyTorch's allocator. It may be let go while the kernel that uses it is still to run: whoever gets it next
// on this stream runs after.
class scratch {
 public:
  scratch() = default;
  scratch(const Tensor& like, std::size_t bytes) {
    if (bytes > 0) memory_ = empty(like, {static_cast<std::int64_t>(bytes)}, ScalarType::Byte), bytes_ = bytes;
  }
  bi::workspace space() const { return bytes_ > 0 ? bi::workspace{data(), bytes_} : bi::workspace{}; }
  void* data() const { return bytes_ > 0 ? memory_->mutable_data_ptr() : nullptr; }

 private:
  std::optional<Tensor> memory_;
  std::size_t bytes_ = 0;
};

inline bool is_supported(ScalarType t) {
  return t == ScalarType::BFloat16 || t == ScalarType::Half || t == ScalarType::Float;
}
inline void require_supported(const char* operation, const char* name, const Tensor& x) {
  require(is_supported(x.scalar_type()), operation, ": ", name, " is ", name_of(x.scalar_type()),
          "; supported: BFloat16, Half, Float");
}
inline void require_dtype(const char* operation, const char* name, const Tensor& x, ScalarType t) {
  require(x.scalar_type() == t, operation, ": ", name, " is ", name_of(x.scalar_type()), " and must be ", name_of(t));
}

template <class T>
struct type_tag {
  using type = T;
};
// f(type_tag<T>{}) for the library's type of these elements, which are supported.
template <class F>
auto with_type(ScalarType t, F f) {
  if (t == ScalarType::BFloat16) return f(type_tag<bi::bf16>{});
  if (t == ScalarType::Half) return f(type_tag<bi::fp16>{});
  return f(type_tag<float>{});
}
template <class F>
auto with_half_type(ScalarType t, F f) {
  return t == ScalarType::BFloat16 ? f(type_tag<bi::bf16>{}) : f(type_tag<bi::fp16>{});
}

template <class T>
const T* pointer(const Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <class T>
T* mutable_pointer(const Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

inline std::int64_t wrap_dim(const char* operation, std::int64_t dim, std::int64_t rank) {
  const std::int64_t n = rank > 0 ? rank : 1;
  require(-n <= dim && dim < n, operation, ": dim = ", dim, " must be at least ", -n, " and below ", n);
  return dim < 0 ? dim + n : dim;
}

inline Tensor permuted(const Tensor& x, const sizes_t& order) {
  std::array<StableIValue, 2> stack{torch::stable::detail::from(x),
                                    torch::stable::detail::from(torch::headeronly::IntHeaderOnlyArrayRef(order))};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::permute", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// The last `inner` dimensions of x as rows, in order, copied where strides do not allow that. Rows are `stride`
// elements apart, which is at least cols.
struct row_view {
  Tensor x;
  std::int64_t rows = 1, cols = 1, stride = 0;

  row_view(const Tensor& given, std::int64_t inner) : x(given) {
    const std::int64_t outer = x.dim() - inner;
    for (std::int64_t i = 0; i < outer; ++i) rows *= x.size(i);
    for (std::int64_t i = outer; i < x.dim(); ++i) cols *= x.size(i);
    stride = cols;
    if (rows == 0 || cols == 0 || x.is_contiguous()) return;
    std::int64_t step = 1;  // from one element to the next, in a row
    bool fits = true;
    const auto extend = [&](std::int64_t i) {
      if (x.size(i) == 1) return;
      fits = fits && x.stride(i) == step;
      step *= x.size(i);
    };
    for (std::int64_t i = x.dim() - 1; i >= outer; --i) extend(i);
    if (rows > 1) {
      std::int64_t last = outer - 1;
      while (x.size(last) == 1) --last;
      step = x.stride(last);
      fits = fits && step >= cols;
      if (fits) stride = step;
      for (std::int64_t i = last; i >= 0; --i) extend(i);
    }
    if (!fits) x = torch::stable::contiguous(x), stride = cols;
  }
};

}  // namespace bi_torch
