// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstdio>

extern "C" const char* first_plugin();
extern "C" const char* second_plugin();

int main() {
  std::printf("%s\n", first_plugin());
  std::printf("%s\n", second_plugin());
}
