// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstdint>
#include <initializer_list>
#include <string>

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/good_args.hpp"

// At least 25 wrong calls of every operation, one mistake each: which status, which argument, which value. What is
// particular to an operation stands in the file of its own.

using bi::bf16;
using bi::error;

namespace {

constexpr std::int64_t least = INT64_MIN, most = INT64_MAX, huge = std::int64_t{1} << 61;

template <class A, class Check>
class battery {
 public:
  battery(const char* operation, const A& good, Check check) : operation_(operation), good_(good), check_(check) {
    INFO(operation);
    REQUIRE(check_(good_));
  }
  ~battery() {
    INFO(operation_ << ": " << rows_ << " rows");
    CHECK(rows_ >= 25);
  }

  // Each of the values in one field.
  template <class Field>
  void values(const char* name, Field field, error code, std::initializer_list<std::int64_t> values) {
    for (const std::int64_t v : values) {
      A a = good_;
      field(a) = v;
      expect(a, {code, name, v});
    }
  }
  // A size: negative ones are too small.
  template <class Field>
  void size(const char* name, Field field) {
    values(name, field, error::too_small, {-1, least});
  }
  // A stride that must be at least `width`.
  template <class Field>
  void stride(const char* name, Field field, std::int64_t width) {
    values(name, field, error::too_small, {width - 1, 1 - width, least});
    values(name, field, error::overflow, {huge, most});
  }
  template <class Field>
  void pointer(const char* name, Field field) {
    A a = good_;
    field(a) = nullptr;
    expect(a, {error::null_pointer, name, 0});
    optional(name, field);
  }
  template <class Field>
  void optional(const char* name, Field field) {
    A a = good_;
    field(a) = test::byte_after(field(a));
    expect(a, {error::misaligned, name, 0});
  }
  // `field` at the address of `other`: the complaint is of `name` and tells `other_name`.
  template <class Field, class Other>
  void overlap(const char* name, Field field, const char* other_name, Other other) {
    A a = good_;
    field(a) = reinterpret_cast<std::decay_t<decltype(field(a))>>(reinterpret_cast<std::uintptr_t>(other(a)));
    expect(a, {error::overlap, name, 0});
    CHECK(bi::describe(check_(a)) == std::string(operation_) + ": " + name + " overlaps " + other_name);
  }
  template <class Field>
  void real(const char* name, Field field, std::initializer_list<float> values) {
    for (const float v : values) {
      A a = good_;
      field(a) = v;
      expect(a, {error::not_valid, name, 0});
    }
  }
  template <class Spoil>
  void row(Spoil spoil, const test::complaint& expected) {
    A a = good_;
    spoil(a);
    expect(a, expected);
  }

 private:
  void expect(const A& a, const test::complaint& expected) {
    ++rows_;
    INFO(operation_ << ", row " << rows_);
    const bi::status st = check_(a);
    CHECK(test::other_than(expected, st) == "");
    CHECK(std::string(st.operation != nullptr ? st.operation : "") == operation_);
  }

  const char* operation_;
  A good_;
  Check check_;
  int rows_ = 0;
};

const auto plain = [](const auto& a) { return check(a); };

// A field by its name.
#define AT(name) \
#name, [](auto& a) -> auto& { return a.name; }

const std::initializer_list<float> not_eps = {-1e-6f, bi::nan_f32(), bi::inf_f32(), bi::neg_inf_f32()};

// Operations that make one fp32 number of each of 37 rows of 32000.
template <class Args, class Check>
void one_result_a_row(const char* name, const Args& good, Check check) {
  battery b(name, good, check);
  b.size(AT(rows)), b.size(AT(cols));
  b.stride(AT(x_stride), 32000);
  b.values("x_stride", [](auto& a) -> auto& { return a.x_stride; }, error::too_small, {1, 2, 31998});
  b.values("x_stride", [](auto& a) -> auto& { return a.x_stride; }, error::overflow, {huge / 2, most - 1});
  b.pointer(AT(x)), b.pointer(AT(out));
  b.overlap(AT(out), AT(x));
  b.row([](auto& a) { a.out = const_cast<float*>(a.x) + 37 * 32000 - 1; }, {error::overlap, "out"});
  b.row([](auto& a) { a.out = const_cast<float*>(a.x) - 36; }, {error::overlap, "out"});
  b.row([](auto& a) { a.rows = huge; }, {error::overflow, "x_stride", 32000});
  b.row([](auto& a) { a.cols = huge; }, {error::overflow, "x_stride", huge});
  b.row([](auto& a) { a.rows = huge, a.cols = 0; }, {error::overflow, "rows", huge});
  b.row([](auto& a) { a.rows = 0, a.cols = -7; }, {error::too_small, "cols", -7});
  b.row([](auto& a) { a.rows = 0, a.x_stride = 3; }, {error::too_small, "x_stride", 3});
}

}  // namespace

