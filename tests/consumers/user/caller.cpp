// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstdio>
#include <cstring>
#include <string>

#include "bi/bi.hpp"

// A .cpp file of a user's: it includes the same headers as other.cpp and kernels.cu, and no CUDA header.

static_assert(BI_VERSION == USER_EXPECTS, "another version of bi than the one that was asked for");

std::string describe_elsewhere(const bi::status& st);  // other.cpp

int main() {
  const bi::bf16 table[2][2] = {{{1}, {2}}, {{3}, {4}}};
  const std::int32_t id[1] = {1};
  bi::bf16 out[2] = {};
  bi::embedding_args<bi::bf16> args;
  args.table = table[0], args.table_rows = 2, args.id = id, args.rows = 1, args.cols = 2, args.out = out;
  if (const bi::status st = bi::reference::embedding(args); !st || std::memcmp(out, table[1], sizeof out) != 0) {
    std::printf("the reference: %s\n", describe_elsewhere(st).c_str());
    return 1;
  }
  args.rows = -1;
  std::string expected = "embedding: rows = -1 must be at least 0";
  std::string got = describe_elsewhere(bi::reference::embedding(args));
#if defined(USER_HAS_KERNELS)
  // The launcher refuses it as well, before any CUDA call, so this needs no GPU.
  if (got == expected) got = describe_elsewhere(bi::embedding(args, nullptr));
#endif
  if (got != expected) std::printf("expected \"%s\", got \"%s\"\n", expected.c_str(), got.c_str());
  return got == expected ? 0 : 1;
}
