// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/gemm.hpp"
#include "bi/kernel/gemm_f32.cuh"
#include "bi/kernel/gemm_finish.cuh"
#include "bi/launch_gemm.cuh"
#include "bi/runtime.hpp"
#include "bi/schedule/gemm.hpp"

// Definitions of what bi/gemm.hpp declares. Instantiate each type that a program uses in one .cu file:
//   BI_INSTANTIATE_GEMM(bi::gemm<bi::bf16, bi::epilogue::bias>);

#define BI_INSTANTIATE_GEMM(...) template class __VA_ARGS__
#define BI_INSTANTIATE_GEMM_FINISH(T, Epilogue, Out) \
  template ::bi::status(::bi::gemm_finish)(const ::bi::gemm_finish_args<T, Epilogue, Out>&, ::bi::cuda_stream)
#define BI_INSTANTIATE_GEMM_F32(Contract) \
  template ::bi::status(::bi::gemm_f32<Contract>)(const ::bi::gemm_f32_args&, ::bi::cuda_stream)

BI_NAMESPACE_BEGIN

template <class T, class Epilogue, class Out>
std::size_t gemm<T, Epilogue, Out>::workspace_bytes(const gemm_limits&) {
  return 0;
}

namespace launch_detail {

// Arguments that check() has passed, with every stride filled in.
template <class T, class Epilogue, class Out>
kernel::gemm_params<T, Out> make_gemm_params(const gemm_limits& l, const gemm_args<T, Epilogue, Out>& a) {
  const bool kn = l.layout == weight_layout::kn;
  const gemm_detail::stack sa{a.m, l.k, a.lda, a.batch, a.a_batch_stride};
  const gemm_detail::stack sb{kn ? l.k : l.n, kn ? l.n : l.k, a.ldb, a.batch, a.b_batch_stride};
  const gemm_detail::stack sr{a.m, l.n, a.ldr, a.batch, a.residual_batch_stride};
  const gemm_detail::stack sd{a.m, Epilogue::has_gate ? l.n / 2 : l.n, a.ldd, a.batch, a.d_batch_stride};
  kernel::gemm_params<T, Out> p = {};
  p.a = a.a;
  p.b = a.b;
  if (Epilogue::has_bias) p.bias = a.bias;
  if (Epilogue::has_residual) p.residual = a.residual;
  p.d = a.d;
  p.lda = sa.row_stride();
  p.ldb = sb.row_stride();
  p.ldr = sr.row_stride();
  p.ldd = sd.row_stride();
  p.a_batch_stride = sa.stride();
  p.b_batch_stride = sb.stride();
  p.residual_batch_stride = sr.stride();
  p.d_batch_stride = sd.stride();
  p.m = a.m;
  p.n = l.n;
  p.k = l.k;
  p.batch = a.batch;
  p.slices = l.slices;
  p.alpha = a.alpha;
  p.kn = kn;
  p.a_aligned = device::vector_aligned(a.a, p.lda) && (a.batch == 1 || device::vector_aligned(a.a, p.a_batch_stride));
  p.b_aligned = device::vector_aligned(a.b, p.ldb) && (a.batch == 1 || device::vector_aligned(a.b, p.b_batch_stride));
  p.residual_aligned = device::vector_aligned(p.residual, p.ldr) &&
                       (a.batch == 1 || device::vector_aligned(p.residual, p.residual_batch_stride));
  p.d_pairs = reinterpret_cast<std::uintptr_t>(a.d) % (2 * sizeof(Out)) == 0 && p.ldd % 2 == 0 &&
              (a.batch == 1 || p.d_batch_stride % 2 == 0);
  return p;
}

template <class T, class Out>
schedule::gemm_problem gemm_problem_of(const kernel::gemm_params<T, Out>& p, bool kn) {
  schedule::gemm_problem problem;
  problem.m = p.m, problem.n = p.n, problem.k = p.k, problem.batch = p.batch;
  problem.slices = p.slices;
  problem.kn = kn;
  constexpr std::int64_t longest = std::int64_t{1} << 38;  // a tensor map's strides are below 2^40 bytes
  problem.aligned = p.a_aligned && p.b_aligned && p.lda < longest && p.ldb < longest && p.a_batch_stride < longest &&
                    p.b_batch_stride < longest;
  return problem;
}

template <class Epilogue, class T, class Out>
status pick_gemm(const kernel::gemm_params<T, Out>& p, bool kn, schedule::gemm_schedule& s) {
  schedule::gemm_device on;
  if (const status st = find_gemm_device<T, Epilogue::has_gate, Out>(on); !st) return st;
  s = schedule::pick_gemm_schedule(gemm_problem_of(p, kn), on);
  return {};
}

template <class Epilogue, class T, class Out>
status launch_gemm(const kernel::gemm_params<T, Out>& p, bool kn, const schedule::gemm_schedule& s, bool b_is_constant,
                   cuda_stream stream) {
  return kn ? gemm_with<T, Epilogue::has_gate, Out, true>(p, s, b_is_constant, stream)
            : gemm_with<T, Epilogue::has_gate, Out, false>(p, s, b_is_constant, stream);
}

}  // namespace launch_detail