TEST_CASE("battery: norms and softmax", "[public][battery]") {
  {
    battery b("rms_norm", test::good_rms_norm<bf16>(), plain);
    b.size(AT(rows)), b.size(AT(cols));
    b.real(AT(eps), not_eps);
    b.stride(AT(x_stride), 4096), b.stride(AT(residual_stride), 4096), b.stride(AT(out_stride), 4096);
    b.stride(AT(residual_out_stride), 4096);
    b.pointer(AT(x)), b.pointer(AT(residual)), b.pointer(AT(residual_out)), b.pointer(AT(weight)), b.pointer(AT(out));
    b.overlap(AT(out), AT(weight)), b.overlap(AT(out), AT(residual_out)), b.overlap(AT(residual_out), AT(weight));
  }
  {
    battery b("qk_norm", test::good_qk_norm<bf16>(), plain);
    b.size(AT(tokens)), b.size(AT(heads)), b.size(AT(head_dim));
    b.real(AT(eps), not_eps);
    b.stride(AT(x_head_stride), 128), b.stride(AT(out_head_stride), 128);
    b.stride(AT(x_token_stride), 1024), b.stride(AT(out_token_stride), 1024);
    b.pointer(AT(x)), b.pointer(AT(weight)), b.pointer(AT(out));
    b.overlap(AT(out), AT(weight));
  }
  {
    battery b("layer_norm", test::good_layer_norm<float>(), plain);
    b.size(AT(rows)), b.size(AT(cols));
    b.real(AT(eps), not_eps);
    b.stride(AT(x_stride), 4096), b.stride(AT(out_stride), 4096);
    b.pointer(AT(x)), b.optional(AT(weight)), b.optional(AT(bias)), b.pointer(AT(out));
    b.overlap(AT(out), AT(weight)), b.overlap(AT(out), AT(bias));
    b.row([](auto& a) { a.out = test::nowhere<float>(0), a.out_stride = 4097; }, {error::overlap, "out"});
  }
  const auto softmax_rows = [](const char* name, auto check) {
    battery b(name, test::good_softmax<float>(), check);
    b.size(AT(rows)), b.size(AT(cols));
    b.stride(AT(x_stride), 32000), b.stride(AT(out_stride), 32000);
    b.pointer(AT(x)), b.pointer(AT(out));
    b.row([](auto& a) { a.out = test::nowhere<float>(0), a.out_stride = 32001; }, {error::overlap, "out"});
    b.row([](auto& a) { a.out = test::nowhere<float>(0) + 1; }, {error::overlap, "out"});
    b.row([](auto& a) { a.out = test::nowhere<float>(0) - 1; }, {error::overlap, "out"});
    b.row([](auto& a) { a.rows = huge; }, {error::overflow, "x_stride", 32000});
    b.row([](auto& a) { a.cols = huge; }, {error::overflow, "x_stride", huge});
    b.row([](auto& a) { a.rows = 0, a.cols = -7; }, {error::too_small, "cols", -7});
    b.row([](auto& a) { a.rows = 0, a.out_stride = 3; }, {error::too_small, "out_stride", 3});
  };
  softmax_rows("softmax", plain);
  softmax_rows("log_softmax", [](const auto& a) { return check(a, "log_softmax"); });
  one_result_a_row("logsumexp", test::good_logsumexp<float>(), plain);
}

