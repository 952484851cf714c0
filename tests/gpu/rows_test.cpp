// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cuda_runtime_api.h>

#include <cstdint>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "gpu/support/forced_backend.hpp"
#include "gpu/support/forced_rows.hpp"
#include "gpu/support/gpu_backend.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/ops_rows.hpp"

namespace c = bi::contract;
using bi::reduction;
using test::row_shape;
using test::values;
using test::writes;

namespace {

// ---- equal to the reference

// Both row schedules, tails, several blocks, odd strides, pointers off by an element, more rows than thread blocks.
std::vector<row_shape> shapes() {
  std::vector<row_shape> out;
  std::uint64_t seed = 0;
  for (const std::int64_t cols :
       {1,    2,    7,    8,    9,    31,   64,   100,  127,  128,  129,  255,  264,  511,   768,  1000,
        1023, 1024, 1025, 1032, 2047, 2048, 2049, 4096, 5000, 8191, 8192, 8193, 8200, 16385, 24577}) {
    for (int i = 0; i < 3; ++i, ++seed) {
      row_shape s;
      s.rows = cols < 300 ? 13 : cols < 3000 ? 5 : 3;
      s.cols = cols;
      s.kind = test::all_values[seed * 5 % 6];
      s.gap = seed % 4 == 1 ? 3 : seed % 4 == 2 ? 8 : 0;
      s.offset = seed % 3 == 1 ? 1 : 0;
      s.seed = seed;
      out.push_back(s);
    }
  }
  for (const values kind : test::all_values) out.push_back({17001, 20, kind, 4});
  out.push_back({4300, 1032, values::wide});
  // Rows that stay in registers: the lengths at which another kernel takes over, few rows and many.
  for (const std::int64_t cols :
       {256, 264, 2048, 2056, 4104, 16384, 16392, 24584, 40960, 49160, 57344, 65536, 65544, 131072, 131080}) {
    for (const std::int64_t rows : {2, 40}) {
      if (rows * cols > 1000000) continue;
      out.push_back({rows, cols, test::all_values[(cols / 8 + rows) % 6], cols % 16 == 0 ? 0 : 8});
    }
  }
  out.push_back({530, 2048, values::hostile});
  out.push_back({530, 4096, values::cancelling});
  out.push_back({2, 151936, values::normal});
  out.push_back({20, 151936, values::hostile});
  out.push_back({1, 262145, values::cancelling, 0, 1});
  return out;
}

// Runs a case on both backends and counts the outputs compared.
class comparison {
 public:
  template <class Run>
  void same(const row_shape& s, Run run) {
    const auto expected = run(host_), got = run(gpu_);
    INFO("rows " << s.rows << ", cols " << s.cols << ", data " << static_cast<int>(s.kind) << ", gap " << s.gap
                 << ", offset " << s.offset << ", seed " << s.seed);
    REQUIRE(test::difference(got, expected) == "");
    outputs_ += static_cast<std::int64_t>(got.size());
    host_.clear();
    gpu_.clear();
  }
  template <class Op, class T, class Out>
  void same_rows() {
    for (const row_shape& s : shapes()) {
      same(s, [&](auto& b) { return test::run_rows<Op, T, Out>(b, s); });
    }
    REQUIRE(outputs_ >= 100000);
  }

