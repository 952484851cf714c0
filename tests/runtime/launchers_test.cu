// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Every launcher on a runtime that can be told to fail (double.hpp). clang++ compiles the host's half of it with the
// headers in stub/, where there is no toolkit; kernels are addresses here.

#include <cstdlib>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "bi/bi.cuh"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/good_args.hpp"

using bi::bf16;
using bi::status;
using bi::runtime::fake;

// The body that clang gives a kernel on the host; nothing calls one.
extern "C" {
unsigned __cudaPopCallConfiguration(dim3*, dim3*, std::size_t*, void*) { std::abort(); }
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, std::size_t, cudaStream_t) { std::abort(); }
}

namespace {

const bi::cuda_stream stream = nullptr;

struct call {
  std::string name;  // what a status calls the operation
  std::function<status()> run;
};

using attention = bi::attention<bf16, 128>;
using wide_attention = bi::attention<bf16, 256>;

bi::workspace room(std::size_t bytes) { return {test::nowhere<char>(40), bytes}; }

bi::attention_args<bf16> attention_of(std::int64_t q_len, bool sharing) {
  auto a = test::good_attention<bf16>();
  a.limits.max_q_len = q_len;
  a.rows = 5 * q_len;
  if (!sharing) a.sharing = {}, a.limits.max_groups = 0;
  return a;
}

// A few long views.
bi::attention_args<bf16> long_attention() {
  auto a = attention_of(1, false);
  a.q_start = nullptr;
  a.requests = a.rows = 4;
  a.limits.heads_q = 64, a.limits.heads_kv = a.cache.heads = 8;
  a.limits.max_view = 65536, a.limits.max_view_sum = 0;
  return a;
}

template <class Epilogue, class Out = bf16>
call gemm_call(std::int64_t m, bi::weight_layout layout, int slices, bool aligned = true) {
  return {"gemm", [=] {
            auto l = test::good_gemm_limits();
            l.layout = layout;
            l.slices = slices;
            auto a = test::good_gemm<bf16, Epilogue, Out>();
            a.m = m;
            if (!aligned) a.lda = l.k + 1;
            return bi::gemm<bf16, Epilogue, Out>::prepare(l)(a, {}, stream);
          }};
}

// Each launcher, on each way that it can take.
std::vector<call> calls() {
  using bi::reduction;
  namespace e = bi::epilogue;
  std::vector<call> all;
  const auto add = [&](const char* name, auto run) { all.push_back({name, run}); };
  for (const std::int64_t rows : {1, 37, 100000}) {
    for (const std::int64_t cols : {7, 128, 4096, 8192, 20000, 65536, 151936, 600000, 3000000}) {
      const auto sized = [=](auto a) {
        a.rows = rows;
        a.cols = cols;
        return a;
      };
      add("rms_norm", [=] { return bi::rms_norm(sized(test::good_rms_norm<bf16>()), stream); });
      add("layer_norm", [=] { return bi::layer_norm(sized(test::good_layer_norm<bf16>()), stream); });
      add("softmax", [=] { return bi::softmax(sized(test::good_softmax<float>()), stream); });
      add("log_softmax", [=] { return bi::log_softmax(sized(test::good_softmax<bf16, float>()), stream); });
      add("logsumexp", [=] { return bi::logsumexp(sized(test::good_logsumexp<bf16>()), stream); });
      const auto bytes = bi::reduce_workspace_bytes(rows, cols), arg_bytes = bi::arg_reduce_workspace_bytes(rows, cols);
      for (const auto op : {reduction::sum, reduction::mean, reduction::max, reduction::min}) {
        add("reduce", [=] { return bi::reduce(sized(test::good_reduce<bf16>()), op, stream); });
        add("reduce", [=] { return bi::reduce(sized(test::good_reduce<bf16>()), op, room(bytes), stream); });
      }
      add("argmax", [=] { return bi::argmax(sized(test::good_arg_reduce<float>()), stream); });
      add("argmin", [=] { return bi::argmin(sized(test::good_arg_reduce<float>()), room(arg_bytes), stream); });
      add("silu_mul", [=] { return bi::silu_mul(sized(test::good_gate_mul<bf16>()), stream); });
      add("gelu_mul", [=] { return bi::gelu_mul(sized(test::good_gate_mul<bf16>()), stream); });
      add("gelu_tanh_mul", [=] { return bi::gelu_tanh_mul(sized(test::good_gate_mul<bf16>()), stream); });
      add("add", [=] { return bi::add(sized(test::good_add<bf16>()), stream); });
      add("embedding", [=] { return bi::embedding(sized(test::good_embedding<bf16>()), stream); });
    }
    for (const std::int64_t inner : {1, 64, 5000}) {
      auto a = test::good_reduce_columns<bf16>();
      a.outer = rows;
      a.inner = inner;
      auto b = test::good_arg_reduce_columns<float>();
      b.outer = rows;
      b.inner = inner;
      const auto bytes = bi::reduce_columns_workspace_bytes(a.outer, a.cols, a.inner);
      for (const auto op : {reduction::sum, reduction::mean, reduction::max, reduction::min}) {
        add("reduce_columns", [=] { return bi::reduce_columns(a, op, room(bytes), stream); });
      }
      add("argmax_columns", [=] { return bi::argmax_columns(b, stream); });
      add("argmin_columns", [=] { return bi::argmin_columns(b, stream); });
    }
    const auto tokens = [=](auto a) {
      a.tokens = rows;
      return a;
    };
    add("qk_norm", [=] { return bi::qk_norm(tokens(test::good_qk_norm<bf16>()), stream); });
    add("rope", [=] { return bi::rope(tokens(test::good_rope<bf16>()), stream); });
    add("kv_append", [=] { return bi::kv_append(tokens(test::good_kv_append<bf16>()), stream); });
    add("kv_append", [=] {
      auto a = tokens(test::good_kv_append<bf16>());
      a.cache.head_dim = a.table.rotary_dim = 68;  // heads of no whole vectors
      return bi::kv_append(a, stream);
    });
    add("count_tokens", [=] { return bi::count_tokens(tokens(test::good_count_tokens()), stream); });
    for (const std::int64_t vocab : {1000, 32000, 151936, 1000000}) {
      const auto drawn = [=](auto a) {
        a.rows = rows;
        a.vocab = vocab;
        return a;
      };
      add("sample", [=] { return bi::sample(drawn(test::good_sample<float>()), stream); });
      add("verify", [=] {
        auto a = test::good_verify<float>();
        a.sample = drawn(a.sample);
        return bi::verify(a, stream);
      });
      const auto edited = [=](auto a) {
        a.counts.vocab = vocab;
        return drawn(a);
      };
      add("logits_edit", [=] { return bi::logits_edit(edited(test::good_logits_edit<float>()), stream); });
      add("logits_edit", [=] {
        auto a = edited(test::good_logits_edit<float>());
        a.out = const_cast<float*>(a.logits);
        return bi::logits_edit(a, stream);
      });
    }
    add("digest_rows", [=] {
      auto a = test::good_digest_rows();
      a.rows = rows;
      return bi::digest_rows(a, stream);
    });
  }
  add("clear_counts", [] { return bi::clear_counts(test::good_clear_counts(), stream); });
  add("count_view", [] { return bi::count_view(test::good_count_view(), stream); });
  add("digest_kv", [] { return bi::digest_kv(test::good_digest_kv<bf16>(), stream); });
  for (const std::int64_t m : {1, 16, 37, 300, 4096}) {
    for (const auto layout : {bi::weight_layout::nk, bi::weight_layout::kn}) {
      for (const int slices : {1, 2, 4, 8}) {
        all.push_back(gemm_call<e::none>(m, layout, slices));
        all.push_back(gemm_call<e::bias_residual>(m, layout, slices));
        all.push_back(gemm_call<e::silu_gate>(m, layout, slices));
        all.push_back(gemm_call<e::partial, float>(m, layout, slices));
        all.push_back(gemm_call<e::none>(m, layout, slices, false));
      }
    }
  }
  add("gemm_finish", [] { return bi::gemm_finish(test::good_gemm_finish<bf16, e::bias>(), stream); });
  add("gemm_f32", [] { return bi::gemm_f32(test::good_gemm_f32(), stream); });
  auto many = long_attention();
  many.limits.max_requests = many.limits.max_rows = many.requests = many.rows = 64;
  add("attention", [=] { return attention::launch(many, room(attention::workspace_bytes(many.limits)), stream); });
  const auto few = long_attention();
  add("attention", [=] { return attention::launch(few, room(attention::workspace_bytes(few.limits)), stream); });
  for (const std::int64_t q_len : {1, 4, 16, 17, 400}) {
    for (const bool sharing : {false, true}) {
      const auto a = attention_of(q_len, sharing);
      auto w = a;
      w.cache.head_dim = w.limits.head_dim = 256;
      add("attention", [=] { return attention::launch(a, {}, stream); });
      add("attention", [=] { return attention::launch(a, room(attention::workspace_bytes(a.limits)), stream); });
      add("attention", [=] { return wide_attention::launch(w, {}, stream); });
      add("attention",
          [=] { return wide_attention::launch(w, room(wide_attention::workspace_bytes(w.limits)), stream); });
    }
  }
  return all;
}

bi::runtime::fake_device hopper() { return {}; }
bi::runtime::fake_device ampere() {
  bi::runtime::fake_device d;
  d.processors = 108, d.major = 8, d.shared_bytes = 163 * 1024, d.ptx_version = 80, d.static_shared_bytes = 0;
  d.registers = 24;
  return d;
}
bi::runtime::fake_device hopper_without_wgmma() {  // built for sm_90, not for sm_90a
  bi::runtime::fake_device d;
  d.static_shared_bytes = 0;
  d.registers = 24;
  return d;
}

}  // namespace