TEST_CASE("battery: reductions", "[public][battery]") {
  const auto max = [](const auto& a) { return check(a, bi::reduction::max); };
  one_result_a_row("reduce", test::good_reduce<float>(), max);
  {
    battery b("reduce_columns", test::good_reduce_columns<float>(), max);
    b.size(AT(outer)), b.size(AT(cols)), b.size(AT(inner));
    b.stride(AT(x_stride), 64);
    b.values("x_stride", [](auto& a) -> auto& { return a.x_stride; }, error::too_small, {1, 2, 62});
    b.pointer(AT(x)), b.pointer(AT(out));
    b.overlap(AT(out), AT(x));
    b.row([](auto& a) { a.out = const_cast<float*>(a.x) + 3 * 32000 * 64 - 1; }, {error::overlap, "out"});
    b.row([](auto& a) { a.out = const_cast<float*>(a.x) - 3 * 64 + 1; }, {error::overlap, "out"});
    b.row([](auto& a) { a.cols = huge; }, {error::overflow, "x_stride", 64});
    b.row([](auto& a) { a.inner = huge; }, {error::overflow, "x_stride", huge});
    b.row([](auto& a) { a.outer = huge; }, {error::overflow, "outer", huge});
    b.row([](auto& a) { a.outer = 0, a.cols = -7; }, {error::too_small, "cols", -7});
    b.row([](auto& a) { a.inner = 0, a.outer = -7; }, {error::too_small, "outer", -7});
  }
  const auto args_of_rows = [](const char* name, auto check) {
    battery b(name, test::good_arg_reduce<float>(), check);
    b.size(AT(rows)), b.values(AT(cols), error::too_small, {0, -1, least});
    b.stride(AT(x_stride), 32000);
    b.values("x_stride", [](auto& a) -> auto& { return a.x_stride; }, error::too_small, {1, 2, 31998});
    b.values("x_stride", [](auto& a) -> auto& { return a.x_stride; }, error::overflow, {huge / 2, most - 1});
    b.pointer(AT(x)), b.pointer(AT(index));
    b.overlap(AT(index), AT(x));
    b.row([](auto& a) { a.rows = huge; }, {error::overflow, "x_stride", 32000});
    b.row([](auto& a) { a.cols = huge; }, {error::overflow, "x_stride", huge});
    b.row([](auto& a) { a.rows = huge, a.cols = 1, a.x_stride = 1; }, {error::overflow, "x_stride", 1});
    b.row([](auto& a) { a.rows = 0, a.cols = -7; }, {error::too_small, "cols", -7});
    b.row([](auto& a) { a.rows = 0, a.x_stride = 3; }, {error::too_small, "x_stride", 3});
  };
  args_of_rows("argmax", plain);
  args_of_rows("argmin", [](const auto& a) { return check(a, "argmin"); });
  const auto args_of_columns = [](const char* name, auto check) {
    battery b(name, test::good_arg_reduce_columns<float>(), check);
    b.size(AT(outer)), b.values(AT(cols), error::too_small, {0, -1, least}), b.size(AT(inner));
    b.stride(AT(x_stride), 64);
    b.values("x_stride", [](auto& a) -> auto& { return a.x_stride; }, error::too_small, {1, 2, 62});
    b.pointer(AT(x)), b.pointer(AT(index));
    b.overlap(AT(index), AT(x));
    b.row([](auto& a) { a.cols = huge; }, {error::overflow, "x_stride", 64});
    b.row([](auto& a) { a.inner = huge; }, {error::overflow, "x_stride", huge});
    b.row([](auto& a) { a.outer = huge; }, {error::overflow, "outer", huge});
    b.row([](auto& a) { a.outer = 0, a.cols = -7; }, {error::too_small, "cols", -7});
    b.row([](auto& a) { a.inner = 0, a.outer = -7; }, {error::too_small, "outer", -7});
  };
  args_of_columns("argmax_columns", plain);
  args_of_columns("argmin_columns", [](const auto& a) { return check(a, "argmin_columns"); });
}

