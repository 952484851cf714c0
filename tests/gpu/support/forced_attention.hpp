// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <vector>

#include "bi/attention.hpp"
#include "bi/schedule/attention.hpp"
#include "golden/cases_attention.hpp"
#include "gpu/support/forced_backend.hpp"
#include "gpu/support/gpu_backend.hpp"

// The launcher that takes a schedule, instantiated in tests/gpu/instantiate_attention.cu.
BI_NAMESPACE_BEGIN
namespace launch_detail {
template <class Contract, int HeadDim, class T>
status launch_attention(const attention_args<T>&, const schedule::attention_schedule&, workspace, cuda_stream);
}
BI_NAMESPACE_END

// For forced_backend.
namespace test {
template <class T, int HeadDim, class Contract>
bi::status launch_with(const attention_op<T, HeadDim, Contract>&, const bi::attention_args<T>& a,
                       const bi::schedule::attention_schedule& s, bi::cuda_stream stream) {
  // A poisoned workspace with a guard zone after it.
  constexpr std::size_t zone = 1024;
  bi::workspace ws;
  ws.bytes = bi::attention<T, HeadDim, Contract>::workspace_bytes(a.limits);
  BI_REQUIRE_CUDA(cudaMallocAsync(&ws.data, ws.bytes + zone, stream));
  BI_REQUIRE_CUDA(cudaMemsetAsync(ws.data, poison_byte, ws.bytes + zone, stream));
  const bi::status st = bi::launch_detail::launch_attention<Contract, HeadDim>(a, s, ws, stream);
  std::vector<unsigned char> after(zone);
  BI_REQUIRE_CUDA(
      cudaMemcpyAsync(after.data(), static_cast<char*>(ws.data) + ws.bytes, zone, cudaMemcpyDeviceToHost, stream));
  BI_REQUIRE_CUDA(cudaFreeAsync(ws.data, stream));
  BI_REQUIRE_CUDA(cudaStreamSynchronize(stream));
  for (const unsigned char byte : after)
    require_cuda(byte == poison_byte ? cudaSuccess : cudaErrorIllegalAddress, "guard");
  return st;
}
template <class T>
std::string difference(const attention_result<T>& a, const attention_result<T>& b) {
  const std::string of_out = difference(a.out, b.out);
  return of_out.empty() ? difference(a.lse, b.lse) : of_out;
}
}  // namespace test
