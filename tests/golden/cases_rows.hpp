// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "support/ops_rows.hpp"

// Small fixed cases of the operations over rows, for golden digests.
namespace test {

inline const char* name_of(values kind) {
  constexpr const char* names[] = {"normal", "wide", "subnormal", "cancelling", "hostile", "ties"};
  return names[static_cast<int>(kind)];
}

template <class Backend, class Sink>
class rows_golden {
 public:
  rows_golden(Backend& b, Sink& sink) : b_(b), sink_(sink) {}

  template <class T>
  void all_of_type() {
    rms_norms<bi::contract::rms_norm_draft, T>();
    rms_norms<bi::contract::rms_norm_hf_draft, T>();
    rms_norms<bi::contract::rms_norm_one_plus_draft, T>();

    rows<layer_norm_op<>, T, T>("layer_norm", {3, 1001, values::wide});
    rows<layer_norm_op<>, T, T>("layer_norm", {2, 8197, values::cancelling, 3, 1});
    rows<layer_norm_op<>, T, T>("layer_norm", {40, 12, values::hostile});
    row_shape bare{5, 2050, values::subnormal};
    bare.weight = bare.bias = false;
    rows<layer_norm_op<>, T, T>("layer_norm without weight and bias", bare);

    using bi::reduction;
    rows<reduce_op<reduction::sum>, T, float>("sum", {2, 16390, values::cancelling});
    rows<reduce_op<reduction::sum>, T, T>("sum", {50, 77, values::wide, 0, 1});
    rows<reduce_op<reduction::mean>, T, T>("mean", {60, 1030, values::subnormal});
    rows<reduce_op<reduction::max>, T, float>("max", {80, 20, values::hostile});
    rows<reduce_op<reduction::min>, T, T>("min", {80, 20, values::hostile});
    rows<argmax_op<>, T, std::int64_t>("argmax", {60, 150, values::ties});
    rows<argmin_op<>, T, std::int64_t>("argmin", {90, 31, values::hostile});

    rows<softmax_op<>, T, T>("softmax", {3, 1500, values::normal});
    rows<softmax_op<>, T, float>("softmax", {40, 13, values::hostile});
    rows<log_softmax_op<>, T, T>("log_softmax", {2, 8200, values::ties});
    rows<log_softmax_op<>, T, T>("log_softmax", {9, 130, values::wide, 5, 1});
    rows<logsumexp_op<>, T, float>("logsumexp", {2, 17000, values::normal});
    rows<logsumexp_op<>, T, float>("logsumexp", {60, 24, values::subnormal});
  }

 private:
  template <class C, class T>
  void rms_norms() {
    rows<rms_norm_op<C>, T, T>("rms_norm", {2, 8203, values::wide, 3, 1});
    rows<rms_norm_op<C>, T, T>("rms_norm", {40, 12, values::hostile});
    row_shape s{3, 1000, values::subnormal};
    report<C>("add_rms_norm", s, run_rms_norm_residual<C, T>(b_, s, residual_alias::none));
    s = {5, 128, values::normal};
    report<C>("qk_norm of 4 heads", s, run_qk_norm<C, T>(b_, s, 4));
  }

  template <class Op, class T, class Out>
  void rows(const char* operation, const row_shape& s) {
    report<typename Op::contract, T>(operation, s, run_rows<Op, T, Out>(b_, s));
  }

  // T: the input's type, where it isn't the output's.
  template <class C, class T = void, class Out>
  void report(const std::string& operation, const row_shape& s, const std::vector<Out>& out) {
    std::string type = "index";
    if constexpr (!std::is_same_v<Out, std::int64_t>) type = bi::dtype_traits<Out>::name;
    if constexpr (!std::is_void_v<T> && !std::is_same_v<T, Out>) type = bi::dtype_traits<T>::name + ("-" + type);
    golden_entry e;
    e.name = operation + "/" + C::name + "/" + type + "/rows=" + std::to_string(s.rows) +
             ",cols=" + std::to_string(s.cols) + "/" + name_of(s.kind);
    e.contract = C::id();
    e.digest = digest_of(out);
    e.outputs = static_cast<std::int64_t>(out.size());
    sink_(e);
    b_.clear();
  }

  Backend& b_;
  Sink& sink_;
};

template <class Backend, class Sink>
void golden_rows(Backend& b, Sink&& sink) {
  rows_golden<Backend, Sink> golden(b, sink);
  golden.template all_of_type<bi::bf16>();
  golden.template all_of_type<bi::fp16>();
  golden.template all_of_type<float>();
}

}  // namespace test
