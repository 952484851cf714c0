// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/kernel/sample.cuh"
#include "bi/kernel/verify.cuh"
#include "bi/launch_flat.cuh"
#include "bi/runtime.hpp"
#include "bi/sample.hpp"
#include "bi/schedule/flat.hpp"
#include "bi/schedule/sample.hpp"

// Definitions of the launchers that bi/sample.hpp declares. Instantiate each that a program uses in one .cu file:
//   BI_INSTANTIATE_SAMPLE(bi::bf16, bi::contract::sample_draft);
//   BI_INSTANTIATE_VERIFY(bi::bf16, bi::contract::sample_draft);
//
// A request that `start`, which only the device can see, puts outside the rows accepts 0 drafts, and nothing of it is read.

#define BI_INSTANTIATE_SAMPLE(T, Contract) \
  template ::bi::status(::bi::sample<T, Contract>)(const ::bi::sample_args<T>&, ::bi::cuda_stream)
#define BI_INSTANTIATE_VERIFY(T, Contract) \
  template ::bi::status(::bi::verify<T, Contract>)(const ::bi::verify_args<T>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

namespace launch_detail {

// With a given schedule each; the arguments have passed check().
template <class Contract, class T>
status launch_sample(const char* operation, const sample_args<T>& a, const schedule::sample_schedule& s,
                     cuda_stream stream) {
  if (a.rows == 0) return {};
  kernel::sample_kernel_params<T, sample_params> p = {};
  p.logits = a.logits;
  p.logits_stride = a.logits_stride == 0 ? a.vocab : a.logits_stride;
  p.rows = a.rows;
  p.vocab = static_cast<int>(a.vocab);
  p.clusters = s.blocks < a.rows ? s.blocks : a.rows;
  p.cluster = s.cluster;
  p.part = static_cast<int>(schedule::sample_part(s, a.vocab, a.logprob != nullptr));
  p.settings = a.params;
  p.token = a.token;
  p.logprob = a.logprob;
  p.flags = a.flags;
  p.saw_nan = sample_saw_nan;
  p.no_candidate = sample_no_candidate;
  p.bad_params = sample_bad_params;
  p.aligned = device::vector_aligned(a.logits, a.rows == 1 ? 0 : p.logits_stride);  // one row has no next
  p.programmatic = s.programmatic;
  p.slots = p.aligned ? s.slots : 0;
  p.once = s.once;
  p.draws_all = a.logprob == nullptr && kernel::draws_all<T>(p.part, p.slots, p.cluster);
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(p.clusters * s.cluster);
  shape.block.x = static_cast<unsigned>(kernel::sample_threads);
  shape.cluster = static_cast<unsigned>(s.cluster);
  shape.shared_bytes = static_cast<std::size_t>(kernel::sample_shared_bytes(p.slots));
  shape.programmatic = s.programmatic;
  return launch(operation, kernel::sample_kernel<Contract, T, sample_params>, shape, p, stream);
}

// `draw` for the rows, `accept` for the requests.
template <class Contract, class T>
status launch_verify(const verify_args<T>& a, const schedule::sample_schedule& draw,
                     const schedule::flat_schedule& accept, cuda_stream stream) {
  const status st = launch_sample<Contract>("verify", a.sample, draw, stream);
  if (!st || a.requests == 0) return st;
  kernel::verify_params p = {};
  p.token = a.sample.token;
  p.draft = a.draft;
  p.start = a.start;
  p.accepted = a.accepted;
  p.rows = a.sample.rows;
  p.requests = a.requests;
  return launch_flat("verify", kernel::verify_kernel<Contract>, p, accept, stream);
}

}  // namespace launch_detail

template <class T, class Contract>
status sample(const sample_args<T>& a, cuda_stream stream) {
  status st = check(a);
  if (!st || a.rows == 0) return st;
  bool clusters = false;
  st = find_hopper_code("sample", kernel::sample_kernel<Contract, T, sample_params>, clusters);
  if (!st) return st;
  const auto draw = schedule::pick_sample_schedule(a.rows, a.vocab, static_cast<int>(sizeof(T)), clusters);
  return launch_detail::launch_sample<Contract>("sample", a, draw, stream);
}

template <class T, class Contract>
status verify(const verify_args<T>& a, cuda_stream stream) {
  status st = check(a);
  bool clusters = false;
  if (st && a.sample.rows > 0) {
    st = find_hopper_code("verify", kernel::sample_kernel<Contract, T, sample_params>, clusters);
  }
  if (!st) return st;
  const auto draw =
      schedule::pick_sample_schedule(a.sample.rows, a.sample.vocab, static_cast<int>(sizeof(T)), clusters);
  return launch_detail::launch_verify<Contract>(a, draw, schedule::pick_flat_schedule(a.requests, 32), stream);
}

BI_NAMESPACE_END