TEST_CASE("launchers: each call of the runtime made to fail in turn is what the status says, and the last",
          "[runtime]") {
  std::size_t failures = 0, without_boxes = 0;
  std::set<std::string> seen, operations;
  for (const auto& device : {hopper(), ampere(), hopper_without_wgmma()}) {
    for (const call& c : calls()) {
      fake = device;
      const status good = c.run();
      INFO(c.name << ": " << bi::describe(good));
      REQUIRE(good);
      REQUIRE(!fake.launches.empty());
      const std::vector<std::string> made = fake.calls;
      operations.insert(c.name);
      for (std::size_t i = 0; i < made.size(); ++i) {
        fake = device;
        fake.fail_at = static_cast<int>(i) + 1;
        const status st = c.run();
        INFO("call " << i << ", " << made[i] << ": " << bi::describe(st));
        if (made[i] == "cuTensorMapEncodeTiled" && c.name == "attention") {
          // Strides that the driver doesn't take: the same kernel copies without boxes.
          REQUIRE(st);
          REQUIRE(!fake.launches.empty());
          ++without_boxes;
          continue;
        }
        REQUIRE(st.code == bi::error::cuda);
        REQUIRE(std::string(st.operation) == c.name);
        REQUIRE(std::string(st.argument) == made[i]);
        // The driver's own codes are not the runtime's.
        REQUIRE(st.cuda_error == (made[i] == "cuTensorMapEncodeTiled" ? cudaErrorInvalidValue : fake.failure));
        REQUIRE(bi::describe(st).find(made[i] + " failed with CUDA error") != std::string::npos);
        REQUIRE(fake.calls.size() == i + 1);  // no second call
        seen.insert(made[i]);
        ++failures;
      }
    }
  }
  CHECK(seen.size() == 11);  // every call that there is, with each attribute
  CHECK(operations.size() == 31);
  CHECK(failures > 2000);
  CHECK(without_boxes > 0);
}

