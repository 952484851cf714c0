// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/gemm.hpp"
#include "bi/reference/gemm.hpp"
#include "common.hpp"
#include "operations.hpp"

namespace bi_torch {

namespace {

// [batch, rows, cols] of any strides.
struct matrices {
  Tensor x;
  std::int64_t batch = 1, rows = 0, cols = 0;
  std::int64_t batch_stride = 0, row_stride = 0, col_stride = 0;
  bool is_transposed = false;  // of the tensor's last two dimensions

  // A matrix or a stack of them.
  static matrices of(const Tensor& t) {
    const std::int64_t d = t.dim();
    matrices out{t, 1, t.size(d - 2), t.size(d - 1), 0, t.stride(d - 2), t.stride(d - 1)};
    if (d == 3) out.batch = t.size(0), out.batch_stride = t.stride(0);
    return out;
  }

  matrices transposed() const { return {x, batch, cols, rows, batch_stride, col_stride, row_stride, !is_transposed}; }

  // Whether bi::gemm takes it as it lies, rows contiguous.
  bool row_major() const {
    const std::int64_t width = rows > 1 ? (rows - 1) * row_stride + cols : cols;
    return (cols <= 1 || col_stride == 1) && (rows <= 1 || (row_stride >= cols && row_stride > 0)) &&
           (batch <= 1 || (batch_stride >= width && batch_stride > 0));
  }
  std::int64_t ld() const { return rows > 1 ? row_stride : 0; }
  std::int64_t entry_stride() const { return batch > 1 ? batch_stride : 0; }

