// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/kernel/sample.cuh"
#include "bi/runtime.hpp"
#include "bi/sample.hpp"
#include "bi/schedule/rows.hpp"

// Definition of the launcher that bi/sample.hpp declares. Instantiate each that a program uses in one .cu file:
//   BI_INSTANTIATE_SAMPLE(bi::bf16, bi::contract::sample_draft);

#define BI_INSTANTIATE_SAMPLE(T, Contract) \
  template ::bi::status(::bi::sample<T, Contract>)(const ::bi::sample_args<T>&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

template <class T, class Contract>
status sample(const sample_args<T>& a, cuda_stream stream) {
  const status st = check(a);
  if (!st || a.rows == 0) return st;
  kernel::sample_kernel_params<T, sample_params> p = {};
  p.logits = a.logits;
  p.logits_stride = a.logits_stride == 0 ? a.vocab : a.logits_stride;
  p.rows = a.rows;
  p.vocab = static_cast<int>(a.vocab);
  p.settings = a.params;
  p.token = a.token;
  p.logprob = a.logprob;
  p.flags = a.flags;
  p.saw_nan = sample_saw_nan;
  p.no_candidate = sample_no_candidate;
  p.bad_params = sample_bad_params;
  p.aligned = device::vector_aligned(a.logits, p.logits_stride);
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(a.rows < schedule::max_row_blocks ? a.rows : schedule::max_row_blocks);
  shape.block.x = static_cast<unsigned>(kernel::sample_threads);
  return launch("sample", kernel::sample_kernel<Contract, T, sample_params>, shape, p, stream);
}

BI_NAMESPACE_END
