// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "bi/testing/invariance.hpp"

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "bi/contract/arithmetic.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

// The checker is shown functions that are right, and one with each fault that it is there for.

namespace {

using bi::testing::row_call;
namespace bt = bi::testing;

constexpr std::int64_t pool = 12, cols = 20;

// y[r] = 2 x[r] + x[r][0] * n[r], from whatever memory the call names.
struct problem {
  std::vector<float> x_values = test::random_vector<float>(pool * cols, test::values::normal, 7);
  std::vector<std::int32_t> n_values;
  bt::rows_under_test rows{pool};
  int x, n, y;

  problem() {
    for (std::int32_t i = 0; i < pool; ++i) n_values.push_back(i);
    x = rows.numbers("x", x_values.data(), cols);
    n = rows.indices("n", n_values.data(), 1);
    y = rows.output<float>("y", cols);
  }
  float element(const row_call& c, std::int64_t r, std::int64_t i) const {
    const float* row = c.in<float>(x) + r * cols;
    const float index = bi::float_from_int(c.in<std::int32_t>(n)[r]);
    return bi::fma_rn(row[0], index, bi::add_rn(row[i], row[i]));
  }
  void fill(const row_call& c) const {
    for (std::int64_t r = 0; r < c.rows; ++r) {
      for (std::int64_t i = 0; i < cols; ++i) c.out<float>(y)[r * cols + i] = element(c, r, i);
    }
  }
};

using fault = std::function<void(const problem&, const row_call&)>;

bt::report check_with(const fault& after) {
  const problem p;
  return bt::check_on_cpu(p.rows, [&](const row_call& c) {
    p.fill(c);
    after(p, c);
    return bi::status{};
  });
}

// A memory whose graphs replay the function itself, called with what it saw while it was recorded.
class recording_memory : public bt::host_memory {
 public:
  bool has_graphs() const override { return true; }
  bi::status capture(const std::function<bi::status()>& work) override {
    work_ = work;
    capturing = true;
    const bi::status st = work();
    capturing = false;
    return st;
  }
  bi::status replay() override {
    replaying = true;
    const bi::status st = work_();
    replaying = false;
    return st;
  }
  bool capturing = false, replaying = false;

 private:
  std::function<bi::status()> work_;
};

float& at(const row_call& c, const problem& p, std::int64_t r, std::int64_t i) {
  return c.out<float>(p.y)[r * cols + i];
}
void flip_last_bit(float& x) { x = bi::float_of(bi::bits_of(x) ^ 1); }

}  // namespace

TEST_CASE("the checker passes a function of rows") {
  const bt::report r = check_with([](const problem&, const row_call&) {});
  CHECK(r);
  CHECK(r.different == 0);
  CHECK(r.calls > 100);
  CHECK(r.rows > 3000);
  CHECK(bt::describe(r).substr(0, 4) == "ok: ");
}

TEST_CASE("the checker names the first difference") {
  const bt::report r = check_with([](const problem& p, const row_call& c) {
    if (c.rows == 33) flip_last_bit(at(c, p, 32, 17));
  });
  CHECK_FALSE(r);
  CHECK(std::string(r.first.check) == "batch");
  CHECK(r.first.batch == 33);
  CHECK(r.first.row == 32);
  CHECK(r.first.array == "y");
  CHECK(r.first.element == 17);
  CHECK((r.first.actual ^ r.first.expected) == 1);
  CHECK(r.different == 1);
  char hex[32];
  std::snprintf(hex, sizeof hex, "y[17] = 0x%08llx", static_cast<unsigned long long>(r.first.actual));
  CHECK(bt::describe(r).find(hex) != std::string::npos);
  CHECK(bt::describe(r).find("batch: row 32 (pool row ") == 0);
}

