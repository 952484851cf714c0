// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/sample.hpp"

#include <cstdint>
#include <type_traits>
#include <vector>

#include "bi/reference/sample.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace ref = bi::reference;
using bi::error;
using test::bad_row;
using test::byte_after;
using test::require_complaints;
using T = bi::bf16;

namespace {

constexpr std::int64_t huge = std::int64_t{1} << 61;

static_assert(std::is_same_v<bi::status, decltype(bi::sample(bi::sample_args<T>{}, bi::cuda_stream{}))>);
static_assert(std::is_trivially_copyable_v<bi::sample_params> && sizeof(bi::sample_params) == 40);
static_assert(bi::verify_args<T>{.draft = nullptr}.requests == 0);  // no member without a default

// All outputs and all inputs lie in one buffer of 32-bit words.
struct buffer {
  std::vector<std::int32_t> data = std::vector<std::int32_t>(1024, 0x3f803f80);
  template <class P>
  P* place(int word) {
    return reinterpret_cast<P*>(data.data() + word);
  }
};

bi::sample_args<T> good_args(buffer& b) {
  bi::sample_args<T> a;  // 4 rows of 8 logits, 10 apart: 38 elements, 19 words
  a.logits = b.place<T>(0);
  a.logits_stride = 10;
  a.rows = 4;
  a.vocab = 8;
  a.params = b.place<bi::sample_params>(100);
  a.token = b.place<std::int32_t>(200);
  a.logprob = b.place<float>(210);
  a.flags = b.place<std::uint32_t>(220);
  return a;
}

}  // namespace

TEST_CASE("sample: bad input", "[public][sample]") {
  using args = bi::sample_args<T>;
  buffer b;
  const args good = good_args(b);
  REQUIRE(check(good));
  const bad_row<args> rows[] = {
      {[](args& a) { a.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.rows = huge; }, {error::overflow, "logits_stride", 10}},
      {[](args& a) { a.vocab = 0; }, {error::too_small, "vocab", 0}},
      {[](args& a) { a.vocab = 1 << 20, a.logits_stride = 0; }, {error::too_large, "vocab", 1 << 20}},
      {[](args& a) { a.logits_stride = 7; }, {error::too_small, "logits_stride", 7}},
      {[](args& a) { a.logits_stride = huge; }, {error::overflow, "logits_stride", huge}},
      {[](args& a) { a.logits = nullptr; }, {error::null_pointer, "logits"}},
      {[](args& a) { a.params = nullptr; }, {error::null_pointer, "params"}},
      {[](args& a) { a.token = nullptr; }, {error::null_pointer, "token"}},
      {[](args& a) { a.logits = byte_after(a.logits); }, {error::misaligned, "logits"}},
      {[](args& a) { a.params = byte_after(a.params); }, {error::misaligned, "params"}},
      {[](args& a) { a.token = byte_after(a.token); }, {error::misaligned, "token"}},
      {[](args& a) { a.logprob = byte_after(a.logprob); }, {error::misaligned, "logprob"}},
      {[](args& a) { a.flags = byte_after(a.flags); }, {error::misaligned, "flags"}},
      {[&](args& a) { a.token = b.place<std::int32_t>(18); }, {error::overlap, "token"}},
      {[&](args& a) { a.token = b.place<std::int32_t>(139); }, {error::overlap, "token"}},
      {[&](args& a) { a.logprob = b.place<float>(0); }, {error::overlap, "logprob"}},
      {[&](args& a) { a.logprob = b.place<float>(203); }, {error::overlap, "logprob"}},
      {[&](args& a) { a.flags = b.place<std::uint32_t>(101); }, {error::overlap, "flags"}},
      {[&](args& a) { a.flags = b.place<std::uint32_t>(200); }, {error::overlap, "flags"}},
      {[&](args& a) { a.flags = b.place<std::uint32_t>(213); }, {error::overlap, "flags"}},
      {[](args& a) { a.rows = 0, a.vocab = -1; }, {error::too_small, "vocab", -1}},
  };
  require_complaints(good, rows, b.data, [](const args& a) { return ref::sample(a); });
  args a = good;
  a.vocab = 1 << 20;
  a.logits_stride = 0;
  REQUIRE(bi::describe(check(a)) == "sample: vocab = 1048576 must be at most 1048575");
  a = good;
  a.logprob = nullptr;
  a.flags = nullptr;
  a.token = b.place<std::int32_t>(19);  // right after the logits
  REQUIRE(check(a));
}

