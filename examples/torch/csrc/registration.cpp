// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "operations.hpp"

// What PyTorch calls. Fake kernels and autograd are in bi_torch/ops.py.

STABLE_TORCH_LIBRARY(bi, m) {
  m.def("mm(Tensor self, Tensor mat2, int slices=0) -> Tensor");
  m.def("addmm(Tensor self, Tensor mat1, Tensor mat2, float beta=1.0, float alpha=1.0, int slices=0) -> Tensor");
  m.def("bmm(Tensor self, Tensor mat2, int slices=1) -> Tensor");
  m.def("baddbmm(Tensor self, Tensor batch1, Tensor batch2, float beta=1.0, float alpha=1.0, int slices=1) -> Tensor");
  m.def("linear(Tensor input, Tensor weight, Tensor? bias=None, int slices=0) -> Tensor");
  m.def("rms_norm(Tensor input, Tensor? weight, float eps=1e-06, bool round_first=False) -> Tensor");
  m.def(
      "add_rms_norm(Tensor input, Tensor residual, Tensor? weight, float eps=1e-06, bool round_first=False)"
      " -> (Tensor, Tensor)");
  m.def("softmax(Tensor input, int dim=-1, ScalarType? dtype=None) -> Tensor");
  m.def("log_softmax(Tensor input, int dim=-1, ScalarType? dtype=None) -> Tensor");
  m.def("sum(Tensor input, int[]? dim=None, bool keepdim=False, ScalarType? dtype=None) -> Tensor");
  m.def("mean(Tensor input, int[]? dim=None, bool keepdim=False, ScalarType? dtype=None) -> Tensor");
  m.def(
      "scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, int mask=0, float? scale=None)"
      " -> (Tensor, Tensor)");
  m.def(
      "paged_attention(Tensor query, Tensor key_cache, Tensor value_cache, Tensor pages, Tensor lengths,"
      " Tensor? q_start, int max_q_len, int max_length, float scale, bool causal=True, int window=0) -> Tensor");
  m.def("kv_append(Tensor(a!) key_cache, Tensor(b!) value_cache, Tensor key, Tensor value, Tensor slot) -> ()");
  m.def(
      "sample(Tensor logits, Tensor temperature, Tensor seed, Tensor ordinal, Tensor? top_k=None, Tensor? top_p=None,"
      " Tensor? min_p=None, Tensor? sample_index=None) -> (Tensor, Tensor, Tensor)");
}

namespace {

// The same functions for both: they ask where the tensors are.
template <class Library>
void implement(Library& m) {
  m.impl("mm", TORCH_BOX(&bi_torch::mm));
  m.impl("addmm", TORCH_BOX(&bi_torch::addmm));
  m.impl("bmm", TORCH_BOX(&bi_torch::bmm));
  m.impl("baddbmm", TORCH_BOX(&bi_torch::baddbmm));
  m.impl("linear", TORCH_BOX(&bi_torch::linear));
  m.impl("rms_norm", TORCH_BOX(&bi_torch::rms_norm));
  m.impl("add_rms_norm", TORCH_BOX(&bi_torch::add_rms_norm));
  m.impl("softmax", TORCH_BOX(&bi_torch::softmax));
  m.impl("log_softmax", TORCH_BOX(&bi_torch::log_softmax));
  m.impl("sum", TORCH_BOX(&bi_torch::sum));
  m.impl("mean", TORCH_BOX(&bi_torch::mean));
  m.impl("scaled_dot_product_attention", TORCH_BOX(&bi_torch::scaled_dot_product_attention));
  m.impl("paged_attention", TORCH_BOX(&bi_torch::paged_attention));
  m.impl("kv_append", TORCH_BOX(&bi_torch::kv_append));
  m.impl("sample", TORCH_BOX(&bi_torch::sample));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bi, CUDA, m) { implement(m); }
STABLE_TORCH_LIBRARY_IMPL(bi, CPU, m) { implement(m); }