  void make_contiguous() {
    x = torch::stable::contiguous(x);
    batch_stride = rows * cols;
    row_stride = is_transposed ? 1 : cols;
    col_stride = is_transposed ? rows : 1;
  }
};

struct product {
  const char* operation;
  matrices a;                  // [batch, m, k]
  matrices b;                  // [batch, k, n]
  std::optional<matrices> c;   // [batch, m, n], broadcast by strides of 0
  double alpha = 1, beta = 1;  // of a b and of c
  std::int64_t slices = 0;
};

float real_of(const char* operation, const char* name, double v) {
  const float f = static_cast<float>(v);
  require(f - f == 0, operation, ": ", name, " = ", v, " must be finite in fp32");
  return f;
}

template <class T, class Epilogue, class Out>
void run_gemm(const product& p, const Tensor& bias, float alpha, const Tensor& out, const place& on) {
  const bool nk = p.b.transposed().row_major();
  const matrices b = nk ? p.b.transposed() : p.b;
  bi::gemm_limits limits;
  limits.n = p.b.cols, limits.k = p.a.cols, limits.max_m = p.a.rows;
  limits.slices = static_cast<int>(p.slices);
  limits.layout = nk ? bi::weight_layout::nk : bi::weight_layout::kn;
  bi::gemm_args<T, Epilogue, Out> g;
  g.a = pointer<T>(p.a.x), g.lda = p.a.ld(), g.a_batch_stride = p.a.entry_stride();
  g.b = pointer<T>(b.x), g.ldb = b.ld(), g.b_batch_stride = b.entry_stride();
  if constexpr (Epilogue::has_bias) g.bias = pointer<T>(bias);
  g.alpha = alpha;
  g.d = mutable_pointer<Out>(out);
  g.m = p.a.rows, g.batch = p.a.batch;
  if (on.is_cpu()) return require_ok(bi::reference::gemm(limits, g));
  const auto plan = bi::gemm<T, Epilogue, Out>::prepare(limits);
  require_ok(plan(g, {}, on.stream()));
}

void run_gemm_f32(const product& p, const Tensor& out, const place& on) {
  bi::gemm_f32_args g;
  g.a_row_stride = p.a.row_stride, g.a_col_stride = p.a.col_stride;
  g.b_row_stride = p.b.col_stride, g.b_col_stride = p.b.row_stride;
  g.m = p.a.rows, g.n = p.b.cols, g.k = p.a.cols;
  for (std::int64_t i = 0; i < p.a.batch; ++i) {
    g.a = pointer<float>(p.a.x) + (g.k > 0 ? i * p.a.batch_stride : 0);
    g.b = pointer<float>(p.b.x) + (g.k > 0 ? i * p.b.batch_stride : 0);
    g.d = mutable_pointer<float>(out) + i * g.m * g.n;
    require_ok(on.is_cpu() ? bi::reference::gemm_f32(g) : bi::gemm_f32<>(g, on.stream()));
  }
}

template <class T>
void run_scale_add(const product& p, const Tensor& acc, float alpha, float beta, const Tensor& out, const place& on) {
  scale_add_args<T> s;
  s.acc = pointer<float>(acc);
  if (p.c) {
    s.c = pointer<T>(p.c->x);
    s.c_batch_stride = p.c->batch_stride, s.c_row_stride = p.c->row_stride, s.c_col_stride = p.c->col_stride;
  }
  s.batch = p.a.batch, s.m = p.a.rows, s.n = p.b.cols;
  s.alpha = alpha, s.beta = beta;
  s.out = mutable_pointer<T>(out);
  on.run_each(s);
}

Tensor multiply(product p, const sizes_t& out_sizes) {
  const char* const op = p.operation;
  const place on(op, "the first matrix", p.a.x);
  on.require_here("the second matrix", p.b.x);
  require_supported(op, "the first matrix", p.a.x);
  const ScalarType dtype = p.a.x.scalar_type();
  require_dtype(op, "the second matrix", p.b.x, dtype);
  if (p.c) {
    on.require_here("the added tensor", p.c->x);
    require_dtype(op, "the added tensor", p.c->x, dtype);
  }
  require(p.a.cols == p.b.rows, op, ": the first matrix has ", p.a.cols, " columns and the second ", p.b.rows,
          " rows; they must be equal");
  require(p.a.batch == p.b.batch, op, ": batches of ", p.a.batch, " and ", p.b.batch, " must be equal");
  require(p.slices >= 0 && p.slices <= 8, op, ": slices = ", p.slices, " must be 0 (default), 1, 2, 4 or 8");
  const float alpha = real_of(op, "alpha", p.alpha), beta = real_of(op, "beta", p.beta);
  if (beta == 0) p.c.reset();

  Tensor out = empty(p.a.x, out_sizes, dtype);
  if (out.numel() == 0) return out;
  if (dtype == ScalarType::Float) {
    require(p.slices <= 1, op, ": slices = ", p.slices, " must be 0 or 1 in fp32, whose slices are fixed");
    run_gemm_f32(p, out, on);
    if (p.c || alpha != 1) run_scale_add<float>(p, out, alpha, beta, out, on);
    return out;
  }
  if (!p.a.row_major()) p.a.make_contiguous();
  if (!p.b.row_major() && !p.b.transposed().row_major()) p.b.make_contiguous();
  with_half_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (!p.c) return run_gemm<T, bi::epilogue::none, T>(p, out, alpha, out, on);
    const bool is_bias = beta == 1 && (p.a.batch == 1 || p.c->batch_stride == 0) &&
                         (p.a.rows == 1 || p.c->row_stride == 0) && (p.b.cols == 1 || p.c->col_stride == 1);
    if (is_bias) return run_gemm<T, bi::epilogue::bias, T>(p, p.c->x, alpha, out, on);
    const Tensor acc = empty(p.a.x, out_sizes, ScalarType::Float);
    run_gemm<T, bi::epilogue::none, float>(p, out, alpha, acc, on);
    return run_scale_add<T>(p, acc, 1.0f, beta, out, on);
  });
  return out;
}