 private:
  test::host_backend host_;
  test::gpu_backend gpu_;
  std::int64_t outputs_ = 0;
};

template <class C, class T>
void check_rms_norm() {
  comparison().same_rows<test::rms_norm_op<C>, T, T>();
  comparison heads, sums;
  for (const row_shape& s : shapes()) {
    if (s.rows > 100 && s.kind != values::wide) continue;
    sums.same(s, [&](auto& b) { return test::run_rows_in_place<test::rms_norm_op<C>, T>(b, s); });
    for (const test::residual_alias alias : test::all_residual_aliases) {
      sums.same(s, [&](auto& b) { return test::run_rms_norm_residual<C, T>(b, s, alias); });
    }
    if (s.cols > 300 && s.cols != 1025) continue;
    for (const bool in_place : {false, true}) {
      heads.same(s, [&](auto& b) { return test::run_qk_norm<C, T>(b, s, 5, in_place); });
    }
  }
}

// A row as a token of four heads.
struct four_heads_op : test::qk_norm_op<> {
  static constexpr writes output = writes::columns;
  template <class T>
  static auto args(const test::row_call<T, T>& call) {
    bi::qk_norm_args<T> a;
    a.x = call.x;
    a.x_token_stride = call.x_stride;
    a.weight = call.weight;
    a.tokens = call.rows;
    a.heads = 4;
    a.head_dim = call.cols / 4;
    a.out = call.out;
    a.out_token_stride = call.out_stride;
    return a;
  }
};

// ---- every schedule

// More rows than the largest grid but one, for either kernel; short rows for a thread block each and long ones for a
// warp.
std::vector<row_shape> forced_shapes() {
  return {{1200, 72, values::normal},       {301, 203, values::hostile, 3, 1}, {150, 1160, values::wide},
          {9, 8200, values::cancelling, 8}, {3, 24577, values::ties, 0, 1},    {4300, 5, values::subnormal},
          {300, 256, values::ties},         {70, 2048, values::hostile, 8},    {9, 16384, values::normal},
          {3, 16392, values::cancelling},   {3, 32768, values::hostile},       {3, 32776, values::normal},
          {3, 49152, values::ties},         {3, 49160, values::wide},          {3, 65536, values::normal},
          {2, 73736, values::hostile},      {1, 1000003, values::cancelling},  {2, 151936, values::normal}};
}

// run(backend, shape) under every schedule that fits. `forms`: the kernels, however many thread blocks, that ran.
using schedule_forms = std::set<std::string>;
template <class T, class Run>
void force(const test::manifest_operation& o, schedule_forms& forms, Run run) {
  for (row_shape s : forced_shapes()) {
    s.rows = test::few_rows(s.rows);
    if (test::small_run() && s.cols > 100000) continue;
    test::host_backend host;
    const auto of_shape = [&](auto& b) { return run(b, s); };
    const std::string name = std::to_string(s.rows) + " rows of " + std::to_string(s.cols);
    const bi::schedule::row_traits traits{sizeof(T), s.cols % 8 == 0 && s.gap % 8 == 0 && s.offset == 0, true};
    std::vector<test::row_schedule> fitting;
    for (test::row_schedule schedule : test::row_schedules()) {
      if (!test::fits(o.operation, schedule, s.cols, traits)) continue;
      fitting.push_back(schedule);
      schedule.blocks = 1;
      schedule.programmatic = false;
      forms.insert(to_string(schedule));
    }
    test::check_forced(o, fitting, name, of_shape(host), of_shape);
  }
}
// The kernels of an operation.
std::size_t forms_of(const std::string& operation, std::size_t element_bytes) {
  // Of any row by a warp or a thread block; clusters of 2 to 8, and of 9 to 16.
  const std::size_t any = 2, clusters = 7, wide = 8;
  const bool small = element_bytes == 2;
  if (operation.find("norm") != std::string::npos) return any + clusters + (small ? 5 : 4);
  if (operation == "logsumexp") return any + 2 * (1 + clusters);
  if (operation.find("softmax") != std::string::npos) {
    return any + 1 + clusters + (small ? 2 : 1) * (1 + clusters + wide);
  }
  if (operation.find("arg") != std::string::npos) return any + 1;
  return any + 2 + 1 + clusters + wide;
}
template <class Op, class T, class Out = T>
bool force_rows(const test::manifest_operation& o, const char* operation, schedule_forms& forms) {
  if (o.operation != operation || o.contract != Op::contract::name) return false;
  force<T>(o, forms, [](auto& b, const row_shape& s) { return test::run_rows<Op, T, Out>(b, s); });
  if constexpr (Op::output == writes::columns && std::is_same_v<T, Out>) {
    force<T>(o, forms, [](auto& b, const row_shape& s) { return test::run_rows_in_place<Op, T>(b, s); });
  }
  return true;
}
template <class C, class T>
bool force_rms_norm(const test::manifest_operation& o, schedule_forms& forms) {
  if (force_rows<test::rms_norm_op<C>, T>(o, "rms_norm", forms)) {
    for (const test::residual_alias alias : test::all_residual_aliases) {
      force<T>(o, forms, [&](auto& b, const row_shape& s) { return test::run_rms_norm_residual<C, T>(b, s, alias); });
    }
    return true;
  }
  if (o.operation != "qk_norm" || o.contract != C::name) return false;
  for (const bool in_place : {false, true}) {
    force<T>(o, forms, [&](auto& b, const row_shape& s) { return test::run_qk_norm<C, T>(b, s, 2, in_place); });
  }
  return true;
}
// False for an operation that is not here.
template <class T>
bool force_operation(const test::manifest_operation& o, schedule_forms& forms) {
  return force_rms_norm<c::rms_norm_draft, T>(o, forms) || force_rms_norm<c::rms_norm_hf_draft, T>(o, forms) ||
         force_rms_norm<c::rms_norm_one_plus_draft, T>(o, forms) ||
         force_rows<test::layer_norm_op<>, T>(o, "layer_norm", forms) ||
         force_rows<test::reduce_op<reduction::sum>, T, float>(o, "sum", forms) ||
         force_rows<test::reduce_op<reduction::mean>, T, float>(o, "mean", forms) ||
         force_rows<test::reduce_op<reduction::max>, T, float>(o, "max", forms) ||
         force_rows<test::reduce_op<reduction::min>, T, float>(o, "min", forms) ||
         force_rows<test::argmax_op<>, T, std::int64_t>(o, "argmax", forms) ||
         force_rows<test::argmin_op<>, T, std::int64_t>(o, "argmin", forms) ||
         force_rows<test::softmax_op<>, T>(o, "softmax", forms) ||
         force_rows<test::log_softmax_op<>, T>(o, "log_softmax", forms) ||
         force_rows<test::logsumexp_op<>, T, float>(o, "logsumexp", forms);
}

bool is_norm(const std::string& operation) { return operation.find("norm") != std::string::npos; }
bool is_softmax(const std::string& operation) {
  return operation.find("softmax") != std::string::npos || operation == "logsumexp";
}
// The operations of the manifest that are chosen, and how many there are.
template <class T, class Chosen>
int force_operations(Chosen chosen) {
  int operations = 0;
  for (const test::manifest_operation& o : test::row_operations()) {
    if (!chosen(o.operation)) continue;
    INFO(o.operation << "/" << o.contract);
    schedule_forms forms;
    REQUIRE(force_operation<T>(o, forms));
    operations += 1;
    if (test::small_run()) continue;  // has fewer
    REQUIRE(forms.size() == forms_of(o.operation, sizeof(T)));
  }
  return operations;
}

// ---- a row does not know its batch

// Rows 0 .. 2 * largest - 2 alone, then batches of up to `largest` of them, then one of them at every place of a batch.
// evaluate(first, rows) gives the output of a batch, `width` elements a row. Empty if each row keeps its bytes.
template <class Evaluate>
std::string dependence(std::int64_t largest, std::int64_t width, std::int64_t step, Evaluate evaluate) {
  const std::int64_t total = 2 * largest - 1;
  auto alone = evaluate(0, 1);
  for (std::int64_t r = 1; r < total; ++r) {
    const auto y = evaluate(r, 1);
    alone.insert(alone.end(), y.begin(), y.end());
  }
  const auto wrong = [&](std::int64_t first, std::int64_t rows) {
    const auto y = evaluate(first, rows);
    const std::string d = test::difference(y.data(), alone.data() + first * width, rows * width);
    return d.empty() ? d : "batch of " + std::to_string(rows) + " from row " + std::to_string(first) + ": " + d;
  };
  for (std::int64_t m = 1; m <= largest; m += step) {
    if (const std::string d = wrong(m * 91 % (total - m + 1), m); !d.empty()) return d;
  }
  for (std::int64_t place = 0; place < largest; place += step) {
    if (const std::string d = wrong(largest - 1 - place, largest); !d.empty()) return d;
  }
  return {};
}

// Ordinary rows among hostile ones.
template <class T>
std::vector<T> mixed_rows(std::int64_t rows, std::int64_t cols) {
  std::vector<T> out;
  for (std::int64_t r = 0; r < rows; ++r) {
    const values kind = r % 4 == 3 ? values::hostile : r % 4 == 1 ? values::wide : values::normal;
    const auto row = test::pool_vector<T>(cols, kind, static_cast<std::uint64_t>(r) + 77);
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

template <class Op, class T, class Out>
void check_batches() {
  // For a warp a row, a thread block a row, one or the other by the number of rows, and a cluster a row.
  for (const std::int64_t cols : {72, 1160, 2048, 16392}) {
    const std::int64_t largest = cols == 2048 ? 545 : 300;
    const std::int64_t width = Op::output == writes::row ? 1 : cols;
    test::gpu_backend gpu;
    const auto values_of_x = mixed_rows<T>(2 * largest - 1, cols);
    test::row_call<T, Out> call;
    T* x = gpu.input(values_of_x);
    call.cols = cols;
    call.weight = gpu.input(test::pool_vector<T>(cols, values::normal, 5));
    call.bias = gpu.input(test::pool_vector<T>(cols, values::normal, 6));
    call.out = gpu.output<Out>(largest * width);
    const auto evaluate = [&](std::int64_t first, std::int64_t rows) {
      call.x = x + first * cols;
      call.rows = rows;
      // And what may be another row.
      const std::int64_t seen = (rows < largest ? rows + 1 : rows) * width, rest = seen - rows * width;
      gpu.poison(call.out, seen);
      gpu.run(Op{}, Op::args(call));
      std::vector<Out> y = gpu.read(call.out, seen);
      const auto untouched = test::poisoned<Out>(rest);
      REQUIRE(test::difference(y.data() + rows * width, untouched.data(), rest) == "");
      y.resize(static_cast<std::size_t>(rows * width));
      return y;
    };
    REQUIRE(dependence(largest, width, cols < 1000 ? 1 : 16, evaluate) == "");
  }
}

// What dependence() must find: libraries that split a row over more threads when the batch is small.
template <class Row>
std::string dependence_of_split(Row row) {
  constexpr std::int64_t cols = 200, largest = 33;
  std::vector<float> x;
  for (const bi::bf16 v : mixed_rows<bi::bf16>(2 * largest - 1, cols)) x.push_back(bi::to_f32(v));
  return dependence(largest, 1, 1, [&](std::int64_t first, std::int64_t rows) {
    std::vector<float> y;
    for (std::int64_t r = first; r < first + rows; ++r)
      y.push_back(row(x.data() + r * cols, cols, rows < 16 ? 104 : cols));
    return y;
  });
}
// The tree over x[0, split) plus the tree over the rest.
template <class Fold>
float split_tree(const float* x, std::int64_t cols, std::int64_t split, Fold fold) {
  const float head = c::reduce_block(x, static_cast<int>(split), 0.0f, fold, c::add_step{});
  if (split == cols) return head;
  return bi::add_rn(head, c::reduce_block(x + split, static_cast<int>(cols - split), 0.0f, fold, c::add_step{}));
}

// ---- graphs

// A graph of one call, replayed with other inputs.
template <class Op, class T, class Out>
void check_graph(std::int64_t rows, std::int64_t cols) {
  const bool per_row = Op::output == writes::row;
  const std::int64_t out_stride = per_row ? 1 : cols + 5, outputs = rows * out_stride;
  test::gpu_backend gpu;
  test::row_call<T, Out> call;
  const auto draw = [&](std::int64_t n, std::uint64_t seed) {
    return test::pool_vector<T>(n, test::all_values[seed % 6], seed * 97);
  };
  T *x = gpu.input(draw(rows * cols, 0)), *weight = gpu.input(draw(cols, 0)), *bias = gpu.input(draw(cols, 0));
  Out* out = gpu.output<Out>(outputs);
  call.rows = rows;
  call.cols = cols;
  call.out_stride = out_stride;
  const auto with = [&](T* x_of, const T* weight_of, const T* bias_of, Out* out_of) {
    auto with_pointers = call;
    with_pointers.x = x_of;
    with_pointers.weight = weight_of;
    with_pointers.bias = bias_of;
    with_pointers.out = out_of;
    return Op::args(with_pointers);
  };
  gpu.sync();

  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  BI_REQUIRE_CUDA(cudaStreamBeginCapture(gpu.stream(), cudaStreamCaptureModeThreadLocal));
  const bi::status st = Op::gpu(with(x, weight, bias, out), {}, gpu.stream());
  BI_REQUIRE_CUDA(cudaStreamEndCapture(gpu.stream(), &graph));
  INFO(bi::describe(st));
  REQUIRE(st);
  std::size_t nodes = 0;
  BI_REQUIRE_CUDA(cudaGraphGetNodes(graph, nullptr, &nodes));
  REQUIRE(nodes == 1);
  BI_REQUIRE_CUDA(cudaGraphInstantiateWithFlags(&replay, graph, 0));
  for (std::uint64_t i = 1; i <= 50; ++i) {
    auto host_x = draw(rows * cols, i), host_weight = draw(cols, i + 6), host_bias = draw(cols, i + 12);
    gpu.write(x, host_x);
    gpu.write(weight, host_weight);
    gpu.write(bias, host_bias);
    gpu.poison(out, outputs);
    BI_REQUIRE_CUDA(cudaGraphLaunch(replay, gpu.stream()));
    auto expected = test::poisoned<Out>(outputs);
    REQUIRE(Op::reference(with(host_x.data(), host_weight.data(), host_bias.data(), expected.data())));
    INFO("replay " << i);
    REQUIRE(test::difference(gpu.read(out), expected) == "");
  }
  BI_REQUIRE_CUDA(cudaGraphExecDestroy(replay));
  BI_REQUIRE_CUDA(cudaGraphDestroy(graph));
}

template <class Op, class T, class Out>
void check_graphs() {
  check_graph<Op, T, Out>(37, 200);
  check_graph<Op, T, Out>(5, 8300);
}

// ---- calls that must do nothing

// What a call enqueues, and its status.
struct enqueued {
  bi::status st;
  std::size_t nodes;
};
template <class Call>
enqueued enqueue(const test::gpu_backend& gpu, Call call) {
  enqueued e{};
  cudaGraph_t graph = nullptr;
  BI_REQUIRE_CUDA(cudaStreamBeginCapture(gpu.stream(), cudaStreamCaptureModeThreadLocal));
  e.st = call(gpu.stream());
  BI_REQUIRE_CUDA(cudaStreamEndCapture(gpu.stream(), &graph));
  BI_REQUIRE_CUDA(cudaGraphGetNodes(graph, nullptr, &e.nodes));
  BI_REQUIRE_CUDA(cudaGraphDestroy(graph));
  return e;
}

using bi::bf16;
constexpr std::int64_t good_rows = 4, good_cols = 24;

// Arguments that are right, on the device.
template <class Op, class Out>
auto good_args(test::gpu_backend& gpu) {
  test::row_call<bf16, Out> call;
  call.x = gpu.output<bf16>(good_rows * good_cols);
  call.weight = call.bias = gpu.output<bf16>(good_cols);
  call.rows = good_rows;
  call.cols = good_cols;
  call.out = gpu.output<Out>(good_rows * good_cols);
  return Op::args(call);
}

template <class Op, class Args, class Change>
void check_refused(const test::gpu_backend& gpu, Args args, Change change, const test::complaint& expected) {
  change(args);
  const enqueued e = enqueue(gpu, [&](bi::cuda_stream stream) { return Op::gpu(args, {}, stream); });
  REQUIRE(test::other_than(expected, e.st) == "");
  REQUIRE(e.nodes == 0);
}
template <class Op, class Args, class Change>
void check_nodes(const test::gpu_backend& gpu, Args args, Change change, std::size_t nodes) {
  change(args);
  const enqueued e = enqueue(gpu, [&](bi::cuda_stream stream) { return Op::gpu(args, {}, stream); });
  INFO(bi::describe(e.st));
  REQUIRE(e.st);
  REQUIRE(e.nodes == nodes);
}

// What every operation over a matrix must refuse, and when it launches.
template <class Op, class Out>
void check_calls() {
  test::gpu_backend gpu;
  const auto good = good_args<Op, Out>(gpu);
  check_nodes<Op>(
      gpu, good, [](auto&) {}, 1);
  check_nodes<Op>(
      gpu, good, [](auto& a) { a.rows = 0, a.x = nullptr; }, 0);
  check_refused<Op>(gpu, good, [](auto& a) { a.rows = -1; }, {bi::error::too_small, "rows", -1});
  check_refused<Op>(gpu, good, [](auto& a) { a.cols = -3; }, {bi::error::too_small, "cols", -3});
  check_refused<Op>(gpu, good, [](auto& a) { a.x_stride = 23; }, {bi::error::too_small, "x_stride", 23});
  check_refused<Op>(gpu, good, [](auto& a) { a.x = nullptr; }, {bi::error::null_pointer, "x"});
  const auto odd = [](auto& a) { a.x = reinterpret_cast<bf16*>(reinterpret_cast<std::uintptr_t>(a.x) + 1); };
  check_refused<Op>(gpu, good, odd, {bi::error::misaligned, "x"});
}
template <class Op>
void check_out_calls() {
  check_calls<Op, bf16>();
  test::gpu_backend gpu;
  const auto good = good_args<Op, bf16>(gpu);
  check_nodes<Op>(
      gpu, good, [](auto& a) { a.cols = 0; }, 0);
  check_refused<Op>(gpu, good, [](auto& a) { a.out = nullptr; }, {bi::error::null_pointer, "out"});
  check_refused<Op>(gpu, good, [](auto& a) { a.out_stride = 1; }, {bi::error::too_small, "out_stride", 1});
  check_refused<Op>(gpu, good, [](auto& a) { a.out = const_cast<bf16*>(a.x) + 1; }, {bi::error::overlap, "out"});
}
template <class Op>
void check_eps_calls() {
  check_out_calls<Op>();
  test::gpu_backend gpu;
  const auto good = good_args<Op, bf16>(gpu);
  check_refused<Op>(gpu, good, [](auto& a) { a.eps = -1.0f; }, {bi::error::not_valid, "eps"});
  check_refused<Op>(gpu, good, [](auto& a) { a.eps = bi::inf_f32(); }, {bi::error::not_valid, "eps"});
  check_refused<Op>(gpu, good, [](auto& a) { a.out = const_cast<bf16*>(a.weight); }, {bi::error::overlap, "out"});
}

}  // namespace

TEMPLATE_TEST_CASE("rms_norm: the GPU gives the reference's bytes", "[gpu][rms_norm]", bf16, bi::fp16, float) {
  check_rms_norm<c::rms_norm_draft, TestType>();
  check_rms_norm<c::rms_norm_hf_draft, TestType>();
  check_rms_norm<c::rms_norm_one_plus_draft, TestType>();
}

TEMPLATE_TEST_CASE("layer_norm: the GPU gives the reference's bytes", "[gpu][layer_norm]", bf16, bi::fp16, float) {
  using op = test::layer_norm_op<>;
  comparison both;
  both.same_rows<op, TestType, TestType>();
  for (row_shape s : shapes()) {
    if (s.rows > 100) continue;
    both.same(s, [&](auto& b) { return test::run_rows_in_place<op, TestType>(b, s); });
    s.weight = s.seed % 3 == 0;
    s.bias = s.seed % 3 == 1;
    both.same(s, [&](auto& b) { return test::run_rows<op, TestType, TestType>(b, s); });
  }
}

TEMPLATE_TEST_CASE("reduce: the GPU gives the reference's bytes", "[gpu][reduce]", bf16, bi::fp16, float) {
  using T = TestType;
  using other = std::conditional_t<std::is_same_v<T, float>, bi::fp16, float>;
  comparison().same_rows<test::reduce_op<reduction::sum>, T, other>();
  comparison().same_rows<test::reduce_op<reduction::mean>, T, other>();
  comparison().same_rows<test::reduce_op<reduction::max>, T, T>();
  comparison().same_rows<test::reduce_op<reduction::min>, T, T>();
  comparison both;
  for (const row_shape& s : shapes()) {
    if (s.rows > 100) continue;
    both.same(s, [&](auto& b) { return test::run_rows<test::reduce_op<reduction::sum>, T, T>(b, s); });
    both.same(s, [&](auto& b) { return test::run_rows<test::reduce_op<reduction::max>, T, other>(b, s); });
  }
  // An empty row has a result.
  const row_shape empty{9, 0};
  both.same(empty, [&](auto& b) { return test::run_rows<test::reduce_op<reduction::sum>, T, T>(b, empty); });
  both.same(empty, [&](auto& b) { return test::run_rows<test::reduce_op<reduction::mean>, T, T>(b, empty); });
  both.same(empty, [&](auto& b) { return test::run_rows<test::reduce_op<reduction::max>, T, T>(b, empty); });
  both.same(empty, [&](auto& b) { return test::run_rows<test::reduce_op<reduction::min>, T, T>(b, empty); });
}

TEMPLATE_TEST_CASE("argmax and argmin: the GPU gives the reference's bytes", "[gpu][reduce]", bf16, bi::fp16, float) {
  comparison().same_rows<test::argmax_op<>, TestType, std::int64_t>();
  comparison().same_rows<test::argmin_op<>, TestType, std::int64_t>();
}

TEMPLATE_TEST_CASE("softmax: the GPU gives the reference's bytes", "[gpu][softmax]", bf16, bi::fp16, float) {
  using T = TestType;
  using other = std::conditional_t<std::is_same_v<T, float>, bf16, float>;
  comparison().same_rows<test::softmax_op<>, T, T>();
  comparison().same_rows<test::log_softmax_op<>, T, other>();
  comparison().same_rows<test::logsumexp_op<>, T, float>();
  comparison both;
  for (const row_shape& s : shapes()) {
    if (s.rows > 100) continue;
    both.same(s, [&](auto& b) { return test::run_rows_in_place<test::softmax_op<>, T>(b, s); });
    both.same(s, [&](auto& b) { return test::run_rows_in_place<test::log_softmax_op<>, T>(b, s); });
    both.same(s, [&](auto& b) { return test::run_rows<test::softmax_op<>, T, other>(b, s); });
  }
  const row_shape empty{9, 0};
  both.same(empty, [&](auto& b) { return test::run_rows<test::logsumexp_op<>, T, float>(b, empty); });
}

// Test cases of their own, to run side by side.
TEMPLATE_TEST_CASE("norms: every schedule gives the reference's bytes", "[gpu][schedule]", bf16, float) {
  CHECK(force_operations<TestType>([](const std::string& o) { return is_norm(o); }) == 7);
}
TEMPLATE_TEST_CASE("softmax, logsumexp: every schedule gives the reference's bytes", "[gpu][schedule]", bf16, float) {
  CHECK(force_operations<TestType>([](const std::string& o) { return is_softmax(o); }) == 3);
}
TEMPLATE_TEST_CASE("reduce, argmax, argmin: every schedule gives the reference's bytes", "[gpu][schedule]", bf16,
                   float) {
  const auto others = [](const std::string& o) { return !is_norm(o) && !is_softmax(o); };
  CHECK(force_operations<TestType>(others) == 6);
}

// Three levels of the row tree.
TEST_CASE("reduce: a row of more than 2^26 elements", "[gpu][reduce]") {
  constexpr std::int64_t cols = (std::int64_t{1} << 26) + 3 * 8192 + 5;
  std::vector<bf16> x(cols);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::uint64_t bits = bi::mix64(i);
    x[i].bits = static_cast<std::uint16_t>(0x3000 + (bits & 0x8fff));
  }
  test::host_backend host;
  test::gpu_backend gpu;
  const auto both = [&](auto op, auto out) {
    using op_type = decltype(op);
    using Out = decltype(out);
    const auto run = [&](auto& b) {
      test::row_call<bf16, Out> call;
      call.x = b.input(x);
      call.rows = 1;
      call.cols = cols;
      call.out = b.template output<Out>(1);
      b.run(op, op_type::args(call));
      const auto y = b.read(call.out);
      b.clear();
      return y;
    };
    REQUIRE(test::difference(run(gpu), run(host)) == "");
  };
  both(test::reduce_op<reduction::sum>{}, float{});
  both(test::reduce_op<reduction::mean>{}, float{});
  x[cols - 9000] = bf16{0x4f00};
  both(test::argmax_op<>{}, std::int64_t{});
  // Few blocks have anything but -Inf in them, on both sides of block 8192.
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (i / 8192 % 512 != 1 && i / 8192 != 8193) x[i].bits = 0xff80;
  }
  both(test::logsumexp_op<>{}, float{});
}

