// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/status.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "bi/check.hpp"
#include "support/catch.hpp"

using bi::error;

static_assert(std::is_trivially_copyable_v<bi::status>);
static_assert(!std::is_convertible_v<bi::status, bool>, "a status is asked in a condition only");

TEST_CASE("status: a sentence for each code", "[public][status]") {
  const auto sentence = [](error code, const char* relation = nullptr, std::int64_t position = -1) {
    bi::status st;
    st.code = code;
    st.operation = "gemm";
    st.argument = "lda";
    st.relation = relation;
    st.value = -7;
    st.bound = 8;
    st.position = position;
    st.real = 0.5;
    st.cuda_error = 700;
    return bi::describe(st);
  };
  CHECK(sentence(error::none) == "ok");
  CHECK(sentence(error::null_pointer) == "gemm: lda is null");
  CHECK(sentence(error::misaligned) == "gemm: lda = 0xfffffffffffffff9 must be aligned to 8 bytes");
  CHECK(sentence(error::too_small) == "gemm: lda = -7 must be at least 8");
  CHECK(sentence(error::too_small, "k") == "gemm: lda = -7 must be at least k = 8");
  CHECK(sentence(error::too_small, "the entry before", 3) == "gemm: lda[3] = -7 must be at least the entry before = 8");
  CHECK(sentence(error::too_large, "k") == "gemm: lda = -7 must be at most k = 8");
  CHECK(sentence(error::not_multiple) == "gemm: lda = -7 must be a multiple of 8");
  CHECK(sentence(error::not_supported, "1, 2") == "gemm: lda = -7 is not supported; supported: 1, 2");
  CHECK(sentence(error::not_supported) == "gemm: lda = -7 is not supported; supported: nothing else");
  CHECK(sentence(error::overflow) == "gemm: lda = -7 makes offsets that overflow 64 bits");
  CHECK(sentence(error::not_valid, "positive") == "gemm: lda = 0.5 must be positive");
  CHECK(sentence(error::not_valid) == "gemm: lda = 0.5 must be finite");
  CHECK(sentence(error::overlap, "d") == "gemm: lda overlaps d");
  CHECK(sentence(error::overlap) == "gemm: lda overlaps another argument");
  CHECK(sentence(error::index_out_of_range, "pages") == "gemm: lda = -7 must be at least 0 and below pages = 8");
  CHECK(sentence(error::workspace_too_small) == "gemm: lda of -7 bytes is too small, 8 bytes are needed");
  CHECK(sentence(error::cuda) == "gemm: lda failed with CUDA error 700");
  CHECK(sentence(static_cast<error>(99)) == "gemm: lda is not valid");
  bi::status bare;
  bare.code = error::null_pointer;
  CHECK(bi::describe(bare) == "bi: argument is null");
  bare.code = error::cuda;
  CHECK(bi::describe(bare) == "bi: a CUDA call failed with CUDA error 0");
}

TEST_CASE("checker: the first failure stays", "[public][status]") {
  bi::checker c("gemm");
  CHECK(c.ok());
  c.at_least("m", 1, 1).at_most("m", 1, 1).multiple_of("m", 3, 0).multiple_of("m", 4, 2).supported("m", 1, true, "");
  CHECK(c.ok());
  c.real("alpha", 1.0, true, "finite").workspace(nullptr, 0, 0);
  CHECK(c.ok());
  c.at_least("m", 0, 1).at_least("n", -1, 0).real("alpha", 0.0, false, "finite").stride("lda", 1, 2, "k", 1, 4);
  CHECK(bi::describe(c.result()) == "gemm: m = 0 must be at least 1");
}

TEST_CASE("checker: a workspace is large enough, there, and aligned", "[public][status]") {
  alignas(256) static char room[512];
  const auto says = [](const void* p, std::size_t bytes, std::size_t needed) {
    bi::checker c("gemm");
    return bi::describe(c.workspace(p, bytes, needed).result());
  };
  CHECK(says(nullptr, 0, 0) == "ok");
  CHECK(says(room, 512, 512) == "ok");
  CHECK(says(room, 511, 512) == "gemm: workspace of 511 bytes is too small, 512 bytes are needed");
  CHECK(says(nullptr, 512, 512) == "gemm: workspace is null");
  CHECK(says(room + 128, 384, 256).find("must be aligned to 256 bytes") != std::string::npos);
}

TEST_CASE("checker: ranges that meet, and bytes that rows take", "[public][status]") {
  char p[64];
  const auto meet = [&](int a, std::int64_t a_bytes, int b, std::int64_t b_bytes, bool same_ok = false) {
    bi::checker c("x");
    return !c.disjoint("a", p + a, a_bytes, "b", p + b, b_bytes, same_ok).ok();
  };
  CHECK_FALSE(meet(0, 8, 8, 8));
  CHECK_FALSE(meet(8, 8, 0, 8));
  CHECK(meet(0, 9, 8, 8));
  CHECK(meet(8, 8, 0, 9));
  CHECK(meet(0, 64, 8, 1));
  CHECK(meet(8, 1, 0, 64));
  CHECK(meet(0, 8, 0, 8));
  CHECK_FALSE(meet(0, 8, 0, 4, true));
  CHECK(meet(0, 8, 1, 4, true));
  CHECK_FALSE(meet(0, 0, 0, 8));
  CHECK_FALSE(meet(0, 8, 0, 0));
  bi::checker c("x");
  CHECK(c.disjoint("a", nullptr, 8, "b", p, 8).disjoint("a", p, 8, "b", nullptr, 8).ok());
  CHECK(bi::span_bytes(3, 10, 8, 2) == 56);
  CHECK(bi::span_bytes(3, 0, 8, 2) == 48);
  CHECK(bi::span_bytes(0, 10, 8, 2) == 0);
  CHECK(bi::span_bytes(3, 10, 0, 2) == 0);
}
