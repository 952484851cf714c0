// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bi/status.hpp"
#include "support/data.hpp"

// A case is written once, as a template over a backend, and run on the CPU reference and on the GPU. A backend owns
// buffers and runs operations over them:
//
//   const T* x = b.input(values);            a buffer that holds these values
//   T* y = b.output<T>(n);                   a poisoned buffer of n elements
//   b.run(rms_norm_op<Contract>{}, args);    an operation: op.reference(args), or op.gpu(args, workspace, stream)
//   std::vector<T> r = b.read(y);            the whole buffer that starts at y
//
// An op is an empty struct with two static templates and, where the operation has a workspace, workspace_bytes(args):
//   status reference(const Args&);  status gpu(const Args&, workspace, cuda_stream);
namespace test {

class host_backend {
 public:
  static constexpr bool is_gpu = false;

  template <class T>
  T* input(const std::vector<T>& values) {
    T* p = allocate<T>(values.size());
    if (!values.empty()) std::memcpy(static_cast<void*>(p), values.data(), values.size() * sizeof(T));
    return p;
  }
  template <class T>
  T* output(std::int64_t n) {
    T* p = allocate<T>(static_cast<std::size_t>(n));
    if (n > 0) std::memset(static_cast<void*>(p), poison_byte, static_cast<std::size_t>(n) * sizeof(T));
    return p;
  }
  template <class T>
  std::vector<T> read(const T* p) {
    for (const auto& b : buffers_) {
      if (b.first.get() != static_cast<const void*>(p)) continue;
      std::vector<T> out(b.second / sizeof(T));
      if (!out.empty()) std::memcpy(static_cast<void*>(out.data()), p, out.size() * sizeof(T));
      return out;
    }
    throw std::logic_error("read() takes the start of a buffer of this backend");
  }
  template <class Op, class Args>
  void run(const Op&, const Args& args) {
    const bi::status st = Op::reference(args);
    if (!st) throw std::runtime_error(bi::describe(st));
  }
  void clear() { buffers_.clear(); }

 private:
  struct release {
    void operator()(void* p) const { std::free(p); }
  };
  template <class T>
  T* allocate(std::size_t n) {
    const std::size_t bytes = n * sizeof(T);
    // At least one byte, so that every buffer has an address of its own; aligned as device memory is.
    void* p = std::aligned_alloc(256, (bytes / 256 + 1) * 256);
    if (p == nullptr) throw std::bad_alloc();
    buffers_.emplace_back(std::unique_ptr<void, release>(p), bytes);
    return static_cast<T*>(p);
  }
  std::vector<std::pair<std::unique_ptr<void, release>, std::size_t>> buffers_;
};

// A digest of bytes for golden files; any change of one bit shows.
inline std::uint64_t digest_bytes(const void* data, std::size_t bytes, std::uint64_t seed = 0) {
  std::uint64_t h = bi::mix64(seed + bytes);
  const auto* p = static_cast<const unsigned char*>(data);
  for (std::size_t i = 0; i < bytes; i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, p + i, bytes - i < 8 ? bytes - i : 8);
    h = bi::mix64(h ^ word) + 0x9E3779B97F4A7C15u;
  }
  return h;
}
template <class T>
std::uint64_t digest_of(const std::vector<T>& v, std::uint64_t seed = 0) {
  return digest_bytes(v.data(), v.size() * sizeof(T), seed);
}

// One line of a golden file.
struct golden_entry {
  std::string name;            // "rms_norm/rms_norm_draft/bf16/rows=7,cols=1000/hostile"
  std::uint64_t contract = 0;  // its id
  std::uint64_t digest = 0;    // of the output bytes
  std::int64_t outputs = 0;    // elements under the digest
};

}  // namespace test