TEST_CASE("rms_norm: a row does not know its batch", "[gpu][rms_norm]") {
  check_batches<test::rms_norm_op<>, bf16, bf16>();
  check_batches<test::rms_norm_op<c::rms_norm_hf_draft>, bi::fp16, bi::fp16>();
  check_batches<test::rms_norm_op<c::rms_norm_one_plus_draft>, float, float>();
  REQUIRE(dependence_of_split([](const float* x, std::int64_t cols, std::int64_t split) {
            return c::norm_scale(split_tree(x, cols, split, c::square_step{}), cols, 1e-6f);
          }) != "");
}

TEST_CASE("qk_norm: a token does not know its batch", "[gpu][rms_norm]") { check_batches<four_heads_op, bf16, bf16>(); }

TEST_CASE("layer_norm: a row does not know its batch", "[gpu][layer_norm]") {
  check_batches<test::layer_norm_op<>, bf16, bf16>();
  check_batches<test::layer_norm_op<>, float, float>();
  REQUIRE(dependence_of_split([](const float* x, std::int64_t cols, std::int64_t split) {
            const float mean = c::layer_norm_draft::mean(split_tree(x, cols, split, c::add_step{}), cols);
            return c::layer_norm_draft::value<float>(x[0], mean, 1.0f, false, 0.0f, false, 0.0f);
          }) != "");
}