// x as [batch, m, n] by strides of 0, as PyTorch broadcasts.
matrices broadcast(const char* operation, const Tensor& x, std::int64_t rank, std::int64_t batch, std::int64_t m,
                   std::int64_t n) {
  require(x.dim() <= rank, operation, ": the added tensor has ", x.dim(), " dimensions, at most ", rank,
          " are allowed");
  const std::int64_t want[3] = {batch, m, n};
  std::int64_t stride[3] = {0, 0, 0};
  for (std::int64_t i = 0; i < x.dim(); ++i) {
    const std::int64_t to = 3 - x.dim() + i;
    require(x.size(i) == want[to] || x.size(i) == 1, operation, ": the added tensor's shape ", shape_of(x),
            " does not broadcast to [", batch, ", ", m, ", ", n, "]");
    stride[to] = x.size(i) == 1 ? 0 : x.stride(i);
  }
  return {x, batch, m, n, stride[0], stride[1], stride[2]};
}

void require_rank(const char* operation, const char* name, const Tensor& x, std::int64_t rank) {
  require(x.dim() == rank, operation, ": ", name, " has shape ", shape_of(x), " and must have ", rank, " dimensions");
}

}  // namespace

Tensor mm(const Tensor& self, const Tensor& mat2, std::int64_t slices) {
  require_rank("mm", "self", self, 2);
  require_rank("mm", "mat2", mat2, 2);
  return multiply({"mm", matrices::of(self), matrices::of(mat2), {}, 1, 1, slices}, {self.size(0), mat2.size(1)});
}

Tensor addmm(const Tensor& self, const Tensor& mat1, const Tensor& mat2, double beta, double alpha,
             std::int64_t slices) {
  require_rank("addmm", "mat1", mat1, 2);
  require_rank("addmm", "mat2", mat2, 2);
  const std::int64_t m = mat1.size(0), n = mat2.size(1);
  return multiply(
      {"addmm", matrices::of(mat1), matrices::of(mat2), broadcast("addmm", self, 2, 1, m, n), alpha, beta, slices},
      {m, n});
}

Tensor bmm(const Tensor& self, const Tensor& mat2, std::int64_t slices) {
  require_rank("bmm", "self", self, 3);
  require_rank("bmm", "mat2", mat2, 3);
  return multiply({"bmm", matrices::of(self), matrices::of(mat2), {}, 1, 1, slices},
                  {self.size(0), self.size(1), mat2.size(2)});
}

Tensor baddbmm(const Tensor& self, const Tensor& batch1, const Tensor& batch2, double beta, double alpha,
               std::int64_t slices) {
  require_rank("baddbmm", "batch1", batch1, 3);
  require_rank("baddbmm", "batch2", batch2, 3);
  const std::int64_t batch = batch1.size(0), m = batch1.size(1), n = batch2.size(2);
  return multiply({"baddbmm", matrices::of(batch1), matrices::of(batch2), broadcast("baddbmm", self, 3, batch, m, n),
                   alpha, beta, slices},
                  {batch, m, n});
}

Tensor linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, std::int64_t slices) {
  require(input.dim() >= 1, "linear: input must have at least 1 dimension");
  require_rank("linear", "weight", weight, 2);
  const std::int64_t n = weight.size(0), k = input.size(input.dim() - 1);
  require(k == weight.size(1), "linear: input has ", k, " features and weight ", weight.size(1),
          "; they must be equal");
  sizes_t sizes(input.sizes().begin(), input.sizes().end());
  sizes.back() = n;
  const row_view x(input, 1);
  const matrices a{x.x, 1, x.rows, k, 0, x.stride, 1};
  std::optional<matrices> c;
  if (bias) {
    require(bias->dim() == 1 && bias->size(0) == n, "linear: bias has shape ", shape_of(*bias), " and must have [", n,
            "]");
    c = broadcast("linear", *bias, 2, 1, x.rows, n);
  }
  return multiply({"linear", a, matrices::of(weight).transposed(), c, 1, 1, slices}, sizes);
}

}  // namespace bi_torch
