// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "bi/schedule/flat.hpp"
#include "bi/schedule/logits_edit.hpp"
#include "support/ops_edit.hpp"

// The launchers that take a schedule, instantiated in tests/gpu/instantiate_edit.cu.
BI_NAMESPACE_BEGIN
namespace launch_detail {

template <class Contract, class T, class Out>
status launch_logits_edit(const logits_edit_args<T, Out>&, const schedule::logits_edit_schedule&, cuda_stream);
template <class Contract>
status launch_clear_counts(const clear_counts_args&, const schedule::flat_schedule&, cuda_stream);
template <class Contract>
status launch_count_tokens(const count_tokens_args&, const schedule::flat_schedule&, cuda_stream);
template <class Contract>
status launch_count_view(const count_view_args&, const schedule::flat_schedule&, cuda_stream);

}  // namespace launch_detail
BI_NAMESPACE_END

// For forced_backend.
namespace test {

using edit_contract = bi::contract::logits_edit_draft;

template <class T, class Out>
bi::status launch_with(const logits_edit_op&, const bi::logits_edit_args<T, Out>& a,
                       const bi::schedule::logits_edit_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_logits_edit<edit_contract>(a, s, t);
}
inline bi::status launch_with(const clear_counts_op&, const bi::clear_counts_args& a,
                              const bi::schedule::flat_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_clear_counts<edit_contract>(a, s, t);
}
inline bi::status launch_with(const count_tokens_op&, const bi::count_tokens_args& a,
                              const bi::schedule::flat_schedule& s, bi::cuda_stream t) {
  return bi::launch_detail::launch_count_tokens<edit_contract>(a, s, t);
}
inline bi::status launch_with(const count_view_op&, const bi::count_view_args& a, const bi::schedule::flat_schedule& s,
                              bi::cuda_stream t) {
  return bi::launch_detail::launch_count_view<edit_contract>(a, s, t);
}

}  // namespace test
