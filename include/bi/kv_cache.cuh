// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/kernel/kv_append.cuh"
#include "bi/kernel/kv_append_any.cuh"
#include "bi/kernel/kv_append_once.cuh"
#include "bi/kv_cache.hpp"
#include "bi/launch_kv_append.cuh"
#include "bi/runtime.hpp"
#include "bi/schedule/flat.hpp"

// Definition of the launcher that bi/kv_cache.hpp declares. Instantiate each that a program uses in one .cu file:
//   BI_INSTANTIATE_KV_APPEND(bi::bf16, bi::contract::rms_norm_draft, bi::contract::rope_draft);

#define BI_INSTANTIATE_KV_APPEND(T, Norm, Rope) \
  template ::bi::status(::bi::kv_append<T, Norm, Rope>)(const ::bi::kv_append_args<T>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

// With a given schedule; the arguments have passed check() and leave something to do.
template <class Norm, class Rope, class T>
status launch_kv_append(const kv_append_args<T>& a, const schedule::shared_schedule& s, cuda_stream stream) {
  kernel::kv_append_params<T> p = make_kv_append_params(a);
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(s.blocks < p.tokens ? s.blocks : p.tokens);
  shape.block.x = static_cast<unsigned>(s.threads);
  shape.programmatic = s.programmatic;
  const bool digest = p.digest != nullptr, one = s.blocks >= p.tokens;
  set_lanes(p, kv_append_lanes(p, device::vector_size));
  const bool divided = s.parts > 1 && p.heads_q > 0;
  const std::int64_t at_once = p.lanes == 0 ? 0 : s.threads / p.lanes, cached = 2 * p.heads;
  const auto fits = [&](std::int64_t groups) {
    return one && (divided ? groups >= cached && groups * (s.parts - 1) >= p.heads_q : groups >= cached + p.heads_q);
  };
  if (fits(at_once)) {
    if (divided) shape.grid.y = static_cast<unsigned>(s.parts);
    const auto kernel = digest ? kernel::kv_append_once_kernel<Norm, Rope, T, true>
                               : kernel::kv_append_once_kernel<Norm, Rope, T, false>;
    return launch("kv_append", kernel, shape, p, stream);
  }
  set_lanes(p, kv_append_lanes(p, 2 * device::vector_size));
  if (p.lanes == 0) {
    shape.shared_bytes = digest ? 8 * static_cast<std::size_t>(s.threads) : 0;
    return launch("kv_append", kernel::kv_append_kernel<Norm, Rope, T>, shape, p, stream);
  }
  const bool parts = divided && fits(s.threads / p.lanes);
  if (parts) shape.grid.y = static_cast<unsigned>(s.parts);
  const kernel::kv_append_work work = kv_append_work_of(p, s.blocks, s.threads, parts);
  shape.shared_bytes = static_cast<std::size_t>(kv_append_terms_bytes(p, work, s.threads));
  return launch("kv_append", kv_append_lanes_kernel_of<Norm, Rope, T>(digest, work), shape, p, stream);
}

}  // namespace launch_detail

template <class T, class Norm, class Rope>
status kv_append(const kv_append_args<T>& a, cuda_stream stream) {
  status st = check(a);
  if (!st || a.tokens == 0) return st;
  bool hopper = false;
  st = find_hopper_code("kv_append", kernel::kv_append_kernel<Norm, Rope, T>, hopper);
  if (!st) return st;
  const auto p = launch_detail::make_kv_append_params(a);
  const std::int64_t lanes = launch_detail::kv_append_lanes(p, device::vector_size);
  auto s = schedule::pick_divided_schedule(p.tokens, lanes * 2 * p.heads, lanes * p.heads_q, hopper);
  if (s.blocks == 0) {
    const std::int64_t few_lanes = launch_detail::kv_append_lanes(p, 2 * device::vector_size);
    const std::int64_t threads = few_lanes != 0 ? few_lanes * (p.heads_q + 2 * p.heads) : 32 * (p.heads_q + p.heads);
    if (p.heads_q > 0 && few_lanes * p.heads % 32 == 0 && !schedule::has_room_at_once(p.tokens, threads)) {
      s = schedule::pick_divided_schedule(p.tokens, few_lanes * 2 * p.heads, few_lanes * p.heads_q, hopper);
    }
    if (s.blocks == 0) s = schedule::pick_shared_schedule(p.tokens, threads, hopper);
  }
  if (p.digest != nullptr) s = schedule::fill_processors(s);  // few tokens without digests would take 2 to 4% more
  return launch_detail::launch_kv_append<Norm, Rope>(a, s, stream);
}

BI_NAMESPACE_END
