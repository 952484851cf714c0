// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/contract/logits_edit.hpp"

#include <cstdint>
#include <vector>

#include "bi/logits_edit.hpp"
#include "bi/reference/fp_env.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace bi::contract;
using draft = logits_edit_draft;
using bi::bits_of;
using bi::float_of;
using bi::inf_f32;
using bi::nan_f32;
using bi::neg_inf_f32;

namespace {

bi::logits_edit_params row_of(float repetition, float frequency, float presence) {
  bi::logits_edit_params row;
  row.slot = 0;
  row.repetition = repetition, row.frequency = frequency, row.presence = presence;
  return row;
}
edited_logit penalised(float x, const bi::logits_edit_params& row, bool prompt_bit, std::uint32_t n) {
  edited_logit l{x};
  draft::penalise(l, row, prompt_bit, n);
  return l;
}

}  // namespace

TEST_CASE("logits_edit: the contract's id", "[contract][logits_edit]") {
  STATIC_REQUIRE(draft::id() == bi::contract_id("logits_edit_draft", 32));
  STATIC_REQUIRE(token_words(1) == 1);
  STATIC_REQUIRE(token_words(32) == 1);
  STATIC_REQUIRE(token_words(33) == 2);
  STATIC_REQUIRE(token_words(151936) == 4748);
  STATIC_REQUIRE(token_words((std::int64_t{1} << 31) - 1) == 67108864);
}

TEST_CASE("logits_edit: each step, and its roundings", "[contract][logits_edit]") {
  const bi::reference::fp_environment environment;
  const struct {
    float x;
    bi::logits_edit_params row;
    bool prompt_bit;
    std::uint32_t n;
    std::uint32_t bits;
  } golden[] = {
      // A division: 3 * (1 / 1.1f) gives 0x402e8ba2.
      {1.0f, row_of(1.1f, 0, 0), false, 1, 0x3f68ba2eu},
      {3.0f, row_of(1.1f, 0, 0), true, 0, 0x402e8ba3u},
      {-3.0f, row_of(1.1f, 0, 0), true, 0, 0xc0533334u},
      {0.5f, row_of(0.25f, 0, 0), true, 7, 0x40000000u},
      // Two roundings in x - frequency * n: a fused one gives 0x3f4cccca here.
      {5.0f, row_of(1, 0.3f, 0), false, 14, 0x3f4cccc8u},
      {5.0f, row_of(1, 0.3f, 0), true, 0, 0x40a00000u},
      {2.0f, row_of(1, 0, 0.75f), false, 3, 0x3fa00000u},
      {2.0f, row_of(2, 0.25f, -0.125f), false, 3, 0x3ec00000u},  // 2 / 2 - 0.75 + 0.125
      // The count rounds to fp32.
      {0.0f, row_of(1, 1, 0), false, 16777217, 0xcb800000u},
      // -0 is not greater than 0, and stays.
      {float_of(0x80000000u), row_of(1.5f, 0, 0), true, 0, 0x80000000u},
      {0.0f, row_of(1.5f, 0, 0), true, 0, 0x00000000u},
      // An overflow, a subnormal.
      {-3e38f, row_of(2, 0, 0), true, 0, 0xff800000u},
      {float_of(3), row_of(2, 0, 0), true, 0, 0x00000002u},
      {inf_f32(), row_of(2, 1, 1), true, 5, 0x7f800000u},
      {neg_inf_f32(), row_of(2, 1, 1), true, 5, 0xff800000u},
      {float_of(0xffc00001u), row_of(2, 0, 0), true, 0, 0x7fffffffu},
  };
  for (const auto& g : golden) {
    INFO("x " << g.x << ", n " << g.n);
    CHECK(bits_of(penalised(g.x, g.row, g.prompt_bit, g.n).x) == g.bits);
  }
}

TEST_CASE("logits_edit: a step that does not apply leaves -0 and NaN alone", "[contract][logits_edit]") {
  const bi::reference::fp_environment environment;
  for (const std::uint32_t bits : {0x80000000u, 0xffc00001u, 0x7f800001u, 0x3f800000u}) {
    const float x = float_of(bits);
    for (const bool prompt_bit : {false, true}) {
      for (const std::uint32_t n : {0u, 1u, 9u}) {
        const edited_logit l = penalised(x, row_of(1, -0.0f, 0), prompt_bit, n);
        CHECK(!l.edited);
        CHECK(bits_of(l.x) == bits);
      }
    }
    CHECK(!penalised(x, row_of(1.5f, 2, 3), false, 0).edited);
    CHECK(!penalised(x, row_of(1, 2, 3), true, 0).edited);
    CHECK(penalised(x, row_of(1.5f, 0, 0), true, 0).edited);
    CHECK(penalised(x, row_of(1, 0, 3), false, 1).edited);
  }
  edited_logit l{float_of(0x80000000u)};
  draft::add_bias(l, 0.0f);  // an entry is an entry
  CHECK(l.edited);
  CHECK(bits_of(l.x) == 0);
  l = {neg_inf_f32()};
  draft::add_bias(l, inf_f32());
  CHECK(bits_of(l.x) == bi::nan_bits);
  CHECK(draft::kept<bi::bf16>(bi::bf16{0xff81}).bits == 0xff81);
  CHECK(bits_of(draft::kept<float>(bi::bf16{0xff81})) == 0xff810000u);
  CHECK(draft::masked<bi::fp16>().bits == 0xfc00);
  CHECK(draft::masked<bi::bf16>().bits == 0xff80);
  CHECK(draft::invalid<bi::bf16>().bits == bi::nan_bits16);
}