TEST_CASE("launchers: what is launched is within a GPU's limits", "[runtime]") {
  std::size_t launches = 0, clusters = 0, wide = 0, large = 0;
  for (const auto& device : {hopper(), ampere(), hopper_without_wgmma()}) {
    for (const call& c : calls()) {
      fake = device;
      REQUIRE(c.run());
      for (const auto& l : fake.launches) {
        INFO(c.name << ": grid " << l.grid.x << " " << l.grid.y << " " << l.grid.z << ", block " << l.block.x
                    << ", shared " << l.shared_bytes << ", cluster " << l.cluster);
        REQUIRE((l.grid.x >= 1 && l.grid.x <= 0x7fffffffu && l.grid.y >= 1 && l.grid.y <= 65535u));
        REQUIRE((l.grid.z >= 1 && l.grid.z <= 65535u));
        REQUIRE((l.block.x >= 32 && l.block.x % 32 == 0 && l.block.x * l.block.y * l.block.z <= 1024));
        REQUIRE(l.shared_bytes <= static_cast<std::size_t>(device.shared_bytes));
        REQUIRE(l.shared_bytes <= l.allowed_bytes);
        REQUIRE((l.cluster <= 8 || (l.cluster <= 16 && l.wide_clusters)));
        REQUIRE(l.grid.x % l.cluster == 0);
        if (device.major < 9) REQUIRE((l.cluster == 1 && !l.programmatic));
        ++launches;
        clusters += l.cluster > 1 ? 1 : 0;
        wide += l.cluster > 8 ? 1 : 0;
        large += l.shared_bytes > 48 * 1024 ? 1 : 0;
      }
    }
  }
  CHECK((launches > 500 && clusters > 50 && wide > 0 && large > 50));
}