TEST_CASE("battery: elementwise operations", "[public][battery]") {
  for (const char* name : {"silu_mul", "gelu_mul", "gelu_tanh_mul"}) {
    battery b(name, test::good_gate_mul<bf16>(), [name](const auto& a) { return check(a, name); });
    b.size(AT(rows)), b.size(AT(cols)), b.values(AT(column_step), error::too_small, {0, -1, least});
    b.stride(AT(gate_stride), 4096), b.stride(AT(up_stride), 4096), b.stride(AT(out_stride), 4096);
    b.pointer(AT(gate)), b.pointer(AT(up)), b.pointer(AT(out));
    b.row([](auto& a) { a.column_step = huge; }, {error::overflow, "column_step", huge});
  }
  {
    battery b("add", test::good_add<bf16>(), plain);
    b.size(AT(rows)), b.size(AT(cols));
    b.stride(AT(x_stride), 4096), b.stride(AT(y_stride), 4096), b.stride(AT(out_stride), 4096);
    b.pointer(AT(x)), b.pointer(AT(y)), b.pointer(AT(out));
    b.row([](auto& a) { a.out = const_cast<bf16*>(a.x) + 1; }, {error::overlap, "out"});
    b.row([](auto& a) { a.out = const_cast<bf16*>(a.y) - 1; }, {error::overlap, "out"});
  }
  {
    battery b("embedding", test::good_embedding<bf16>(), plain);
    b.size(AT(rows)), b.size(AT(cols)), b.size(AT(table_rows));
    b.stride(AT(table_stride), 4096), b.stride(AT(out_stride), 4096);
    b.pointer(AT(table)), b.pointer(AT(id)), b.pointer(AT(out));
    b.overlap(AT(out), AT(table)), b.overlap(AT(out), AT(id));
    b.row([](auto& a) { a.table_rows = huge; }, {error::overflow, "table_stride", 4096});
  }
  {
    battery b("rope", test::good_rope<bf16>(), plain);
    b.size(AT(tokens)), b.size(AT(heads)), b.size(AT(head_dim));
    b.stride(AT(x_head_stride), 128), b.stride(AT(out_head_stride), 128);
    b.stride(AT(x_token_stride), 1024), b.stride(AT(out_token_stride), 1024);
    b.pointer(AT(x)), b.pointer(AT(position)), b.pointer(AT(out)), b.pointer(AT(table.cos)), b.pointer(AT(table.sin));
    b.values(AT(table.rotary_dim), error::too_large, {130}), b.values(AT(table.rotary_dim), error::not_multiple, {127});
    b.values(AT(table.positions), error::too_small, {0, least});
    b.overlap(AT(out), AT(position)), b.overlap(AT(out), AT(table.cos)), b.overlap(AT(out), AT(table.sin));
  }
}

