// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <string>

#include "bi/bi.hpp"
#if defined(__CUDACC__)
#include "bi/activation.cuh"
#endif

// A shared library with a copy of bi inside. PLUGIN: the name of its one function, which tells the copy's version, and a
// sentence of it: the test plants another sentence in one of two copies.

#define TO_STRING(x) #x
#define STRING(x) TO_STRING(x)

extern "C" [[gnu::visibility("default")]] const char* PLUGIN() {
  bi::status st;
#if defined(__CUDACC__)
  bi::embedding_args<bi::bf16> args;
  args.rows = -1;
  st = bi::embedding(args, nullptr);
#else
  st.code = bi::error::too_small, st.operation = "embedding", st.argument = "rows", st.value = -1;
#endif
  static std::string text;
  text = STRING(BI_VERSION_MAJOR) "." STRING(BI_VERSION_MINOR) ": " + bi::describe(st);
  return text.c_str();
}
