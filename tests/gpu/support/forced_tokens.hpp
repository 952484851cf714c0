// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/schedule/flat.hpp"
#include "bi/schedule/rows.hpp"
#include "bi/schedule/sample.hpp"
#include "support/ops_tokens.hpp"

// The launchers of operations on tokens that take a schedule, instantiated in tests/gpu/instantiate_tokens.cu.
BI_NAMESPACE_BEGIN
namespace kernel {

template <class Contract>
struct silu_mul_function;
template <class Contract>
struct gelu_mul_function;
template <class Contract>
struct gelu_tanh_mul_function;

}  // namespace kernel
namespace launch_detail {

template <class Function, class T>
status launch_gate_mul(const char*, const gate_mul_args<T>&, const schedule::flat_schedule&, cuda_stream);
template <class Contract, class T>
status launch_add(const add_args<T>&, const schedule::flat_schedule&, cuda_stream);
template <class T>
status launch_embedding(const embedding_args<T>&, const schedule::flat_schedule&, cuda_stream);
template <class Contract, class T>
status launch_rope(const rope_args<T>&, const schedule::flat_schedule&, cuda_stream);
template <class Norm, class Rope, class T>
status launch_kv_append(const kv_append_args<T>&, const schedule::shared_schedule&, cuda_stream);
template <class Contract, class T>
status launch_sample(const char*, const sample_args<T>&, const schedule::sample_schedule&, cuda_stream);
template <class Contract, class T>
status launch_verify(const verify_args<T>&, const schedule::sample_schedule&, const schedule::flat_schedule&,
                     cuda_stream);
template <class Contract>
status launch_digest_rows(const digest_rows_args&, const schedule::digest_schedule&, cuda_stream);
template <class Contract, class T>
status launch_digest_kv(const digest_kv_args<T>&, const schedule::digest_schedule&, cuda_stream);

}  // namespace launch_detail
BI_NAMESPACE_END

// For forced_backend.
namespace test {

using bi::schedule::digest_schedule;
using bi::schedule::flat_schedule;
using bi::schedule::sample_schedule;
using bi::schedule::shared_schedule;

template <class T>
bi::status launch_with(const silu_mul_op&, const bi::gate_mul_args<T>& a, const flat_schedule& s, bi::cuda_stream t) {
  using function = bi::kernel::silu_mul_function<bi::contract::activation_draft>;
  return bi::launch_detail::launch_gate_mul<function>("silu_mul", a, s, t);
}
template <class T>
bi::status launch_with(const gelu_mul_op&, const bi::gate_mul_args<T>& a, const flat_schedule& s, bi::cuda_stream t) {
  using function = bi::kernel::gelu_mul_function<bi::contract::activation_draft>;
  return bi::launch_detail::launch_gate_mul<function>("gelu_mul", a, s, t);
}
template <class T>
bi::status launch_with(const gelu_tanh_mul_op&, const bi::gate_mul_args<T>& a, const flat_schedule& s,
                       bi::cuda_stream t) {
  using function = bi::kernel::gelu_tanh_mul_function<bi::contract::activation_draft>;
  return bi::launch_detail::launch_gate_mul<function>("gelu_tanh_mul", a, s, t);
}
template <class T>
bi::status launch_with(const add_op&, const bi::add_args<T>& a, const flat_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_add<bi::contract::activation_draft>(a, s, t);
}
template <class T>
bi::status launch_with(const embedding_op&, const bi::embedding_args<T>& a, const flat_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_embedding(a, s, t);
}
template <class T>
bi::status launch_with(const rope_op&, const bi::rope_args<T>& a, const flat_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_rope<bi::contract::rope_draft>(a, s, t);
}
template <class Norm, class T>
bi::status launch_with(const kv_append_op<Norm>&, const bi::kv_append_args<T>& a, const shared_schedule& s,
                       bi::cuda_stream t) {
  return bi::launch_detail::launch_kv_append<Norm, bi::contract::rope_draft>(a, s, t);
}
template <class T>
bi::status launch_with(const sample_op&, const bi::sample_args<T>& a, const sample_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_sample<bi::contract::sample_draft>("sample", a, s, t);
}
// The search through the drafts takes the same number of thread blocks.
template <class T>
bi::status launch_with(const verify_op&, const bi::verify_args<T>& a, const sample_schedule& s, bi::cuda_stream t) {
  const flat_schedule accept = {s.blocks % 2 == 0 ? 32 : 256, s.blocks};
  return bi::launch_detail::launch_verify<bi::contract::sample_draft>(a, s, accept, t);
}
inline bi::status launch_with(const digest_rows_op&, const bi::digest_rows_args& a, const digest_schedule& s,
                              bi::cuda_stream t) {
  return bi::launch_detail::launch_digest_rows<bi::contract::digest_words_draft>(a, s, t);
}
template <class T>
bi::status launch_with(const digest_kv_op&, const bi::digest_kv_args<T>& a, const digest_schedule& s,
                       bi::cuda_stream t) {
  return bi::launch_detail::launch_digest_kv<bi::contract::digest_words_draft>(a, s, t);
}

}  // namespace test
