// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// What the compiler must refuse, and what it must say: scripts/check_rejects builds each case by itself with OR's first
// words, and demands the message, and all cases together with OR's second words, which must compile.

#include "bi/config.hpp"

#include "bi/bi.hpp"
#include "bi/reference/attention.hpp"
#include "bi/reference/fp_env.hpp"
#include "bi/reference/gemm.hpp"
#include "bi/reference/logits_edit.hpp"

using bi::bf16;
using bi::fp16;
namespace e = bi::epilogue;
namespace c = bi::contract;

#if BAD
#define OR(bad, good) bad
#else
#define OR(bad, good) good
#endif

// case: "gemm takes bf16 or fp16; see gemm_f32 for fp32"
bi::status gemm_of_floats() { return check(bi::gemm_limits{}, bi::gemm_args<OR(float, bf16)>{}); }

// case: "gemm writes T or fp32"
bi::status gemm_to_the_other_type() {
  return check(bi::gemm_limits{}, bi::gemm_args<bf16, e::none, OR(fp16, float)>{});
}

// case: "partial results are fp32"
bi::status rounded_partial_results() {
  return check(bi::gemm_limits{}, bi::gemm_args<bf16, e::partial, OR(bf16, float)>{});
}

// case: "gemm_finish writes results; a sum of fewer ranks is not a result"
bi::status finished_partial_results() { return check(bi::gemm_finish_args<bf16, OR(e::partial, e::bias), float>{}); }

// case: "gemm takes bf16 or fp16; see gemm_f32 for fp32"
bi::status finish_of_floats() { return check(bi::gemm_finish_args<OR(float, fp16)>{}); }

// case: "gemm writes T or fp32"
bi::status finish_to_the_other_type() { return check(bi::gemm_finish_args<fp16, e::none, OR(bf16, fp16)>{}); }

// case: "partial results are fp32"
bi::status reference_of_rounded_partial_results() {
  return bi::reference::gemm(bi::gemm_limits{}, bi::gemm_args<fp16, e::partial, OR(fp16, float)>{});
}

// case: "head_dim is 64, 128 or 256"
std::size_t attention_of_another_head() { return sizeof(bi::attention<bf16, OR(96, 64)>); }

// case: "head_dim is 64, 128 or 256"
std::size_t attention_of_no_head() { return sizeof(bi::attention<fp16, OR(0, 256)>); }

// case: "attention takes bf16 or fp16"
std::uint64_t attention_contract_of_floats() { return c::attention_v1<OR(float, bf16)>::id(); }

// case: "attention takes bf16 or fp16"
std::uint64_t soft_cap_contract_of_floats() { return c::attention_soft_cap_v1<OR(float, bf16)>::id(); }

// case: "attention takes bf16 or fp16"
bi::status reference_attention_of_floats() { return bi::reference::attention(bi::attention_args<OR(float, fp16)>{}); }

// case: "the result has the logits' type or is fp32"
bi::status edit_to_the_other_type() { return check(bi::logits_edit_args<bf16, OR(fp16, float)>{}); }

// case: "the result has the logits' type or is fp32"
OR(fp16, float) kept_as_the_other_type() { return c::logits_edit_draft::kept<OR(fp16, float)>(bf16{}); }

// case: "the result has the logits' type or is fp32"
bi::status reference_edit_to_the_other_type() {
  return bi::reference::logits_edit(bi::logits_edit_args<fp16, OR(bf16, fp16)>{});
}

// case: "1, 2, 4 or 8"
float three_slices(const float* partial) { return c::combine_slices<OR(3, 4)>(partial); }

// case: "1, 2, 4 or 8"
float sixteen_slices(const float* partial) { return c::combine_slices<OR(16, 8)>(partial); }

// case: "threads hold equal numbers of lanes"
float lanes_of_uneven_threads() {
  float held[OR(3, 4)] = {};
  return c::combine_held(held, 0, 256, c::add_step{});
}

// case: "contract parameters are integers or enumerations"
std::uint64_t id_of_a_real() { return bi::contract_id("name", OR(1.5, 15)); }

// case: "contract parameters are integers or enumerations"
std::uint64_t id_of_a_pointer() { return bi::contract_id("name", OR("parameter", 'p')); }

// case: "declared with attribute 'nodiscard'"
void status_left_alone() { OR(check(bi::digest_rows_args{}), (void)check(bi::digest_rows_args{})); }

// case: "declared with attribute 'nodiscard'"
void reference_status_left_alone() {
  OR(bi::reference::gemm_f32(bi::gemm_f32_args{}), (void)bi::reference::gemm_f32(bi::gemm_f32_args{}));
}

// case: "cannot convert"
bool status_as_a_number() {
  const bool ok OR(= bi::status{}, {bi::status{}});
  return ok;
}

// case: "no matching function for call"
bi::status no_stream(const bi::rms_norm_args<bf16>& a, bi::cuda_stream stream) {
  return OR(bi::rms_norm(a), bi::rms_norm(a, stream));
}

// case: "no matching function for call"
bi::gemm_limits unprepared() {
  const auto plan = bi::gemm<bf16> OR((), ::prepare({}));
  return plan.limits();
}

// case: "non-scalar type"
bf16 number_as_bf16() {
  const bf16 x OR(= 1.0f, = bi::cvt_rn<bf16>(1.0f));
  return x;
}

// case: "no match for"
float sum_of_bf16(bf16 x, bf16 y) { return OR(x + y, bi::add_rn(bi::to_f32(x), bi::to_f32(y))); }

// case: "invalid conversion from"
void result_into_constants(bi::softmax_args<float>& a, const float* p, float* q) { a.out = OR(p, q), (void)p, (void)q; }

// case: "cannot convert"
void rows_of_another_type(bi::rms_norm_args<bf16>& a, const fp16* p, const bf16* q) {
  a.x = OR(p, q), (void)p, (void)q;
}

// case: "no match for"
void view_of_nothing_known(bi::digest_kv_args<bf16>& a, const std::int32_t* pages) {
  a.view = OR(pages, (bi::page_table{pages, 1}));
}

// case: "use of deleted function"
void environment_twice() {
  const bi::reference::fp_environment one;
  const bi::reference::fp_environment two OR({one}, {});
}

// case -std=c++14: "bi needs C++17."
// case -U__x86_64__: "bi knows the floating-point environment of x86-64 and AArch64 only."
// case -U__GNUC__: "bi needs GCC or Clang as the host compiler: its rounding primitives use their inline assembly."
// case -U__SIZEOF_POINTER__ -D__SIZEOF_POINTER__=4: "bi needs a 64-bit target."