TEST_CASE("battery: tokens", "[public][battery]") {
  {
    battery b("kv_append", test::good_kv_append<bf16>(), plain);
    b.size(AT(tokens)), b.size(AT(cache.num_pages)), b.values(AT(cache.page_size), error::too_small, {0, -1});
    b.values(AT(cache.heads), error::too_small, {0, least}), b.values(AT(heads_q), error::too_small, {0, least});
    b.stride(AT(k_head_stride), 128), b.stride(AT(v_head_stride), 128), b.stride(AT(q_head_stride), 128);
    b.stride(AT(k_token_stride), 256), b.stride(AT(v_token_stride), 256), b.stride(AT(q_out_token_stride), 1024);
    b.real(AT(norm_eps), not_eps);
    b.pointer(AT(k)), b.pointer(AT(v)), b.pointer(AT(slot)), b.pointer(AT(position)), b.pointer(AT(q_out));
    b.optional(AT(norm_weight)), b.optional(AT(q_norm_weight)), b.optional(AT(digest)), b.optional(AT(run_index));
    b.overlap(AT(digest), AT(slot)), b.overlap(AT(q_out), AT(norm_weight)), b.overlap(AT(cache.k), AT(k));
  }
  {
    battery b("sample", test::good_sample<float>(), plain);
    b.size(AT(rows)), b.values(AT(vocab), error::too_small, {0, -1, least});
    b.stride(AT(logits_stride), 151936);
    b.pointer(AT(logits)), b.pointer(AT(params)), b.pointer(AT(token)), b.optional(AT(logprob)), b.optional(AT(flags));
    b.overlap(AT(token), AT(logits)), b.overlap(AT(token), AT(params)), b.overlap(AT(logprob), AT(token));
    b.overlap(AT(flags), AT(logprob)), b.overlap(AT(flags), AT(params)), b.overlap(AT(logprob), AT(logits));
    b.row([](auto& a) { a.vocab = 1 << 20; }, {error::too_large, "vocab", 1 << 20});
    b.row([](auto& a) { a.rows = huge; }, {error::overflow, "logits_stride", 151936});
    b.row([](auto& a) { a.rows = 0, a.vocab = 0; }, {error::too_small, "vocab", 0});
  }
  {
    battery b("verify", test::good_verify<float>(), plain);
    b.size(AT(requests)), b.values(AT(requests), error::too_large, {huge, most});
    b.pointer(AT(draft)), b.pointer(AT(start)), b.pointer(AT(accepted));
    b.overlap(AT(accepted), AT(draft)), b.overlap(AT(accepted), AT(start));
    const auto token = [](auto& a) -> auto& { return a.sample.token; };
    const auto logits = [](auto& a) -> auto& { return a.sample.logits; };
    const auto params = [](auto& a) -> auto& { return a.sample.params; };
    const auto flags = [](auto& a) -> auto& { return a.sample.flags; };
    const auto logprob = [](auto& a) -> auto& { return a.sample.logprob; };
    b.pointer("token", token), b.pointer("logits", logits), b.pointer("params", params);
    b.optional("flags", flags), b.optional("logprob", logprob);
    const auto accepted = [](auto& a) -> auto& { return a.accepted; };
    b.overlap("accepted", accepted, "token", token), b.overlap("accepted", accepted, "logprob", logprob);
    b.overlap("accepted", accepted, "flags", flags), b.overlap("accepted", accepted, "params", params);
    b.overlap("accepted", accepted, "logits", logits);
    b.size(
        "rows", [](auto& a) -> auto& { return a.sample.rows; });
    b.size(
        "vocab", [](auto& a) -> auto& { return a.sample.vocab; });
  }
  {
    battery b("logits_edit", test::good_logits_edit<float>(), plain);
    b.size(AT(rows)), b.values(AT(vocab), error::too_small, {0, least}), b.values(AT(vocab), error::too_large, {most});
    b.stride(AT(logits_stride), 1000), b.stride(AT(out_stride), 1000), b.stride(AT(mask_stride), 32);
    b.size(AT(drafts)), b.size(AT(biases)), b.size(AT(masks)), b.size(AT(counts.slots));
    b.values(AT(drafts), error::too_large, {most}), b.values(AT(biases), error::too_large, {most});
    b.pointer(AT(logits)), b.pointer(AT(params)), b.pointer(AT(out)), b.pointer(AT(draft)), b.pointer(AT(bias));
    b.pointer(AT(bias_id)), b.pointer(AT(mask)), b.pointer(AT(counts.count)), b.pointer(AT(counts.output));
    b.overlap(AT(out), AT(params)), b.overlap(AT(out), AT(counts.count)), b.overlap(AT(out), AT(mask));
  }
  const auto counts = [](auto& b) {
    b.values(AT(counts.slots), error::too_small, {0, -1, least}), b.values(AT(counts.slots), error::too_large, {huge});
    b.values(AT(counts.vocab), error::too_small, {0, -1}), b.values(AT(counts.vocab), error::too_large, {most});
    b.stride(AT(counts.count_stride), 1000), b.stride(AT(counts.bits_stride), 32);
    b.pointer(AT(counts.count)), b.pointer(AT(counts.output)), b.optional(AT(counts.prompt));
    b.overlap(AT(counts.output), AT(counts.count)), b.overlap(AT(counts.prompt), AT(counts.output));
    b.pointer(AT(slot));
  };
  {
    battery b("clear_counts", test::good_clear_counts(), plain);
    b.size(AT(requests)), b.values(AT(requests), error::too_large, {huge, most});
    counts(b);
    b.overlap(
        "counts.count", [](auto& a) -> auto& { return a.counts.count; }, "slot",
        [](auto& a) -> auto& { return a.slot; });
  }
  {
    battery b("count_tokens", test::good_count_tokens(), plain);
    b.size(AT(tokens)), b.values(AT(tokens), error::too_large, {huge, most});
    counts(b);
    b.pointer(AT(token));
    b.row([](auto& a) { a.times = 2; }, {error::not_supported, "times", 2});
    b.row([](auto& a) { a.times = -1, a.part = bi::token_part::prompt; }, {error::not_supported, "times", -1});
  }
  {
    battery b("count_view", test::good_count_view(), plain);
    b.size(AT(requests)), b.values(AT(requests), error::too_large, {huge, most});
    counts(b);
    b.size(AT(num_pages)), b.values(AT(page_size), error::too_small, {0, least});
    b.pointer(AT(token)), b.optional(AT(first)), b.pointer(AT(count));
    b.row([](auto& a) { a.view = {}; }, {error::not_supported, "view", 0});
  }
}

