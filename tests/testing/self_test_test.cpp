// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/self_test.hpp"

#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "bi/testing/self_test_cases.hpp"
#include "support/catch.hpp"

// The logic of bi::self_test, whose GPU is played by a reference that fails where it is told to.

namespace {

class faulty_backend : public bi::testing::reference_backend {
 public:
  int fail_call = -1;  // this call returns an error
  int flip_read = -1;  // a bit of what this read returns is wrong
  std::int64_t flip_at = 0;
  int calls = 0, reads = 0;

  template <class... Arguments>
  bi::status run(const Arguments&... a) {
    if (calls++ == fail_call) return failure();
    return reference_backend::run(a...);
  }
  template <class E>
  bi::status read(E* to, const E* from, std::int64_t count) {
    const bi::status st = reference_backend::read(to, from, count);
    if (reads++ == flip_read) *(reinterpret_cast<unsigned char*>(to + flip_at) + sizeof(E) - 1) ^= 0x80;
    return st;
  }
  template <class E>
  E* output(std::int64_t count) {
    bytes += (static_cast<std::size_t>(count) * sizeof(E) + 255) / 256 * 256;
    return reference_backend::output<E>(count);
  }
  template <class E>
  const E* input(const std::vector<E>& values) {
    bytes += (values.size() * sizeof(E) + 255) / 256 * 256;
    return reference_backend::input(values);
  }
  std::size_t bytes = 0;

  static bi::status failure() {
    bi::status st;
    st.code = bi::error::cuda, st.cuda_error = 209, st.operation = "gemm", st.argument = "the kernel launch";
    return st;
  }
};

constexpr int operations = 8, outputs = 13;

}  // namespace

TEMPLATE_TEST_CASE("self_test passes the reference", "", bi::bf16, bi::fp16) {
  faulty_backend b;
  const bi::self_test_result r = bi::testing::run_self_test<TestType>(b);
  INFO(bi::describe(r));
  CHECK(r);
  CHECK(r.operations == operations);
  CHECK(b.calls == operations);
  CHECK(b.reads == outputs);
  CHECK(b.bytes > std::size_t{1} << 20);
  CHECK(b.bytes < bi::testing::self_test_bytes - (std::size_t{2} << 20));  // the rest is for workspaces
  CHECK(bi::describe(r) == "ok: 8 operations give the bytes of the CPU reference");
}

TEST_CASE("self_test names the operation, output and element that differ") {
  std::set<std::string> named;
  int last = -1;
  for (int i = 0; i < outputs; ++i) {
    faulty_backend b;
    b.flip_read = i, b.flip_at = 3;
    const bi::self_test_result r = bi::testing::run_self_test<bi::bf16>(b);
    CHECK_FALSE(r);
    REQUIRE(r.operation != nullptr);
    CHECK(r.element == 3);
    CHECK((r.expected ^ r.actual) == std::uint64_t{0x80} << (8 * (r.element_bytes - 1)));
    CHECK(r.operations >= last);
    last = r.operations;
    const std::string text = bi::describe(r);
    CHECK(text.find(std::string(r.operation) + " gives " + r.output + "[3] = 0x") != std::string::npos);
    named.insert(std::string(r.operation) + " " + r.output);
  }
  CHECK(named.size() == outputs);
  CHECK(named.count("gemm d") == 1);
  CHECK(named.count("attention lse") == 1);
}

TEST_CASE("self_test stops at the first call that fails and returns its status") {
  for (int i = 0; i < operations; ++i) {
    faulty_backend b;
    b.fail_call = i;
    const bi::self_test_result r = bi::testing::run_self_test<bi::bf16>(b);
    CHECK_FALSE(r);
    CHECK(b.calls == i + 1);
    CHECK(r.call.cuda_error == 209);
    CHECK(bi::describe(r) == "gemm: the kernel launch failed with CUDA error 209");
  }
}

TEST_CASE("self_test's inputs hold subnormals, and its outputs move") {
  const auto values = bi::testing::detail::self_test_values<bi::bf16>(1000, 1);
  int subnormal = 0;
  for (const bi::bf16 v : values) subnormal += (v.bits & 0x7F80) == 0 && (v.bits & 0x7F) != 0;
  CHECK(subnormal > 50);
  bi::testing::reference_backend cpu;
  bi::testing::detail::self_test_run<bi::bf16, bi::testing::reference_backend> run(cpu);
  REQUIRE(run.all());
  // What a build that flushes subnormals would get wrong: sums that are subnormal.
  subnormal = 0;
  const auto& sums = run.outputs().front().bytes;
  for (std::size_t i = 0; i + 1 < sums.size(); i += 2) {
    const unsigned bits = sums[i] | static_cast<unsigned>(sums[i + 1]) << 8;
    subnormal += (bits & 0x7F80) == 0 && (bits & 0x7F) != 0;
  }
  CHECK(subnormal > 100);
  for (const auto& output : run.outputs()) {
    INFO(output.operation << " " << output.name);
    const std::set<unsigned char> seen(output.bytes.begin(), output.bytes.end());
    CHECK((seen.size() > 2 || std::string(output.name) == "flags"));
  }
}