TEST_CASE("reduce: a row does not know its batch", "[gpu][reduce]") {
  check_batches<test::reduce_op<reduction::sum>, bf16, float>();
  check_batches<test::reduce_op<reduction::mean>, float, float>();
  check_batches<test::reduce_op<reduction::max>, bf16, float>();
  check_batches<test::reduce_op<reduction::min>, bf16, float>();
  REQUIRE(dependence_of_split([](const float* x, std::int64_t cols, std::int64_t split) {
            return split_tree(x, cols, split, c::add_step{});
          }) != "");
}

TEST_CASE("argmax and argmin: a row does not know its batch", "[gpu][reduce]") {
  check_batches<test::argmax_op<>, bf16, std::int64_t>();
  check_batches<test::argmin_op<>, bf16, std::int64_t>();
  // Ties to the part that answers last.
  REQUIRE(dependence_of_split([](const float* x, std::int64_t cols, std::int64_t split) {
            std::int64_t best = 0;
            for (std::int64_t i = 1; i < cols; ++i) {
              if (bi::greater(x[i], x[best]) || (i >= split && bi::equal(x[i], x[best]))) best = i;
            }
            return bi::float_from_int64(best);
          }) != "");
}

TEST_CASE("softmax: a row does not know its batch", "[gpu][softmax]") {
  check_batches<test::softmax_op<>, bf16, bf16>();
  check_batches<test::log_softmax_op<>, float, float>();
  check_batches<test::logsumexp_op<>, bf16, float>();
  REQUIRE(dependence_of_split([](const float* x, std::int64_t cols, std::int64_t split) {
            const float m = c::reduce_block(x, static_cast<int>(cols), bi::neg_inf_f32(), c::max_step{}, c::max_step{});
            return c::softmax_draft::softmax_form::row(split_tree(x, cols, split, c::exp_step{m}));
          }) != "");
}