TEST_CASE("battery: digests and attention", "[public][battery]") {
  {
    battery b("digest_rows", test::good_digest_rows(), plain);
    b.size(AT(rows)), b.size(AT(row_bytes));
    b.stride(AT(row_stride_bytes), 303872);
    b.values("row_stride_bytes", [](auto& a) -> auto& { return a.row_stride_bytes; }, error::too_small,
             {1, 2, 303870, -303872, least + 1});
    b.values("row_stride_bytes", [](auto& a) -> auto& { return a.row_stride_bytes; }, error::overflow,
             {huge + 1, most - 1, most / 2});
    b.pointer(AT(out));
    b.row([](auto& a) { a.data = nullptr; }, {error::null_pointer, "data"});
    b.overlap(AT(out), AT(data));
    b.row([](auto& a) { a.data = reinterpret_cast<const char*>(a.out) + 37 * 8 - 1; }, {error::overlap, "out"});
    b.row([](auto& a) { a.data = reinterpret_cast<const char*>(a.out) - 37 * 303872 + 1; }, {error::overlap, "out"});
    b.row([](auto& a) { a.rows = huge; }, {error::overflow, "row_stride_bytes", 303872});
    b.row([](auto& a) { a.rows = huge, a.row_bytes = 0; }, {error::overflow, "rows", huge});
    b.row([](auto& a) { a.rows = 0, a.row_bytes = -7; }, {error::too_small, "row_bytes", -7});
    b.row([](auto& a) { a.rows = 0, a.row_stride_bytes = 3; }, {error::too_small, "row_stride_bytes", 3});
  }
  const auto cache = [](auto& b) {
    b.values(AT(cache.page_size), error::too_small, {0, -1}), b.values(AT(cache.page_size), error::too_large, {most});
    b.size(AT(cache.num_pages)), b.values(AT(cache.num_pages), error::too_large, {huge});
    b.stride(AT(cache.k_head_stride), 128), b.stride(AT(cache.v_token_stride), 128);
    b.stride(AT(cache.k_page_stride), 128);
    b.pointer(AT(cache.k)), b.pointer(AT(cache.v));
    b.row([](auto& a) { a.view = {}; }, {error::not_supported, "view", 0});
    b.row([](auto& a) { a.view.table.pages = nullptr; }, {error::null_pointer, "view.pages"});
  };
  {
    battery b("digest_kv", test::good_digest_kv<bf16>(), plain);
    b.size(AT(requests)), b.values(AT(requests), error::too_large, {huge});
    cache(b);
    b.optional(AT(first)), b.pointer(AT(count)), b.pointer(AT(out));
    b.overlap(AT(out), AT(first)), b.overlap(AT(out), AT(count));
  }
  {
    battery b("attention", test::good_attention<bf16>(), plain);
    b.size(AT(requests)), b.size(AT(rows)), b.size(AT(window));
    b.values(AT(requests), error::too_large, {6, most}), b.values(AT(rows), error::too_large, {2001, most});
    cache(b);
    b.real(AT(scale), {0.0f, -1.0f, bi::nan_f32(), bi::inf_f32()});
    b.stride(AT(q_head_stride), 128), b.stride(AT(out_head_stride), 128);
    b.pointer(AT(q)), b.pointer(AT(len)), b.optional(AT(q_start)), b.optional(AT(lse)), b.pointer(AT(out));
    b.overlap(AT(out), AT(len)), b.overlap(AT(lse), AT(q_start));
  }
}