TEST_CASE("the checker finds each kind of fault") {
  const auto found_by = [](const fault& f) {
    const bt::report r = check_with(f);
    return r.first.check == nullptr ? std::string("nothing") : std::string(r.first.check);
  };
  SECTION("the number of rows") {
    CHECK(found_by([](const problem& p, const row_call& c) {
            if (c.rows > 64) flip_last_bit(at(c, p, 0, 0));
          }) == "batch");
  }
  SECTION("the sign of a zero") {
    // Alone the bytes are those of +0; == would see no difference.
    CHECK(found_by([](const problem& p, const row_call& c) {
            for (std::int64_t r = 0; r < c.rows; ++r) at(c, p, r, 3) = c.rows == 8 ? bi::neg(0.0f) : 0.0f;
          }) == "batch");
  }
  SECTION("the place") {
    CHECK(found_by([](const problem& p, const row_call& c) {
            if (c.rows == 67) flip_last_bit(at(c, p, 66, 0));
          }) == "position");
  }
  SECTION("a neighbour's NaN") {
    CHECK(found_by([](const problem& p, const row_call& c) {
            for (std::int64_t r = 1; r < c.rows; ++r) {
              if (bi::is_nan(c.in<float>(p.x)[(r - 1) * cols])) at(c, p, r, 2) = bi::nan_f32();
            }
          }) == "neighbours");
  }
  SECTION("a neighbour's infinity") {
    CHECK(found_by([](const problem& p, const row_call& c) {
            for (std::int64_t r = 1; r < c.rows; ++r) {
              if (bi::is_inf(c.in<float>(p.x)[(r - 1) * cols])) at(c, p, r, 2) = 0;
            }
          }) == "neighbours");
  }
  SECTION("another result the second time") {
    CHECK(found_by([calls = 0](const problem& p, const row_call& c) mutable {
            if (++calls > pool) flip_last_bit(at(c, p, 0, 0));
          }) == "repeat");
  }
  SECTION("an element that is not written") {
    CHECK(found_by([](const problem& p, const row_call& c) {
            const std::uint32_t poison = 0xFFFFFFFF;
            if (c.rows == 3) std::memcpy(&at(c, p, 2, cols - 1), &poison, sizeof poison);
          }) == "batch");
  }
  SECTION("a row after the last") {
    CHECK(found_by([](const problem& p, const row_call& c) { at(c, p, c.rows, 0) = 0; }) == "outside");
  }
  SECTION("bytes before the first") {
    CHECK(found_by([](const problem& p, const row_call& c) { at(c, p, 0, -1) = 0; }) == "outside");
  }
  SECTION("an input") {
    CHECK(found_by([](const problem& p, const row_call& c) {
            const_cast<float*>(c.in<float>(p.x))[cols * (c.rows - 1)] = 1;
          }) == "inputs");
  }
  SECTION("nothing that moves") {
    CHECK(found_by([](const problem& p, const row_call& c) {
            for (std::int64_t i = 0; i < c.rows * cols; ++i) at(c, p, 0, i) = 1;
          }) == "vacuous");
  }
}

TEST_CASE("the checker compares with a twin") {
  const problem p;
  const bt::row_function right = [&](const row_call& c) {
    p.fill(c);
    return bi::status{};
  };
  const bt::row_function other = [&](const row_call& c) {
    p.fill(c);
    if (c.in<std::int32_t>(p.n)[0] == 5) flip_last_bit(at(c, p, 0, 19));
    return bi::status{};
  };
  bt::host_memory m;
  const bt::report same = bt::check(p.rows, right, m, &right);
  CHECK(same);
  CHECK(bt::describe(same).find("equal to the CPU twin") != std::string::npos);
  const bt::report r = bt::check(p.rows, right, m, &other);
  REQUIRE(r.first.check != nullptr);
  CHECK(std::string(r.first.check) == "cpu twin");
  CHECK(r.first.pool_row == 5);
  CHECK(r.first.element == 19);
}

TEST_CASE("the checker replays graphs with other rows") {
  const problem p;
  recording_memory m;
  const bt::report right = bt::check(
      p.rows,
      [&](const row_call& c) {
        p.fill(c);
        return bi::status{};
      },
      m);
  CHECK(right);
  CHECK(right.replays == 15);

  // Reads on the host, while it is recorded, what a replay must read on the device.
  std::vector<std::int32_t> seen;
  const bt::report r = bt::check(
      p.rows,
      [&](const row_call& c) {
        const std::int32_t* n = c.in<std::int32_t>(p.n);
        if (m.capturing) seen.assign(n, n + c.rows);
        const std::vector<std::int32_t> now(n, n + c.rows);
        if (m.replaying) std::memcpy(const_cast<std::int32_t*>(n), seen.data(), seen.size() * sizeof(std::int32_t));
        p.fill(c);
        if (m.replaying) std::memcpy(const_cast<std::int32_t*>(n), now.data(), now.size() * sizeof(std::int32_t));
        return bi::status{};
      },
      m);
  REQUIRE(r.first.check != nullptr);
  CHECK(std::string(r.first.check) == "graph");
}

TEST_CASE("the checker returns the status of a call that fails") {
  const problem p;
  bi::status bad;
  bad.code = bi::error::too_small, bad.operation = "mine", bad.argument = "rows", bad.value = 16, bad.bound = 17;
  int calls = 0;
  const bt::report r = bt::check_on_cpu(p.rows, [&](const row_call& c) {
    calls += 1;
    p.fill(c);
    return c.rows == 16 ? bad : bi::status{};
  });
  CHECK_FALSE(r);
  CHECK(bt::describe(r) == "mine: rows = 16 must be at least 17");
  CHECK(calls == r.calls);

  const bt::rows_under_test one(1);
  CHECK(bt::describe(bt::check_on_cpu(one, [](const row_call&) { return bi::status{}; })) ==
        "invariance: pool = 1 must be at least 2");
}