TEST_CASE("launchers: wrong arguments and empty sizes make no call", "[runtime]") {
  fake = hopper();
  const auto refused = [](const status& st) { return st.code != bi::error::none && st.code != bi::error::cuda; };
  const auto spoiled = [](auto a, auto spoil) {
    spoil(a);
    return a;
  };
  const auto negative = [&](auto a) { return spoiled(a, [](auto& x) { x.rows = -1; }); };
  const auto none = [&](auto a) { return spoiled(a, [](auto& x) { x.rows = 0; }); };
  const auto both = [&](const status& bad, const status& empty) {
    CHECK(refused(bad));
    CHECK(empty);
    CHECK(fake.calls.empty());
  };
  const auto of_rows = [&](auto a, auto f) { both(f(negative(a)), f(none(a))); };
  of_rows(test::good_rms_norm<bf16>(), [](const auto& a) { return bi::rms_norm(a, stream); });
  of_rows(test::good_layer_norm<bf16>(), [](const auto& a) { return bi::layer_norm(a, stream); });
  of_rows(test::good_softmax<float>(), [](const auto& a) { return bi::softmax(a, stream); });
  of_rows(test::good_softmax<bf16, float>(), [](const auto& a) { return bi::log_softmax(a, stream); });
  of_rows(test::good_logsumexp<bf16>(), [](const auto& a) { return bi::logsumexp(a, stream); });
  of_rows(test::good_reduce<bf16>(), [](const auto& a) { return bi::reduce(a, bi::reduction::sum, stream); });
  of_rows(test::good_arg_reduce<float>(), [](const auto& a) { return bi::argmax(a, stream); });
  of_rows(test::good_arg_reduce<float>(), [](const auto& a) { return bi::argmin(a, stream); });
  of_rows(test::good_gate_mul<bf16>(), [](const auto& a) { return bi::silu_mul(a, stream); });
  of_rows(test::good_gate_mul<bf16>(), [](const auto& a) { return bi::gelu_mul(a, stream); });
  of_rows(test::good_gate_mul<bf16>(), [](const auto& a) { return bi::gelu_tanh_mul(a, stream); });
  of_rows(test::good_add<bf16>(), [](const auto& a) { return bi::add(a, stream); });
  of_rows(test::good_embedding<bf16>(), [](const auto& a) { return bi::embedding(a, stream); });
  of_rows(test::good_sample<float>(), [](const auto& a) { return bi::sample(a, stream); });
  of_rows(test::good_logits_edit<float>(), [](const auto& a) { return bi::logits_edit(a, stream); });
  of_rows(test::good_digest_rows(), [](const auto& a) { return bi::digest_rows(a, stream); });
  of_rows(test::good_attention<bf16>(), [](const auto& a) { return attention::launch(a, {}, stream); });
  const auto of_tokens = [&](auto a, auto f) {
    both(f(spoiled(a, [](auto& x) { x.tokens = -1; })), f(spoiled(a, [](auto& x) { x.tokens = 0; })));
  };
  of_tokens(test::good_qk_norm<bf16>(), [](const auto& a) { return bi::qk_norm(a, stream); });
  of_tokens(test::good_rope<bf16>(), [](const auto& a) { return bi::rope(a, stream); });
  of_tokens(test::good_kv_append<bf16>(), [](const auto& a) { return bi::kv_append(a, stream); });
  of_tokens(test::good_count_tokens(), [](const auto& a) { return bi::count_tokens(a, stream); });
  const auto of_requests = [&](auto a, auto f) {
    both(f(spoiled(a, [](auto& x) { x.requests = -1; })), f(spoiled(a, [](auto& x) { x.requests = 0; })));
  };
  of_requests(test::good_clear_counts(), [](const auto& a) { return bi::clear_counts(a, stream); });
  of_requests(test::good_count_view(), [](const auto& a) { return bi::count_view(a, stream); });
  of_requests(test::good_digest_kv<bf16>(), [](const auto& a) { return bi::digest_kv(a, stream); });
  const auto of_outer = [&](auto a, auto f) {
    both(f(spoiled(a, [](auto& x) { x.outer = -1; })), f(spoiled(a, [](auto& x) { x.outer = 0; })));
  };
  of_outer(test::good_reduce_columns<bf16>(),
           [](const auto& a) { return bi::reduce_columns(a, bi::reduction::sum, room(1 << 30), stream); });
  of_outer(test::good_arg_reduce_columns<float>(), [](const auto& a) { return bi::argmax_columns(a, stream); });
  of_outer(test::good_arg_reduce_columns<float>(), [](const auto& a) { return bi::argmin_columns(a, stream); });
  const auto of_m = [&](auto a, auto f) {
    both(f(spoiled(a, [](auto& x) { x.m = -1; })), f(spoiled(a, [](auto& x) { x.m = 0; })));
  };
  namespace e = bi::epilogue;
  of_m(test::good_gemm<bf16, e::none>(),
       [](const auto& a) { return bi::gemm<bf16>::prepare(test::good_gemm_limits())(a, {}, stream); });
  of_m(test::good_gemm_finish<bf16, e::bias>(), [](const auto& a) { return bi::gemm_finish(a, stream); });
  of_m(test::good_gemm_f32(), [](const auto& a) { return bi::gemm_f32(a, stream); });
}