TEST_CASE("battery: gemm", "[public][battery]") {
  using epilogue = bi::epilogue::bias_residual;
  {
    // Limits and arguments together.
    struct product : bi::gemm_limits {
      bi::gemm_args<bf16, epilogue> x;
    };
    product good;
    static_cast<bi::gemm_limits&>(good) = test::good_gemm_limits();
    good.x = test::good_gemm<bf16, epilogue>();
    good.x.batch = 3;
    battery b("gemm", good, [](const product& p) { return check(static_cast<const bi::gemm_limits&>(p), p.x); });
#define OF(name) \
#name, [](auto& a) -> auto& { return a.x.name; }
    b.size(AT(n)), b.size(AT(k)), b.size(AT(max_m)), b.size(OF(m)), b.size(OF(batch));
    b.row([](auto& p) { p.slices = 3; }, {error::not_supported, "slices", 3});
    b.row([](auto& p) { p.slices = -1; }, {error::not_supported, "slices", -1});
    b.row([](auto& p) { p.layout = static_cast<bi::weight_layout>(9); }, {error::not_supported, "layout", 9});
    b.values(OF(m), error::too_large, {4097, most});
    b.stride(OF(lda), 4096), b.stride(OF(ldb), 4096), b.stride(OF(ldd), 1024), b.stride(OF(ldr), 1024);
    b.stride(OF(a_batch_stride), 37 * 4096), b.stride(OF(b_batch_stride), 1024 * 4096);
    b.stride(OF(d_batch_stride), 37 * 1024), b.stride(OF(residual_batch_stride), 37 * 1024);
    b.real(OF(alpha), {bi::nan_f32(), bi::inf_f32(), bi::neg_inf_f32()});
    b.pointer(OF(a)), b.pointer(OF(b)), b.pointer(OF(bias)), b.pointer(OF(residual)), b.pointer(OF(d));
    b.overlap(OF(d), OF(a)), b.overlap(OF(d), OF(b)), b.overlap(OF(d), OF(bias));
    b.row([](auto& p) { p.x.d = const_cast<bf16*>(p.x.residual) + 1; }, {error::overlap, "d"});
#undef OF
  }
  {
    battery b("gemm_finish", test::good_gemm_finish<bf16, epilogue>(), plain);
    b.size(AT(m)), b.size(AT(n));
    for (const int ranks : {0, -1, 3, 16}) {
      b.row([=](auto& a) { a.ranks = ranks; }, {error::not_supported, "ranks", ranks});
    }
    b.stride(AT(ldp), 1024), b.stride(AT(ldd), 1024), b.stride(AT(ldr), 1024);
    b.stride(AT(partial_rank_stride), 37 * 1024);
    b.real(AT(alpha), {bi::nan_f32(), bi::inf_f32()});
    b.pointer(AT(partial)), b.pointer(AT(bias)), b.pointer(AT(residual)), b.pointer(AT(d));
    b.overlap(AT(d), AT(partial)), b.overlap(AT(d), AT(bias));
  }
  {
    battery b("gemm_f32", test::good_gemm_f32(), plain);
    b.size(AT(m)), b.size(AT(n)), b.size(AT(k));
    b.stride(AT(d_row_stride), 64);
    b.values(AT(a_row_stride), error::overflow, {huge, -huge, most, least});
    b.values(AT(a_col_stride), error::overflow, {huge, -huge, most, least});
    b.values(AT(b_row_stride), error::overflow, {huge, least});
    b.values(AT(b_col_stride), error::overflow, {huge, least});
    b.pointer(AT(a)), b.pointer(AT(b)), b.pointer(AT(d));
    b.overlap(AT(d), AT(a)), b.overlap(AT(d), AT(b));
  }
}