TEST_CASE("rms_norm, qk_norm and layer_norm: replayed from a graph", "[gpu][rms_norm][layer_norm]") {
  check_graphs<test::rms_norm_op<>, bf16, bf16>();
  check_graphs<test::rms_norm_op<c::rms_norm_hf_draft>, bf16, bf16>();
  check_graphs<four_heads_op, bf16, bf16>();
  check_graphs<test::layer_norm_op<>, float, float>();
}
TEST_CASE("reduce, argmax and argmin: replayed from a graph", "[gpu][reduce]") {
  check_graphs<test::reduce_op<reduction::sum>, bf16, float>();
  check_graphs<test::reduce_op<reduction::max>, bi::fp16, bi::fp16>();
  check_graphs<test::argmax_op<>, bf16, std::int64_t>();
  check_graphs<test::argmin_op<>, float, std::int64_t>();
}
TEST_CASE("softmax, log_softmax and logsumexp: replayed from a graph", "[gpu][softmax]") {
  check_graphs<test::softmax_op<>, bf16, bf16>();
  check_graphs<test::log_softmax_op<>, bf16, float>();
  check_graphs<test::logsumexp_op<>, float, float>();
}

TEST_CASE("rms_norm: bad calls launch nothing", "[gpu][rms_norm]") {
  using op = test::rms_norm_op<>;
  check_eps_calls<op>();
  test::gpu_backend gpu;
  const auto good = good_args<op, bf16>(gpu);
  const auto no_sum = [](auto& a) { a.residual = a.x; };
  check_refused<op>(gpu, good, no_sum, {bi::error::null_pointer, "residual_out"});
  check_refused<op>(gpu, good, [](auto& a) { a.weight = nullptr; }, {bi::error::null_pointer, "weight"});
}

