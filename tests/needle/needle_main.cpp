// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The needle matrix on the GPU. Writes a line of JSON for each case to FILE, or to the standard output.
//
//   needle [--rows N] [--most-rows M] [--far] [--forced] [--small] [--brief] [--seed S] [--part I/N] [--json FILE]
//          [OPERATION...]
//   needle --list
//
// N rows at least of each operation, in batches of M at most. --far: rows, and pages of a cache, more than 2^31 elements
// apart. --forced: under every schedule. --small: a few, for tools under which kernels are slow; --brief: fewer still. Of
// --part I/N: every N-th case, from the I-th on; with --brief --forced a part of the schedules. Ends with 77 where there is
// no GPU.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <map>
#include <set>
#include <string>

#include "needle/gpu_machine.hpp"
#include "needle/matrix.hpp"

namespace {

using namespace test::needle;

constexpr int skipped = 77;

struct command {
  options o;
  std::int64_t rows = 1000000;
  std::int64_t part = 0, parts = 1;
  bool list = false;
  std::FILE* out = stdout;
  std::vector<std::string> operations;
};

bool parse(int argc, char** argv, command& c) {
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    if (a == "--list") {
      c.list = true;
    } else if (a == "--far") {
      c.o.far = true;
    } else if (a == "--forced") {
      c.o.forced = true;
    } else if (a == "--small") {
      c.o.small = true, c.o.most_rows = 130, c.rows = 1;
    } else if (a == "--brief") {
      c.o.small = c.o.brief = true, c.o.most_rows = 130, c.rows = 1;
    } else if (a.rfind("--", 0) != 0) {
      c.operations.push_back(a);
    } else if (++i == argc) {
      return false;
    } else if (a == "--rows") {
      c.rows = std::stoll(argv[i]);
    } else if (a == "--most-rows") {
      c.o.most_rows = std::stoll(argv[i]);
    } else if (a == "--seed") {
      c.o.seed = std::stoull(argv[i]);
    } else if (a == "--part") {
      long long part = 0, parts = 0;
      if (std::sscanf(argv[i], "%lld/%lld", &part, &parts) != 2 || part < 0 || part >= parts) return false;
      c.part = part, c.parts = parts;
    } else if (a == "--json") {
      c.out = std::fopen(argv[i], "w");
      if (c.out == nullptr) return false;
    } else {
      return false;
    }
  }
  return true;
}

std::string quoted(const std::string& s) {
  std::string out = "\"";
  for (const char ch : s) {
    if (ch == '"' || ch == '\\') out += '\\';
    out += ch == '\n' ? ' ' : ch;
  }
  return out + "\"";
}

// Cases with rows of their own, or a cache, far apart.
bool can_be_far(const needle_case& c) {
  return c.operation.find("columns") == std::string::npos && c.operation.find("count") == std::string::npos &&
         c.operation != "verify";
}

// Launches under each schedule.
std::string counts_of(const std::map<std::string, std::int64_t>& schedules) {
  std::string out;
  for (const auto& [name, launches] : schedules) {
    out += (out.empty() ? "" : ", ") + quoted(name) + ": " + std::to_string(launches);
  }
  return "{" + out + "}";
}

}  // namespace

int main(int argc, char** argv) {
  command c;
  try {
    if (!parse(argc, argv, c)) {
      std::fprintf(
          stderr,
          "usage: needle [--rows N] [--most-rows M] [--far] [--forced] [--small] [--brief] [--seed S] [--part I/N] "
          "[--json FILE] [OPERATION...]\n");
      return 2;
    }
    case_list cases = all_cases();
    std::map<std::string, std::int64_t> of_operation;
    for (const needle_case& x : cases) of_operation[x.operation] += 1;
    if (c.list) {
      for (const needle_case& x : cases) std::puts(x.name().c_str());
      return 0;
    }
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
      std::puts("skipped: no CUDA device");
      return skipped;
    }
    int failures = 0;
    std::int64_t turn = 0;
    std::set<std::string> tried;
    if (c.o.brief) c.o.tried = &tried;
    if (c.o.brief && c.o.forced) {
      c.o.part = static_cast<std::uint64_t>(c.part), c.o.parts = static_cast<std::uint64_t>(c.parts);
      c.part = 0, c.parts = 1;
    }
    for (const needle_case& x : cases) {
      const bool chosen = c.operations.empty() ||
                          std::find(c.operations.begin(), c.operations.end(), x.operation) != c.operations.end();
      if (!chosen || (c.o.far && !can_be_far(x)) || turn++ % c.parts != c.part) continue;
      const auto start = std::chrono::steady_clock::now();
      options o = c.o;
      const std::int64_t share = of_operation[x.operation];
      o.rows = (c.rows + share - 1) / share;
      result r;
      try {
        gpu_machine gpu;
        r = check_case(gpu, x, o);
      } catch (const std::exception& e) {
        r.failure = e.what();
      }
      if (o.forced && r.launches == 0 && r.failure.empty()) continue;  // there is nothing to force
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      std::fprintf(
          c.out,
          "{\"operation\": %s, \"contract\": %s, \"dtype\": %s, \"shape\": %s, \"rows\": %lld, \"launches\": %lld, "
          "\"replays\": %lld, \"reference_rows\": %lld, \"refused\": %lld, \"schedules\": %s, \"bytes_different\": %llu, "
          "\"seconds\": %.3f, \"failure\": %s}\n",
          quoted(x.operation).c_str(), quoted(x.contract).c_str(), quoted(x.dtype).c_str(), quoted(x.shape).c_str(),
          static_cast<long long>(r.rows), static_cast<long long>(r.launches), static_cast<long long>(r.replays),
          static_cast<long long>(r.reference_rows), static_cast<long long>(r.refused), counts_of(r.schedules).c_str(),
          static_cast<unsigned long long>(r.bytes_different), seconds, quoted(r.failure).c_str());
      std::fflush(c.out);
      if (r.failure.empty()) continue;
      failures += 1;
      std::fprintf(stderr, "needle: %s: %s\n", x.name().c_str(), r.failure.c_str());
    }
    return failures == 0 ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "needle: %s\n", e.what());
    return 1;
  }
}
