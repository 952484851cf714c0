// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/ptx/wgmma.cuh"
#include "bi/dtype.hpp"

// wgmma (sm_90a) with the 64 x 16 operand in registers, in fragments as of mma.sync (bi/device/ptx/mma.cuh), and an
// mn-major one in shared memory (bi/device/ptx/wgmma.cuh).

BI_NAMESPACE_BEGIN
namespace device {

template <class T, int N>
struct wgmma_registers_instruction;

#define BI_WGMMA_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define BI_WGMMA_D16(i) BI_WGMMA_D4(i), BI_WGMMA_D4(i + 4), BI_WGMMA_D4(i + 8), BI_WGMMA_D4(i + 12)
#define BI_WGMMA_D32(i) BI_WGMMA_D16(i), BI_WGMMA_D16(i + 16)
#define BI_WGMMA_A4(i) "r"(a[i][0]), "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3])
#define BI_WGMMA_REGS_32                                                                                         \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
  "%30,%31"
#define BI_WGMMA_REGS_64                                                                                         \
  BI_WGMMA_REGS_32                                                                                               \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58," \
  "%59,%60,%61,%62,%63"
// Four steps of 16 k in one statement; P: whether the first accumulates.
#define BI_WGMMA_STEP(Name, N, Registers, A, P)                                                              \
  "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." Name "." Name " {" Registers "}, {" A "}, b, " P ", 1, 1, 1;"
#define BI_WGMMA(Type, Name, N, Registers, A0, A1, A2, A3, B, P, ...)                                           \
  template <>                                                                                                   \
  struct wgmma_registers_instruction<Type, N> {                                                                 \
    BI_D static void run(float (&d)[N / 2], const std::uint32_t (&a)[4][4], std::uint64_t b, int accumulate) {  \
      asm volatile("{.reg .pred p, q; .reg .b64 b; mov.b64 b, " B "; setp.ne.b32 p, " P ", 0; setp.eq.b32 q, 0, 0;" \
                   BI_WGMMA_STEP(Name, N, Registers, A0, "p") "add.s64 b, b, 128;"                              \
                   BI_WGMMA_STEP(Name, N, Registers, A1, "q") "add.s64 b, b, 128;"                              \
                   BI_WGMMA_STEP(Name, N, Registers, A2, "q") "add.s64 b, b, 128;"                              \
                   BI_WGMMA_STEP(Name, N, Registers, A3, "q") "}"                                               \
                   : __VA_ARGS__                                                                                \
                   : BI_WGMMA_A4(0), BI_WGMMA_A4(1), BI_WGMMA_A4(2), BI_WGMMA_A4(3), "l"(b), "r"(accumulate));  \
    }                                                                                                           \
  };
#define BI_WGMMA_BOTH(N, Registers, A0, A1, A2, A3, B, P, ...)               \
  BI_WGMMA(bf16, "bf16", N, Registers, A0, A1, A2, A3, B, P, __VA_ARGS__)    \
  BI_WGMMA(fp16, "f16", N, Registers, A0, A1, A2, A3, B, P, __VA_ARGS__)

BI_WGMMA_BOTH(64, BI_WGMMA_REGS_32, "%32,%33,%34,%35", "%36,%37,%38,%39", "%40,%41,%42,%43", "%44,%45,%46,%47", "%48",
              "%49", BI_WGMMA_D32(0))
BI_WGMMA_BOTH(128, BI_WGMMA_REGS_64, "%64,%65,%66,%67", "%68,%69,%70,%71", "%72,%73,%74,%75", "%76,%77,%78,%79",
              "%80", "%81", BI_WGMMA_D32(0), BI_WGMMA_D32(32))

#undef BI_WGMMA_BOTH
#undef BI_WGMMA
#undef BI_WGMMA_STEP
#undef BI_WGMMA_REGS_64
#undef BI_WGMMA_REGS_32
#undef BI_WGMMA_A4
#undef BI_WGMMA_D32
#undef BI_WGMMA_D16
#undef BI_WGMMA_D4

// d = a b, or d + a b if accumulate, over 64 k, steps of 16 ascending; b is mn-major. The tensor core owns d and a until
// the group has been waited for.
template <class T, int N>
BI_D void wgmma_m64k64_registers(float (&d)[N / 2], const std::uint32_t (&a)[4][4], std::uint64_t b, int accumulate) {
  wgmma_registers_instruction<T, N>::run(d, a, b, accumulate);
}

// As wgmma_hold, of fragments.
BI_D inline void wgmma_hold(std::uint32_t (&a)[4][4]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) asm volatile("" : "+r"(a[i / 4][i % 4])::"memory");
}

}  // namespace device
BI_NAMESPACE_END