TEST_CASE("qk_norm: bad calls launch nothing", "[gpu][rms_norm]") {
  using op = test::qk_norm_op<>;
  test::gpu_backend gpu;
  bi::qk_norm_args<bf16> good;
  good.tokens = 3;
  good.heads = 2;
  good.head_dim = 16;
  good.x = gpu.output<bf16>(96);
  good.weight = gpu.output<bf16>(16);
  good.out = gpu.output<bf16>(96);
  check_nodes<op>(
      gpu, good, [](auto&) {}, 1);
  check_nodes<op>(
      gpu, good, [](auto& a) { a.tokens = 0, a.x = nullptr; }, 0);
  check_nodes<op>(
      gpu, good, [](auto& a) { a.heads = 0; }, 0);
  check_nodes<op>(
      gpu, good, [](auto& a) { a.head_dim = 0; }, 0);
  check_refused<op>(gpu, good, [](auto& a) { a.heads = -1; }, {bi::error::too_small, "heads", -1});
  check_refused<op>(gpu, good, [](auto& a) { a.x_head_stride = 15; }, {bi::error::too_small, "x_head_stride", 15});
  check_refused<op>(gpu, good, [](auto& a) { a.out_token_stride = 31; },
                    {bi::error::too_small, "out_token_stride", 31});
  check_refused<op>(gpu, good, [](auto& a) { a.out = nullptr; }, {bi::error::null_pointer, "out"});
}

