// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include "bi/attention.hpp"
#include "bi/kernel/attention_prefill.cuh"
#include "bi/runtime.hpp"
#include "bi/schedule/attention.hpp"

// The launcher of bi/kernel/attention_prefill.cuh.

BI_NAMESPACE_BEGIN
namespace launch_detail {

// Whether there is such a kernel.
template <int HeadDim>
inline constexpr bool has_prefill_kernel = HeadDim <= 128;

// Whether it takes the call: it copies 16 bytes at once, from places of which it has 32 bits.
template <class T>
bool prefill_takes(const kernel::attention_params<T>& p, const attention_args<T>& a, int tile_rows) {
  constexpr std::int64_t most_bytes = std::int64_t{1} << 36;
  const std::int64_t rows = a.rows * p.batch.group;  // both below 2^31
  const std::int64_t q_bytes = ((a.rows - 1) * p.q_token_stride + a.limits.heads_q * p.q_head_stride) * 2;
  const bool aligned = p.q_aligned && p.k_aligned && p.v_aligned && p.out_aligned;
  return aligned && cache_bytes(a.cache, k_strides(a.cache)) < most_bytes &&
         cache_bytes(a.cache, v_strides(a.cache)) < most_bytes && q_bytes < most_bytes &&
         (rows / tile_rows + a.requests + 1) < (std::int64_t{1} << 31) / p.heads_kv;
}

// The tokens of a box of the cache's tensor maps: what a tile of 64 view indices has in one page. 0: it has no such
// boxes, or they are too small to pay.
inline int prefill_box(const device::view_source& view) {
  const std::int64_t size = view.pages.size;
  const bool fits = size % 64 == 0 || size == 32 || size == 16 || size == 8;
  return view.form != device::view_form::runs && view.num_pages > 0 && fits ? static_cast<int>(size < 64 ? size : 64)
                                                                            : 0;
}

// A tensor map of one head's tokens of one page, by head and page.
template <int HeadDim, class T>
status encode_prefill_map(device::tensor_map& map, const kernel::attention_params<T>& p, const T* base,
                          std::int64_t token, std::int64_t head, std::int64_t page, int box) {
  const std::int64_t size = p.view.pages.size, pages = p.view.num_pages;
  return encode_tensor_map<4>("attention", &map, element_of<T>, base, {HeadDim, size, p.heads_kv, pages},
                              {token, p.heads_kv > 1 ? head : token, pages > 1 ? page : token},
                              {device::tile_width, box, 1, 1});
}

template <class Contract, int HeadDim, class T>
status attention_prefill(const attention_args<T>& a, kernel::attention_params<T> p, std::int64_t blocks,
                         cuda_stream stream) {
  using shape = kernel::attention_prefill_shape<HeadDim>;
  checker c("attention");
  const bool takes = prefill_takes(p, a, shape::rows);
  c.supported("schedule.kernel", 2, takes, "mma or split unless every head starts at a multiple of 16 bytes");
  if (!c.ok()) return c.result();
  p.batch.tile_rows = shape::rows;
  p.batch.one_tile_each = false;
  kernel::attention_prefill_params<T> prefill = {};
  prefill.a = p;
  // A tile less than attention_batch::slots() where the rows fill the last one: the number of row tiles, exactly, of
  // one request.
  kernel::attention_prefill_list& items = prefill.items;
  items.slots = static_cast<std::uint32_t>((a.rows * p.batch.group - 1) / shape::rows + a.requests);
  items.heads = static_cast<std::uint32_t>(p.heads_kv);
  items.items = items.slots * items.heads;
  constexpr std::int64_t unit = 16 / sizeof(T);
  prefill.q_token = static_cast<std::uint32_t>(p.q_token_stride / unit);
  prefill.q_head = static_cast<std::uint32_t>(p.q_head_stride / unit);
  prefill.k_page = static_cast<std::uint32_t>(p.k_page_stride / unit);
  prefill.k_token = static_cast<std::uint32_t>(p.k_token_stride / unit);
  prefill.v_page = static_cast<std::uint32_t>(p.v_page_stride / unit);
  prefill.v_token = static_cast<std::uint32_t>(p.v_token_stride / unit);
  prefill.box = prefill_box(p.view);
  if (prefill.box > 0) {
    status st =
        encode_prefill_map<HeadDim>(prefill.k, p, p.k, p.k_token_stride, p.k_head_stride, p.k_page_stride, prefill.box);
    if (st) {
      st = encode_prefill_map<HeadDim>(prefill.v, p, p.v, p.v_token_stride, p.v_head_stride, p.v_page_stride,
                                       prefill.box);
    }
    if (!st && st.cuda_error != cudaErrorInvalidValue) return st;
    if (!st) prefill.box = 0;  // strides that the driver doesn't take
  }
  launch_shape launch_as;
  launch_as.grid.x = static_cast<unsigned>(blocks);
  launch_as.block.x = shape::threads;
  launch_as.shared_bytes = shape::bytes;
  return launch("attention", kernel::attention_prefill_kernel<Contract, T, HeadDim>, launch_as, prefill, stream);
}

// The thread blocks that run at once; 0 if this program has no code for it that this device runs.
template <class Contract, int HeadDim, class T>
status find_prefill_blocks(std::int64_t& blocks) {
  blocks = 0;
  int major = 0, processors = 0;
  status st = current_device_attribute("attention", "cudaDeviceGetAttribute(ComputeCapabilityMajor)",
                                       cudaDevAttrComputeCapabilityMajor, major);
  if (!st || major != 9) return st;
  cudaFuncAttributes attributes = {};
  st = find_kernel_attributes("attention", kernel::attention_prefill_kernel<Contract, T, HeadDim>, attributes);
  if (!st || attributes.sharedSizeBytes == 0) return st;  // built for another target than sm_90a, its body is empty
  st = current_device_attribute("attention", "cudaDeviceGetAttribute(MultiProcessorCount)",
                                cudaDevAttrMultiProcessorCount, processors);
  blocks = processors;  // each takes a whole one
  return st;
}

}  // namespace launch_detail
BI_NAMESPACE_END