TEST_CASE("launchers: workspaces that are null, short by a byte or misaligned", "[runtime]") {
  fake = hopper();
  const auto check = [&](std::size_t bytes, auto f) {
    REQUIRE(bytes > 0);
    fake.calls.clear();
    const auto says = [&](const bi::workspace& ws, bi::error code) {
      const status st = f(ws);
      INFO(bi::describe(st));
      CHECK(st.code == code);
      CHECK(std::string(st.argument) == "workspace");
      CHECK(fake.calls.empty());
      return st;
    };
    CHECK(says(room(bytes - 1), bi::error::workspace_too_small).bound == static_cast<std::int64_t>(bytes));
    (void)says({nullptr, bytes}, bi::error::null_pointer);
    (void)says({test::nowhere<char>(40) + 128, bytes}, bi::error::misaligned);
    CHECK(f(room(bytes)));
    CHECK(!fake.calls.empty());
  };
  const auto a = attention_of(4, false), shared = attention_of(4, true);
  check(attention::workspace_bytes(a.limits), [&](bi::workspace ws) { return attention::launch(a, ws, stream); });
  check(attention::workspace_bytes(shared.limits),
        [&](bi::workspace ws) { return attention::launch(shared, ws, stream); });
  auto r = test::good_reduce<bf16>();
  r.cols = 3000000;
  check(bi::reduce_workspace_bytes(r.rows, r.cols),
        [&](bi::workspace ws) { return bi::reduce(r, bi::reduction::sum, ws, stream); });
  const auto x = test::good_arg_reduce<float>();
  check(bi::arg_reduce_workspace_bytes(x.rows, x.cols), [&](bi::workspace ws) { return bi::argmax(x, ws, stream); });
  const auto c = test::good_reduce_columns<bf16>();
  check(bi::reduce_columns_workspace_bytes(c.outer, c.cols, c.inner),
        [&](bi::workspace ws) { return bi::reduce_columns(c, bi::reduction::sum, ws, stream); });
}