template <class T, class Epilogue, class Out>
status gemm<T, Epilogue, Out>::pick(const args& a, schedule::gemm_schedule& s) const {
  if (!status_) return status_;
  if (const status st = check(limits_, a); !st) return st;
  const auto p = launch_detail::make_gemm_params(limits_, a);
  return launch_detail::pick_gemm<Epilogue>(p, limits_.layout == weight_layout::kn, s);
}

template <class T, class Epilogue, class Out>
status gemm<T, Epilogue, Out>::operator()(const args& a, workspace, cuda_stream stream) const {
  if (!status_) return status_;
  if (const status st = check(limits_, a); !st || a.m == 0 || limits_.n == 0 || a.batch == 0) return st;
  const bool kn = limits_.layout == weight_layout::kn;
  const auto p = launch_detail::make_gemm_params(limits_, a);
  schedule::gemm_schedule s;
  if (const status st = launch_detail::pick_gemm<Epilogue>(p, kn, s); !st) return st;
  return launch_detail::launch_gemm<Epilogue>(p, kn, s, a.b_is_constant, stream);
}

template <class T, class Epilogue, class Out>
status gemm<T, Epilogue, Out>::launch_with(const schedule::gemm_schedule& s, const args& a, workspace,
                                           cuda_stream stream) const {
  if (!status_) return status_;
  if (const status st = check(limits_, a); !st || a.m == 0 || limits_.n == 0 || a.batch == 0) return st;
  const bool kn = limits_.layout == weight_layout::kn;
  const auto p = launch_detail::make_gemm_params(limits_, a);
  if (!schedule::gemm_is_legal(s, launch_detail::gemm_problem_of(p, kn))) {
    checker c("gemm");
    c.supported("schedule.block_m", s.block_m, false, "a schedule that is legal for these arguments");
    return c.result();
  }
  return launch_detail::launch_gemm<Epilogue>(p, kn, s, a.b_is_constant, stream);
}

template <class T, class Epilogue, class Out>
status gemm_finish(const gemm_finish_args<T, Epilogue, Out>& a, cuda_stream stream) {
  if (const status st = check(a); !st || a.m == 0 || a.n == 0) return st;
  const std::int64_t cols = Epilogue::has_gate ? a.n / 2 : a.n;
  kernel::gemm_finish_params<T, Out> p = {};
  p.partial = a.partial;
  p.bias = a.bias;
  p.residual = a.residual;
  p.d = a.d;
  p.ldp = a.ldp == 0 ? a.n : a.ldp;
  p.partial_rank_stride = a.partial_rank_stride == 0 ? a.m * p.ldp : a.partial_rank_stride;
  p.ldr = a.ldr == 0 ? a.n : a.ldr;
  p.ldd = a.ldd == 0 ? cols : a.ldd;
  p.m = a.m;
  p.n = a.n;
  p.ranks = a.ranks;
  p.alpha = a.alpha;
  launch_shape shape;
  const std::int64_t blocks = (a.m * cols - 1) / kernel::gemm_finish_threads + 1;
  shape.grid.x = static_cast<unsigned>(blocks < (1 << 16) ? blocks : (1 << 16));
  shape.block.x = kernel::gemm_finish_threads;
  return launch("gemm_finish", kernel::gemm_finish_kernel<T, Epilogue, Out>, shape, p, stream);
}

template <class Contract>
status gemm_f32(const gemm_f32_args& a, cuda_stream stream) {
  if (const status st = check(a); !st || a.m == 0 || a.n == 0) return st;
  kernel::gemm_f32_params p = {};
  p.a = a.a;
  p.b = a.b;
  p.d = a.d;
  p.a_row_stride = a.a_row_stride;
  p.a_col_stride = a.a_col_stride;
  p.b_row_stride = a.b_row_stride;
  p.b_col_stride = a.b_col_stride;
  p.d_row_stride = a.d_row_stride == 0 ? a.n : a.d_row_stride;
  p.m = a.m;
  p.n = a.n;
  p.k = a.k;
  constexpr int tile = kernel::gemm_f32_tile;
  const std::int64_t tiles = ((a.m - 1) / tile + 1) * ((a.n - 1) / tile + 1);
  launch_shape shape;
  shape.grid.x = static_cast<unsigned>(tiles < (1 << 30) ? tiles : (1 << 30));
  shape.block.x = tile * tile;
  return launch("gemm_f32", kernel::gemm_f32_kernel<Contract, tile>, shape, p, stream);
}

BI_NAMESPACE_END
