// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/dtype.hpp"

// wgmma (sm_90a): a warpgroup multiplies 64 x 16 by 16 x N, both in shared memory, into fp32 registers. Thread t of the
// warpgroup holds D[16 (t / 32) + t % 32 / 4 + 8 h][8 j + 2 (t % 4) + e] in d[4 j + 2 h + e], as after mma.sync.

BI_NAMESPACE_BEGIN
namespace device {

// Before the first wgmma that reads registers which other instructions wrote.
BI_D inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
BI_D inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most Pending of the latest groups are under way.
template <int Pending>
BI_D void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(Pending) : "memory");
}

// Keeps the compiler from moving accumulators across a point, while the tensor core owns them.
template <int Values>
BI_D void wgmma_hold(float (&d)[Values]) {
#pragma unroll
  for (int i = 0; i < Values; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Keeps the compiler from moving loads across a point, which takes registers.
BI_D inline void hold_loads() { asm volatile("" ::: "memory"); }

// The description of an operand in shared memory, rows of 128 bytes under the 128-byte swizzle, at a multiple of 1024.
// k-major: 8 rows are 1024 bytes, groups of 8 follow one another; a step of 16 k is 32 bytes. mn-major (transposed): a
// block of 64 along m or n is 128 bytes wide, 8 k are 1024 bytes; blocks are block_bytes apart; a step of 16 k is 2048.
BI_D inline std::uint64_t wgmma_operand(std::uint32_t address, int block_bytes) {
  return static_cast<std::uint64_t>((address & 0x3ffffu) >> 4) | static_cast<std::uint64_t>(block_bytes >> 4) << 16 |
         std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}

// The same some bytes on. The address is in the low word and does not carry.
BI_D inline std::uint64_t wgmma_operand_at(std::uint64_t operand, int bytes) {
  const std::uint32_t low = static_cast<std::uint32_t>(operand) + static_cast<std::uint32_t>(bytes / 16);
  return (operand & ~std::uint64_t{0xffffffffu}) | low;
}

#define BI_WGMMA_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define BI_WGMMA_D16(i) BI_WGMMA_D4(i), BI_WGMMA_D4(i + 4), BI_WGMMA_D4(i + 8), BI_WGMMA_D4(i + 12)
#define BI_WGMMA_D32(i) BI_WGMMA_D16(i), BI_WGMMA_D16(i + 16)
#define BI_WGMMA_D64(i) BI_WGMMA_D32(i), BI_WGMMA_D32(i + 32)
#define BI_WGMMA_R0 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define BI_WGMMA_R16 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define BI_WGMMA_R32 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define BI_WGMMA_R48 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define BI_WGMMA_R64 "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define BI_WGMMA_R80 "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define BI_WGMMA_R96 "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define BI_WGMMA_R112 "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

#define BI_WGMMA_R32_8 "%32,%33,%34,%35,%36,%37,%38,%39"

// p: whether the first step accumulates, the others do; then the operands' signs and layouts. Four steps in one statement:
// the compiler's time goes by the operands of statements.
#define BI_WGMMA_STEP(Name, N, Registers, A, B, P, TA, TB) \
  "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." Name "." Name " {" Registers "}, " A ", " B ", " P ", 1, 1, " TA ", " TB ";"
#define BI_WGMMA_NEXT(SA, SB) "add.u32 al, al, " SA "; add.u32 bl, bl, " SB "; mov.b64 a, {al, ah}; mov.b64 b, {bl, bh};"
#define BI_WGMMA(Type, Name, N, Registers, A, B, P, TA, TB, SA, SB, ...)                              \
  template <int TransA, int TransB>                                                                   \
  struct wgmma_instruction<Type, N, TransA, TransB> {                                                 \
    BI_D static void run(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, int accumulate) {       \
      asm volatile("{.reg .pred p, q; .reg .b64 a, b; .reg .b32 al, ah, bl, bh; mov.b64 a, " A "; mov.b64 b, " B ";"            \
                   "mov.b64 {al, ah}, a; mov.b64 {bl, bh}, b;" \
                   "setp.ne.b32 p, " P ", 0; setp.eq.b32 q, 0, 0;"                                    \
                   BI_WGMMA_STEP(Name, N, Registers, "a", "b", "p", TA, TB) BI_WGMMA_NEXT(SA, SB)     \
                   BI_WGMMA_STEP(Name, N, Registers, "a", "b", "q", TA, TB) BI_WGMMA_NEXT(SA, SB)     \
                   BI_WGMMA_STEP(Name, N, Registers, "a", "b", "q", TA, TB) BI_WGMMA_NEXT(SA, SB)     \
                   BI_WGMMA_STEP(Name, N, Registers, "a", "b", "q", TA, TB) "}"                       \
                   : __VA_ARGS__                                                                      \
                   : "l"(a), "l"(b), "r"(accumulate), "n"(TransA), "n"(TransB), "n"(TransA ? 128 : 2), \
                     "n"(TransB ? 128 : 2));                                                          \
    }                                                                                                 \
  };
#define BI_WGMMA_BOTH(N, Registers, A, B, P, TA, TB, SA, SB, ...)            \
  BI_WGMMA(bf16, "bf16", N, Registers, A, B, P, TA, TB, SA, SB, __VA_ARGS__) \
  BI_WGMMA(fp16, "f16", N, Registers, A, B, P, TA, TB, SA, SB, __VA_ARGS__)

template <class T, int N, int TransA, int TransB>
struct wgmma_instruction;
BI_WGMMA_BOTH(8, "%0,%1,%2,%3", "%4", "%5", "%6", "%7", "%8", "%9", "%10", BI_WGMMA_D4(0))
BI_WGMMA_BOTH(16, "%0,%1,%2,%3,%4,%5,%6,%7", "%8", "%9", "%10", "%11", "%12", "%13", "%14", BI_WGMMA_D4(0), BI_WGMMA_D4(4))
BI_WGMMA_BOTH(32, BI_WGMMA_R0, "%16", "%17", "%18", "%19", "%20", "%21", "%22", BI_WGMMA_D16(0))
BI_WGMMA_BOTH(64, BI_WGMMA_R0 "," BI_WGMMA_R16, "%32", "%33", "%34", "%35", "%36", "%37", "%38", BI_WGMMA_D32(0))
BI_WGMMA_BOTH(80, BI_WGMMA_R0 "," BI_WGMMA_R16 "," BI_WGMMA_R32_8, "%40", "%41", "%42", "%43", "%44", "%45", "%46", BI_WGMMA_D32(0), BI_WGMMA_D4(32), BI_WGMMA_D4(36))
BI_WGMMA_BOTH(88, BI_WGMMA_R0 "," BI_WGMMA_R16 "," BI_WGMMA_R32_8 ",%40,%41,%42,%43", "%44", "%45", "%46", "%47", "%48", "%49", "%50", BI_WGMMA_D32(0), BI_WGMMA_D4(32), BI_WGMMA_D4(36), BI_WGMMA_D4(40))
BI_WGMMA_BOTH(96, BI_WGMMA_R0 "," BI_WGMMA_R16 "," BI_WGMMA_R32, "%48", "%49", "%50", "%51", "%52", "%53", "%54", BI_WGMMA_D32(0), BI_WGMMA_D16(32))
BI_WGMMA_BOTH(104, BI_WGMMA_R0 "," BI_WGMMA_R16 "," BI_WGMMA_R32 ",%48,%49,%50,%51", "%52", "%53", "%54", "%55", "%56", "%57", "%58", BI_WGMMA_D32(0), BI_WGMMA_D16(32), BI_WGMMA_D4(48))
BI_WGMMA_BOTH(112, BI_WGMMA_R0 "," BI_WGMMA_R16 "," BI_WGMMA_R32 ",%48,%49,%50,%51,%52,%53,%54,%55", "%56", "%57", "%58", "%59", "%60", "%61", "%62", BI_WGMMA_D32(0), BI_WGMMA_D16(32), BI_WGMMA_D4(48), BI_WGMMA_D4(52))
BI_WGMMA_BOTH(128, BI_WGMMA_R0 "," BI_WGMMA_R16 "," BI_WGMMA_R32 "," BI_WGMMA_R48, "%64", "%65", "%66", "%67", "%68", "%69", "%70", BI_WGMMA_D64(0))
BI_WGMMA_BOTH(136, BI_WGMMA_R0 "," BI_WGMMA_R16 "," BI_WGMMA_R32 "," BI_WGMMA_R48 ",%64,%65,%66,%67", "%68", "%69", "%70", "%71", "%72", "%73", "%74", BI_WGMMA_D64(0), BI_WGMMA_D4(64))
BI_WGMMA_BOTH(160, BI_WGMMA_R0 "," BI_WGMMA_R16 "," BI_WGMMA_R32 "," BI_WGMMA_R48 "," BI_WGMMA_R64, "%80", "%81", "%82", "%83", "%84", "%85", "%86", BI_WGMMA_D64(0), BI_WGMMA_D16(64))
BI_WGMMA_BOTH(192, BI_WGMMA_R0 "," BI_WGMMA_R16 "," BI_WGMMA_R32 "," BI_WGMMA_R48 "," BI_WGMMA_R64 "," BI_WGMMA_R80, "%96", "%97", "%98", "%99", "%100", "%101", "%102", BI_WGMMA_D64(0), BI_WGMMA_D32(64))
BI_WGMMA_BOTH(224, BI_WGMMA_R0 "," BI_WGMMA_R16 "," BI_WGMMA_R32 "," BI_WGMMA_R48 "," BI_WGMMA_R64 "," BI_WGMMA_R80 "," BI_WGMMA_R96, "%112", "%113", "%114", "%115", "%116", "%117", "%118", BI_WGMMA_D64(0), BI_WGMMA_D32(64), BI_WGMMA_D16(96))
BI_WGMMA_BOTH(256, BI_WGMMA_R0 "," BI_WGMMA_R16 "," BI_WGMMA_R32 "," BI_WGMMA_R48 "," BI_WGMMA_R64 "," BI_WGMMA_R80 "," BI_WGMMA_R96 "," BI_WGMMA_R112, "%128", "%129", "%130", "%131", "%132", "%133", "%134", BI_WGMMA_D64(0), BI_WGMMA_D64(64))
#undef BI_WGMMA_BOTH
#undef BI_WGMMA
#undef BI_WGMMA_STEP
#undef BI_WGMMA_NEXT
#undef BI_WGMMA_R0
#undef BI_WGMMA_R16
#undef BI_WGMMA_R32
#undef BI_WGMMA_R48
#undef BI_WGMMA_R32_8
#undef BI_WGMMA_R64
#undef BI_WGMMA_R80
#undef BI_WGMMA_R96
#undef BI_WGMMA_R112
#undef BI_WGMMA_D64
#undef BI_WGMMA_D32
#undef BI_WGMMA_D16
#undef BI_WGMMA_D4

// d = a b^T, or d + a b^T if accumulate, over 64 k, steps of 16 ascending. TransA, TransB: 1 if the operand is mn-major.
template <class T, int N, int TransA, int TransB>
BI_D void wgmma_m64k64(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, int accumulate) {
  wgmma_instruction<T, N, TransA, TransB>::run(d, a, b, accumulate);
}

// Moves registers between warpgroups: every warp of a warpgroup calls it. Needs a bound of one block an SM.
template <int Registers>
BI_D void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(Registers));
}
template <int Registers>
BI_D void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(Registers));
}

}  // namespace device
BI_NAMESPACE_END
