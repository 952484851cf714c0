// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/activation.cuh"
#include "bi/digest.cuh"
#include "bi/kv_cache.cuh"
#include "bi/rope.cuh"
#include "bi/sample.cuh"

// The operations on tokens that the tests launch.

#define TOKENS_OF(T)                                                                            \
  BI_INSTANTIATE_ACTIVATION(T, bi::contract::activation_draft);                                 \
  BI_INSTANTIATE_EMBEDDING(T);                                                                  \
  BI_INSTANTIATE_ROPE(T, bi::contract::rope_draft);                                             \
  BI_INSTANTIATE_KV_APPEND(T, bi::contract::rms_norm_draft, bi::contract::rope_draft);          \
  BI_INSTANTIATE_KV_APPEND(T, bi::contract::rms_norm_hf_draft, bi::contract::rope_draft);       \
  BI_INSTANTIATE_KV_APPEND(T, bi::contract::rms_norm_one_plus_draft, bi::contract::rope_draft); \
  BI_INSTANTIATE_SAMPLE(T, bi::contract::sample_draft);                                         \
  BI_INSTANTIATE_VERIFY(T, bi::contract::sample_draft);                                         \
  BI_INSTANTIATE_DIGEST_KV(T, bi::contract::digest_words_draft)

TOKENS_OF(bi::bf16);
TOKENS_OF(bi::fp16);
TOKENS_OF(float);

BI_INSTANTIATE_DIGEST_ROWS(bi::contract::digest_words_draft);

// Those that take a schedule, for tests/gpu/support/forced_tokens.hpp.
namespace c = bi::contract;
using bi::cuda_stream;
using bi::status;
using bi::schedule::digest_schedule;
using bi::schedule::flat_schedule;
using bi::schedule::sample_schedule;
using bi::schedule::shared_schedule;
namespace launch = bi::launch_detail;

#define FORCED_GATE_OF(T, Function)                                                   \
  template status launch::launch_gate_mul<bi::kernel::Function<c::activation_draft>>( \
      const char*, const bi::gate_mul_args<T>&, const flat_schedule&, cuda_stream)
#define FORCED_KV_APPEND_OF(T, Norm)                                                                                  \
  template status launch::launch_kv_append<Norm, c::rope_draft>(const bi::kv_append_args<T>&, const shared_schedule&, \
                                                                cuda_stream)
#define FORCED_TOKENS_OF(T)                                                                                           \
  FORCED_GATE_OF(T, silu_mul_function);                                                                               \
  FORCED_GATE_OF(T, gelu_mul_function);                                                                               \
  FORCED_GATE_OF(T, gelu_tanh_mul_function);                                                                          \
  FORCED_KV_APPEND_OF(T, c::rms_norm_draft);                                                                          \
  FORCED_KV_APPEND_OF(T, c::rms_norm_hf_draft);                                                                       \
  FORCED_KV_APPEND_OF(T, c::rms_norm_one_plus_draft);                                                                 \
  template status launch::launch_add<c::activation_draft>(const bi::add_args<T>&, const flat_schedule&, cuda_stream); \
  template status launch::launch_embedding(const bi::embedding_args<T>&, const flat_schedule&, cuda_stream);          \
  template status launch::launch_rope<c::rope_draft>(const bi::rope_args<T>&, const flat_schedule&, cuda_stream);     \
  template status launch::launch_sample<c::sample_draft>(const char*, const bi::sample_args<T>&,                      \
                                                         const sample_schedule&, cuda_stream);                        \
  template status launch::launch_verify<c::sample_draft>(const bi::verify_args<T>&, const sample_schedule&,           \
                                                         const flat_schedule&, cuda_stream);                          \
  template status launch::launch_digest_kv<c::digest_words_draft>(const bi::digest_kv_args<T>&,                       \
                                                                  const digest_schedule&, cuda_stream)

FORCED_TOKENS_OF(bi::bf16);
FORCED_TOKENS_OF(float);
template status launch::launch_digest_rows<c::digest_words_draft>(const bi::digest_rows_args&, const digest_schedule&,
                                                                  cuda_stream);