TEST_CASE("launchers: many long views have a queue, which a kernel makes before, and a fold after", "[runtime]") {
  auto a = long_attention();
  a.limits.max_requests = a.limits.max_rows = a.requests = a.rows = 256, a.limits.max_view = 16384;
  const auto launch = [&](int processors = 132) {
    fake = hopper();
    fake.processors = processors;
    REQUIRE(attention::launch(a, room(attention::workspace_bytes(a.limits)), stream));
    return fake.launches;
  };
  CHECK(launch(233).size() == 3);
  CHECK(launch(250).size() == 2);  // the workspace has no room for a queue
  const auto queued = launch();
  REQUIRE(queued.size() == 3);
  CHECK((queued[0].grid.x == 1 && queued[1].grid.x == 132 && queued[1].cluster <= 1));
  CHECK((queued[0].programmatic && queued[1].programmatic && queued[2].programmatic));
  a.requests = a.rows = 32;  // not two items a block
  CHECK(launch().size() == 2);
  a.limits.max_requests = a.limits.max_rows = a.requests = a.rows = 257;
  CHECK(launch().size() == 2);
  a.limits.max_requests = a.limits.max_rows = a.requests = a.rows = 64, a.limits.max_view = 1024;
  for (const auto& l : launch()) CHECK(l.grid.x > 1);
}

TEST_CASE("launchers: a few long views have clusters as far as the device runs them at once, and blocks beside them",
          "[runtime]") {
  const auto a = long_attention();
  const auto launch = [&](int clusters_at_once) {
    fake = hopper();
    fake.clusters_at_once = clusters_at_once;
    REQUIRE(attention::launch(a, room(attention::workspace_bytes(a.limits)), stream));
    return fake.launches;
  };
  const auto of = launch(30);
  REQUIRE(of.size() == 2);
  CHECK((of[0].grid.x == 120 && of[0].cluster == 4 && of[1].grid.x == 132 && of[1].cluster <= 1));
  CHECK((of[0].kernel == of[1].kernel && of[0].programmatic && of[1].programmatic));
  const auto fewer = launch(24);
  CHECK((fewer.size() == 2 && fewer[0].grid.x == 96 && fewer[1].grid.x == 132));
  const auto all = launch(33);
  CHECK((all.size() == 2 && all[0].grid.x == 128 && all[0].cluster == 4));  // one block must be left over
  // Else leaves are dealt out, and another kernel folds.
  const auto none = launch(0);
  CHECK((none.size() == 2 && none[0].cluster <= 1 && none[0].kernel != none[1].kernel));
  auto one = a;
  one.requests = one.rows = 1;
  fake = hopper();
  REQUIRE(attention::launch(one, room(attention::workspace_bytes(one.limits)), stream));
  CHECK((fake.launches.size() == 2 && fake.launches[0].cluster <= 1));
}