TEST_CASE("logits_edit: counts", "[contract][logits_edit]") {
  STATIC_REQUIRE(draft::times_put_out(true, 3, 0) == 3);
  STATIC_REQUIRE(draft::times_put_out(true, 3, 2) == 5);
  STATIC_REQUIRE(draft::times_put_out(false, 3, 2) == 2);
  STATIC_REQUIRE(draft::times_put_out(true, 0, 0) == 0);
  STATIC_REQUIRE(draft::times_put_out(true, -7, 1) == 1);
  STATIC_REQUIRE(draft::times_put_out(true, 0x7fffffff, 0x7fffffff) == 0xfffffffeu);
}

TEST_CASE("logits_edit: which parameters are valid", "[contract][logits_edit]") {
  const bi::reference::fp_environment environment;
  const logits_edit_limits limits = {4, 3, 10, 6};
  CHECK(draft::valid(bi::logits_edit_params{}, logits_edit_limits{}));
  bi::logits_edit_params good = row_of(1.2f, -0.5f, 0.5f);
  good.slot = 3, good.mask = 2, good.bias_begin = 4, good.bias_end = 10, good.draft_begin = 6, good.draft_end = 6;
  CHECK(draft::valid(good, limits));
  CHECK(draft::repeats(good));
  CHECK(draft::subtracts(good));
  const auto invalid = [&](auto spoil) {
    bi::logits_edit_params row = good;
    spoil(row);
    return !draft::valid(row, limits);
  };
  using params = bi::logits_edit_params;
  for (const float x : {0.0f, -1.0f, -0.0f, nan_f32(), inf_f32(), float_of(0x007fffffu)}) {
    CHECK(invalid([&](params& r) { r.repetition = x; }));
  }
  for (const float x : {nan_f32(), inf_f32(), neg_inf_f32()}) {
    CHECK(invalid([&](params& r) { r.frequency = x; }));
    CHECK(invalid([&](params& r) { r.presence = x; }));
  }
  CHECK(invalid([](params& r) { r.slot = 4; }));
  CHECK(invalid([](params& r) { r.mask = 3; }));
  CHECK(invalid([](params& r) { r.bias_begin = -1; }));
  CHECK(invalid([](params& r) { r.bias_begin = 11, r.bias_end = 11; }));
  CHECK(invalid([](params& r) { r.bias_end = 3; }));
  CHECK(invalid([](params& r) { r.bias_end = 11; }));
  CHECK(invalid([](params& r) { r.draft_begin = 5, r.draft_end = 4; }));
  CHECK(invalid([](params& r) { r.draft_end = 7; }));
  CHECK(!invalid([](params& r) { r.repetition = 0x1p-126f; }));
  CHECK(!invalid([](params& r) { r.slot = -5, r.repetition = 0, r.frequency = nan_f32(), r.draft_end = 99; }));
  CHECK(!invalid([](params& r) { r.mask = -9; }));
  bi::logits_edit_params off = good;
  off.slot = -1;
  CHECK(!draft::repeats(off));
  CHECK(!draft::subtracts(off));
}

// What transformers and vLLM compute, operation by operation in fp32.
TEST_CASE("logits_edit: the bits of torch code", "[contract][logits_edit]") {
  const bi::reference::fp_environment environment;
  test::generator g(4);
  const auto x = test::random_vector<float>(20000, test::values::wide, 3);
  for (const float logit : x) {
    const float r = 0.5f + static_cast<float>(g.below(1000)) * 0.002f;
    const float frequency = static_cast<float>(g.between(-200, 200)) * 0.01f;
    const float presence = static_cast<float>(g.between(-200, 200)) * 0.01f;
    const auto n = static_cast<std::uint32_t>(g.below(40));
    const bool prompt_bit = g.chance(50);
    // logits = where(logits > 0, logits / penalties, logits * penalties), penalties = where(prompt | output, r, 1)
    const float penalty = prompt_bit || n > 0 ? r : 1.0f;
    float y = bi::greater(logit, 0.0f) ? bi::div_rn(logit, penalty) : bi::mul_rn(logit, penalty);
    // logits -= frequency * counts; logits -= presence * mask
    y = bi::sub_rn(y, bi::mul_rn(frequency, bi::float_from_uint(n)));
    y = bi::sub_rn(y, bi::mul_rn(presence, n > 0 ? 1.0f : 0.0f));
    REQUIRE(bits_of(penalised(logit, row_of(r, frequency, presence), prompt_bit, n).x) == bits_of(y));
  }
}