TEST_CASE("layer_norm: bad calls launch nothing", "[gpu][layer_norm]") { check_eps_calls<test::layer_norm_op<>>(); }

TEST_CASE("reduce: bad calls launch nothing", "[gpu][reduce]") {
  using op = test::reduce_op<reduction::sum>;
  check_calls<op, float>();
  test::gpu_backend gpu;
  const auto good = good_args<op, float>(gpu);
  check_nodes<op>(
      gpu, good, [](auto& a) { a.cols = 0, a.x = nullptr; }, 1);
  check_refused<op>(gpu, good, [](auto& a) { a.out = nullptr; }, {bi::error::null_pointer, "out"});
  const enqueued e =
      enqueue(gpu, [&](bi::cuda_stream stream) { return bi::reduce(good, static_cast<reduction>(4), stream); });
  REQUIRE(test::other_than({bi::error::not_supported, "reduction", 4}, e.st) == "");
  REQUIRE(e.nodes == 0);

  // Two levels of more blocks than a cluster has at once: a launch each with a workspace, one without. A workspace that is too small is refused.
  auto wide = good;
  wide.rows = 1;
  wide.cols = 65 * 8192;
  wide.x = gpu.output<bf16>(wide.cols);
  const std::size_t bytes = bi::reduce_workspace_bytes(wide.rows, wide.cols);
  REQUIRE(bytes > 0);
  bi::workspace ws{gpu.output<unsigned char>(static_cast<std::int64_t>(bytes)), bytes};
  const auto sum = [&](bi::cuda_stream stream) { return bi::reduce(wide, reduction::sum, ws, stream); };
  const enqueued full = enqueue(gpu, sum);
  REQUIRE(full.st);
  REQUIRE(full.nodes == 2);
  ws.bytes = bytes - 1;
  const enqueued small_ws = enqueue(gpu, sum);
  REQUIRE(small_ws.st.code == bi::error::workspace_too_small);
  REQUIRE(small_ws.nodes == 0);
  ws = {};
  const enqueued none = enqueue(gpu, sum);
  REQUIRE(none.st);
  REQUIRE(none.nodes == 1);
}

TEST_CASE("argmax and argmin: bad calls launch nothing", "[gpu][reduce]") {
  using op = test::argmax_op<>;
  check_calls<op, std::int64_t>();
  check_calls<test::argmin_op<>, std::int64_t>();
  test::gpu_backend gpu;
  const auto good = good_args<op, std::int64_t>(gpu);
  check_refused<op>(gpu, good, [](auto& a) { a.cols = 0; }, {bi::error::too_small, "cols", 0});
  check_refused<op>(gpu, good, [](auto& a) { a.index = nullptr; }, {bi::error::null_pointer, "index"});
}

TEST_CASE("softmax: bad calls launch nothing", "[gpu][softmax]") {
  check_out_calls<test::softmax_op<>>();
  check_out_calls<test::log_softmax_op<>>();
  using op = test::logsumexp_op<>;
  check_calls<op, float>();
  test::gpu_backend gpu;
  const auto good = good_args<op, float>(gpu);
  check_nodes<op>(
      gpu, good, [](auto& a) { a.cols = 0, a.x = nullptr; }, 1);
  check_refused<op>(gpu, good, [](auto& a) { a.out = nullptr; }, {bi::error::null_pointer, "out"});
}