TEST_CASE("verify: bad input", "[public][sample]") {
  using args = bi::verify_args<T>;
  buffer b;
  b.data[310] = b.data[311] = 0;
  b.data[312] = 4;
  args good;
  good.sample = good_args(b);
  good.draft = b.place<std::int32_t>(300);
  good.start = b.place<std::int32_t>(310);
  good.requests = 2;
  good.accepted = b.place<std::int32_t>(320);
  REQUIRE(check(good));
  const bad_row<args> rows[] = {
      {[](args& a) { a.sample.rows = -1; }, {error::too_small, "rows", -1}},
      {[](args& a) { a.sample.vocab = 0; }, {error::too_small, "vocab", 0}},
      {[](args& a) { a.sample.token = nullptr; }, {error::null_pointer, "token"}},
      {[](args& a) { a.requests = -1; }, {error::too_small, "requests", -1}},
      {[](args& a) { a.requests = huge; }, {error::too_large, "requests", huge}},
      {[](args& a) { a.draft = nullptr; }, {error::null_pointer, "draft"}},
      {[](args& a) { a.start = nullptr; }, {error::null_pointer, "start"}},
      {[](args& a) { a.accepted = nullptr; }, {error::null_pointer, "accepted"}},
      {[](args& a) { a.draft = byte_after(a.draft); }, {error::misaligned, "draft"}},
      {[](args& a) { a.start = byte_after(a.start); }, {error::misaligned, "start"}},
      {[](args& a) { a.accepted = byte_after(a.accepted); }, {error::misaligned, "accepted"}},
      {[&](args& a) { a.accepted = b.place<std::int32_t>(303); }, {error::overlap, "accepted"}},
      {[&](args& a) { a.accepted = b.place<std::int32_t>(312); }, {error::overlap, "accepted"}},
      {[&](args& a) { a.accepted = b.place<std::int32_t>(200); }, {error::overlap, "accepted"}},
      {[&](args& a) { a.accepted = b.place<std::int32_t>(210); }, {error::overlap, "accepted"}},
      {[&](args& a) { a.accepted = b.place<std::int32_t>(220); }, {error::overlap, "accepted"}},
      {[&](args& a) { a.accepted = b.place<std::int32_t>(139); }, {error::overlap, "accepted"}},
      {[&](args& a) { a.accepted = b.place<std::int32_t>(18); }, {error::overlap, "accepted"}},
      {[&](args& a) { a.draft = a.sample.token; }, {error::overlap, "token"}},
      {[&](args& a) { a.start = a.sample.token; }, {error::overlap, "token"}},
      {[](args& a) { a.sample.rows = 3; }, {error::index_out_of_range, "start", 4}},
  };
  require_complaints(good, rows, b.data, [](const args& a) { return ref::verify(a); });
}

TEST_CASE("sample: nothing to do", "[public][sample]") {
  bi::sample_args<T> a;
  a.vocab = 10;
  REQUIRE(ref::sample(a));
  bi::verify_args<T> v;
  v.sample = a;
  REQUIRE(ref::verify(v));
  const std::vector<std::int32_t> start = {0, 0};  // a request without rows
  std::vector<std::int32_t> accepted = {9};
  v.requests = 1;
  v.start = start.data();
  v.accepted = accepted.data();
  REQUIRE(ref::verify(v));
  REQUIRE(accepted[0] == 0);
}
