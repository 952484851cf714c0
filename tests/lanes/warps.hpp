// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

// Warps on the CPU: device code itself, compiled for the host, runs with 32 lanes a warp, each with a stack of its own, which
// take turns where lanes or a thread block's threads meet. Whose turn it is is drawn, and some have few, so warps may run at any speeds.
// A test includes this first.

#define threadIdx stub_threadIdx
#define blockIdx stub_blockIdx
#define gridDim stub_gridDim
#define blockDim stub_blockDim
#include "bi/config.hpp"
#include "runtime/stub/cuda_runtime_api.h"
// The stub's words come first.
#include "support/data.hpp"
#undef threadIdx
#undef blockIdx
#undef gridDim
#undef blockDim
// One block runs at a time, or one cluster, whose threads have it together. LANES_SHARED_AT_LAUNCH: of kernels whose launch names
// its size. The blocks of a cluster have pages of their own behind the one array (lanes::cluster).
#undef __shared__
#ifdef LANES_SHARED_AT_LAUNCH
#define __shared__
#else
#define __shared__ static
#endif
#define threadIdx lanes::where.thread
#define blockIdx lanes::where.block
#define gridDim lanes::where.grid
#define blockDim lanes::where.block_size

#ifdef LANES_SHARED_AT_LAUNCH
BI_NAMESPACE_BEGIN
namespace kernel {
alignas(4096) inline unsigned char shared[228 * 1024];
}  // namespace kernel
BI_NAMESPACE_END
#endif

namespace lanes {

struct place {
  uint3 thread, block, grid, block_size;
  int rank = 0, cluster_size = 1;  // of the block in its cluster
};
inline place where;  // of the lane that runs

// Where all threads of a thread block meet, or so many of them.
struct block_barrier {
  int threads, met = 0;
  unsigned phase = 0;
  bool any[2] = {};   // of this phase's threads, and the next one's
  int registers = 0;  // of a thread of each warp, that no warp has

  // Whether any of them says so.
  bool meet(bool yes);
  // Comes, and doesn't wait. True for the last one.
  bool arrive() {
    if (++met < threads) return false;
    met = 0;
    ++phase;
    any[phase % 2] = false;
    return true;
  }
};

class warp {
 public:
  // Lanes run body(lane). barrier: the thread block's, if they meet there.
  warp(unsigned block, unsigned first_thread, std::function<void(int)> body, block_barrier* barrier = nullptr,
       int rank = 0)
      : block_(block), rank_(rank), first_thread_(first_thread), body_(std::move(body)), barrier_(barrier) {
    if (unused_stacks().empty()) {
      stacks_.reset(new char[32 * stack_bytes]);
    } else {
      stacks_ = std::move(unused_stacks().back());
      unused_stacks().pop_back();
    }
  }
  ~warp() { unused_stacks().push_back(std::move(stacks_)); }
  warp(const warp&) = delete;
  warp& operator=(const warp&) = delete;

  // A turn of each lane; false once all have ended.
  bool run() {
    bool left = false;
    for (int i = 0; i < 32; ++i) {
      if (ended_[static_cast<std::size_t>(i)]) continue;
      now_ = this, lane_ = i;
      where.block.x = block_;
      where.rank = rank_;
      where.thread.x = first_thread_ + static_cast<unsigned>(i);
      go_on(i);
      left = left || !ended_[static_cast<std::size_t>(i)];
    }
    return left;
  }

  // ---- for the lane that runs
  static int lane() { return lane_; }
  // Ends its turn.
  static void pass() {
    warp* const self = now_;
    const int lane = lane_;
    if (_setjmp(self->lanes_[static_cast<std::size_t>(lane)]) == 0) _longjmp(scheduler_, 1);
  }
  // All lanes meet; each leaves a value and finds those of all.
  static const std::array<std::uint64_t, 32>& meet(std::uint64_t value) {
    warp& w = *now_;
    const unsigned phase = w.phase_;
    std::array<std::uint64_t, 32>& values = w.values_[phase % 2];
    values[static_cast<std::size_t>(lane_)] = value;
    if (++w.met_ == 32) {
      w.met_ = 0;
      ++w.phase_;
    } else {
      while (w.phase_ == phase) pass();
    }
    return values;
  }

  static bool meet_block(bool any = false) { return now_->barrier_->meet(any); }
  // Has so many registers a thread from here on, as soon as the block has them to spare. By all lanes.
  static void move_registers(int count) {
    meet(0);
    if (lane_ == 0) {
      warp& w = *now_;
      for (int turns = 0; w.barrier_->registers < count - w.registers_; ++turns) {
        if (turns == 1 << 14) {
          std::fprintf(stderr, "a warp waits for registers that nobody gives back\n");
          std::abort();
        }
        pass();
      }
      w.barrier_->registers -= count - w.registers_;
      w.registers_ = count;
    }
    meet(0);
  }

 private:
  static constexpr std::size_t stack_bytes = 64 * 1024;

  // A lane runs where it left off, until it passes. Contexts are switched to once, as each switch is a call of the system; jumps
  // from stack to stack are none. glibc's checked longjmp refuses them: these programs are built without _FORTIFY_SOURCE.
  __attribute__((noinline)) void go_on(int lane) {
    const auto i = static_cast<std::size_t>(lane);
    if (_setjmp(scheduler_) != 0) return;
    if (begun_[i]) _longjmp(lanes_[i], 1);
    begun_[i] = true;
    ucontext_t c;
    getcontext(&c);
    c.uc_stack.ss_sp = stacks_.get() + i * stack_bytes;
    c.uc_stack.ss_size = stack_bytes;
    c.uc_link = nullptr;
    makecontext(&c, &warp::begin, 0);
    setcontext(&c);
  }
  // Of warps that have ended; new ones would have to be mapped.
  static std::vector<std::unique_ptr<char[]>>& unused_stacks() {
    static std::vector<std::unique_ptr<char[]>> all;
    return all;
  }

  static void begin() {
    now_->body_(lane_);
    now_->ended_[static_cast<std::size_t>(lane_)] = true;
    for (;;) pass();
  }

  inline static warp* now_ = nullptr;
  inline static int lane_ = 0;
  inline static jmp_buf scheduler_;

  const unsigned block_;
  const int rank_;
  const unsigned first_thread_;
  const std::function<void(int)> body_;
  block_barrier* const barrier_;
  int registers_ = 128;  // as the bounds of kernels leave that move any
  std::unique_ptr<char[]> stacks_;
  jmp_buf lanes_[32];
  std::array<bool, 32> begun_ = {}, ended_ = {};
  std::array<std::uint64_t, 32> values_[2];
  int met_ = 0;
  unsigned phase_ = 0;
};

inline bool block_barrier::meet(bool yes) {
  const unsigned now = phase;
  any[now % 2] = any[now % 2] || yes;
  if (!arrive()) {
    while (phase == now) warp::pass();
  }
  return any[now % 2];
}

template <class T>
std::uint64_t to_bits(T x) {
  std::uint64_t bits = 0;
  static_assert(sizeof x <= sizeof bits);
  std::memcpy(&bits, &x, sizeof x);
  return bits;
}
template <class T>
T from_bits(std::uint64_t bits) {
  T x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
template <class T>
T value_of(T x, int lane) {
  return from_bits<T>(warp::meet(to_bits(x))[static_cast<std::size_t>(lane & 31)]);
}

// The warps of a thread block, whose threads run body(thread).
inline std::vector<std::unique_ptr<warp>> make_warps(int threads, const std::function<void(int)>& body,
                                                     block_barrier& barrier, unsigned block, int rank = 0) {
  std::vector<std::unique_ptr<warp>> warps;
  for (int first = 0; first < threads; first += 32) {
    warps.push_back(std::make_unique<warp>(
        block, static_cast<unsigned>(first), [&body, first](int lane) { body(first + lane); }, &barrier, rank));
  }
  return warps;
}

// The threads of one thread block run body(thread), warps in any turns, until all have ended.
inline void run_block(int threads, const std::function<void(int)>& body, test::generator& g, unsigned block = 0) {
  block_barrier barrier = {threads};
  where.block_size = {static_cast<unsigned>(threads), 1, 1};
  const auto warps = make_warps(threads, body, barrier, block);
  std::vector<bool> ended(warps.size());
  std::vector<int> speed;  // percent
  for (std::size_t i = 0; i < warps.size(); ++i) speed.push_back(g.chance(70) ? 100 : 15);
  for (std::size_t left = warps.size(); left > 0;) {
    const auto i = static_cast<std::size_t>(g.below(static_cast<std::int64_t>(warps.size())));
    if (ended[i] || !g.chance(speed[i]) || warps[i]->run()) continue;
    ended[i] = true;
    --left;
  }
}

// A kernel, block after block.
template <class Params>
void launch(int blocks, int threads, void (*kernel)(Params), const std::remove_const_t<Params>& params,
            test::generator& g) {
  where.grid.x = static_cast<unsigned>(blocks);
  for (int b = 0; b < blocks; ++b)
    run_block(
        threads, [&](int) { kernel(params); }, g, static_cast<unsigned>(b));
}

}  // namespace lanes

template <class T>
T __shfl_sync(unsigned, T x, int from, int) {
  return lanes::value_of(x, from);
}
template <class T>
T __shfl_up_sync(unsigned, T x, unsigned delta, int) {
  const int lane = lanes::warp::lane(), from = lane - static_cast<int>(delta);
  return lanes::value_of(x, from < 0 ? lane : from);
}
template <class T>
T __shfl_down_sync(unsigned, T x, unsigned delta, int) {
  const int lane = lanes::warp::lane(), from = lane + static_cast<int>(delta);
  return lanes::value_of(x, from > 31 ? lane : from);
}
template <class T>
T __shfl_xor_sync(unsigned, T x, int mask, int) {
  return lanes::value_of(x, lanes::warp::lane() ^ mask);
}
inline unsigned __ballot_sync(unsigned, int yes) {
  const auto& all = lanes::warp::meet(yes != 0 ? 1 : 0);
  unsigned bits = 0;
  for (unsigned i = 0; i < 32; ++i) bits |= static_cast<unsigned>(all[i]) << i;
  return bits;
}
inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0 ? 1 : 0; }
inline int __all_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) == 0xffffffffu ? 1 : 0; }
inline void __syncwarp(unsigned) { lanes::warp::meet(0); }
inline void __syncthreads() { lanes::warp::meet_block(); }
inline int __syncthreads_or(int yes) { return lanes::warp::meet_block(yes != 0) ? 1 : 0; }
inline int __syncthreads_and(int yes) { return lanes::warp::meet_block(yes == 0) ? 0 : 1; }
namespace lanes {

template <class T, class Combine>
T reduce(T x, const Combine& combine) {
  const auto& all = warp::meet(to_bits(x));
  x = from_bits<T>(all[0]);
  for (std::size_t i = 1; i < all.size(); ++i) x = combine(x, from_bits<T>(all[i]));
  return x;
}
// ---- of the thread block that runs
// A cp.async copy that has not landed.
struct copy {
  void* to;
  std::array<unsigned char, 16> bytes;
  int later = 0;  // groups committed since, its own among them; 0: it is in none yet
};
// Those that so many groups or more have followed, or of no group and none.
inline void land(std::vector<copy>& all, int later = 0) {
  std::vector<copy> rest;
  for (const copy& c : all) {
    if (c.later < later) {
      rest.push_back(c);
    } else {
      std::memcpy(c.to, c.bytes.data(), c.bytes.size());
    }
  }
  all.swap(rest);
}
struct memory_barrier {
  int count, missing, phase;
  std::vector<copy> copies;  // that land with this phase's end
  int bytes = 0;             // that this phase still waits for; below 0: more have come than were announced

  void arrive(int n, int announced = 0) {
    missing -= n;
    come(-announced);
  }
  void come(int n) {
    bytes -= n;
    if (missing > 0 || bytes != 0) return;
    land(copies);
    missing = count;
    phase ^= 1;
  }
  void arrive_with(std::vector<copy>& of_thread) {
    copies.insert(copies.end(), of_thread.begin(), of_thread.end());
    of_thread.clear();
    arrive(1);
  }
};
// An address of shared memory: below this, one's own; rank r's is the same with r + 1 times this.
inline constexpr std::uint32_t of_rank = 1u << 20;
inline std::uint32_t address_in(int rank, std::uint32_t address) {
  return address + (static_cast<std::uint32_t>(rank) + 1) * of_rank;
}
inline std::uint32_t in_cluster(std::uint32_t address) {
  return address < of_rank ? address_in(where.rank, address) : address;
}
// The thread that runs, among all of its cluster.
inline unsigned thread_in_cluster() { return static_cast<unsigned>(where.rank) * 1024 + where.thread.x; }
inline std::map<std::uint32_t, memory_barrier>& barriers() {  // by address, see in_cluster
  static std::map<std::uint32_t, memory_barrier> all;
  return all;
}
inline std::vector<copy>& copies() {  // of the thread
  static std::map<unsigned, std::vector<copy>> all;
  return all[thread_in_cluster()];
}
// What happens while a kernel waits for those before it: a test may write then what they would.
inline std::function<void()>& before_dependencies() {
  static std::function<void()> all;
  return all;
}
inline block_barrier& named_barrier(int id, int threads) {
  static std::map<int, block_barrier> all;
  block_barrier& b = all[where.rank * 16 + id];
  b.threads = threads;
  return b;
}
inline bool meet_named(int id, int threads, bool yes = false) { return named_barrier(id, threads).meet(yes); }
inline void arrive_named(int id, int threads) { named_barrier(id, threads).arrive(); }

// What addresses of shared memory count from: the array of a kernel that names its size at the launch.
inline unsigned char*& shared_memory() {
  static unsigned char* memory = nullptr;
  return memory;
}

#ifdef LANES_SHARED_AT_LAUNCH
// The blocks of a cluster, which run side by side. Each has pages of its own; those of the one that runs stand behind the kernels'
// array. What blocks send to each other is on its way for any time.
class cluster {
 public:
  explicit cluster(int size) : size_(size) {
    file_ = memfd_create("shared", 0);
    if (file_ < 0 || ftruncate(file_, static_cast<off_t>(size_) * bytes) != 0) std::abort();
    all_ = static_cast<unsigned char*>(
        mmap(nullptr, static_cast<std::size_t>(size_) * bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0));
    if (all_ == MAP_FAILED) std::abort();
    std::memset(all_, 0x5a, static_cast<std::size_t>(size_) * bytes);
    shared_memory() = bi::kernel::shared;
    now_ = this;
  }
  ~cluster() {
    // The array has pages of its own again.
    void* const own =
        mmap(bi::kernel::shared, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (own == MAP_FAILED || munmap(all_, static_cast<std::size_t>(size_) * bytes) != 0) std::abort();
    close(file_);
    now_ = nullptr;
  }
  cluster(const cluster&) = delete;
  cluster& operator=(const cluster&) = delete;
  static cluster& now() { return *now_; }

  // Blocks first_block, first_block + 1 and so on.
  void run(unsigned first_block, int threads, const std::function<void(int)>& body, test::generator& g) {
    where.block_size = {static_cast<unsigned>(threads), 1, 1};
    where.cluster_size = size_;
    all_threads_.threads = threads * size_;
    barriers().clear();
    std::vector<block_barrier> meet(static_cast<std::size_t>(size_), block_barrier{threads});
    std::vector<std::vector<std::unique_ptr<warp>>> warps(static_cast<std::size_t>(size_));
    std::vector<int> speed;  // of blocks, percent
    for (int r = 0; r < size_; ++r) speed.push_back(g.chance(50) ? 100 : 25);
    for (int r = 0; r < size_; ++r) {
      const auto rank = static_cast<std::size_t>(r);
      warps[rank] = make_warps(threads, body, meet[rank], first_block + static_cast<unsigned>(r), r);
    }
    for (bool left = true; left;) {
      left = false;
      for (auto& of_block : warps) left = left || !of_block.empty();
      auto& mine = warps[static_cast<std::size_t>(g.below(size_))];
      if (mine.empty() || !g.chance(speed[static_cast<std::size_t>(&mine - warps.data())])) continue;
      enter(static_cast<int>(&mine - warps.data()));
      for (std::int64_t turns = g.between(1, 200); turns > 0 && !mine.empty(); --turns) {
        const auto i = static_cast<std::size_t>(g.below(static_cast<std::int64_t>(mine.size())));
        if (!mine[i]->run()) mine.erase(mine.begin() + static_cast<std::ptrdiff_t>(i));
        if (!sent_.empty() && g.chance(20)) land_one(g);
      }
    }
    while (!sent_.empty()) land_one(g);
    where.cluster_size = 1;
    where.rank = 0;
  }

  unsigned char* at(std::uint32_t address) {
    const std::uint32_t whole = in_cluster(address);
    return all_ + static_cast<std::size_t>(whole / of_rank - 1) * bytes + whole % of_rank;
  }
  template <std::size_t N>
  void send(std::uint32_t address, const std::array<float, N>& x, std::uint32_t barrier) {
    sent_.push_back([this, address, x, barrier] {
      std::memcpy(at(address), x.data(), sizeof x);
      barriers().at(barrier).come(static_cast<int>(sizeof x));
    });
  }
  // Of all threads of the cluster.
  void arrive() {
    waits_for_[thread_in_cluster()] = all_threads_.phase;
    all_threads_.arrive();
  }
  void wait() {
    while (all_threads_.phase == waits_for_[thread_in_cluster()]) warp::pass();
  }

 private:
  static constexpr std::size_t bytes = sizeof bi::kernel::shared;

  void enter(int rank) const {
    void* const at = mmap(bi::kernel::shared, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file_,
                          static_cast<off_t>(rank) * static_cast<off_t>(bytes));
    if (at == MAP_FAILED) std::abort();
  }
  void land_one(test::generator& g) {
    const auto i = static_cast<std::size_t>(g.below(static_cast<std::int64_t>(sent_.size())));
    const auto land = sent_[i];
    sent_[i] = sent_.back();
    sent_.pop_back();
    land();
  }

  inline static cluster* now_ = nullptr;
  const int size_;
  int file_ = -1;
  unsigned char* all_ = nullptr;
  block_barrier all_threads_ = {0};
  std::map<unsigned, unsigned> waits_for_;  // the phase that a thread came in
  std::vector<std::function<void()>> sent_;
};

// A kernel, cluster after cluster.
template <class Params>
void launch_clusters(int clusters, int size, int threads, void (*kernel)(Params),
                     const std::remove_const_t<Params>& params, test::generator& g) {
  where.grid.x = static_cast<unsigned>(clusters * size);
  for (int c = 0; c < clusters; ++c) {
    cluster one(size);
    one.run(
        static_cast<unsigned>(c * size), threads, [&](int) { kernel(params); }, g);
  }
}
#endif

// A thread has its turn until it meets others: nobody comes between.
template <class T, class Combine>
T exchange(T* p, const Combine& combine) {
  const T before = *p;
  *p = combine(before);
  return before;
}

}  // namespace lanes

template <class T>
T __reduce_add_sync(unsigned, T x) {
  return lanes::reduce(x, [](T a, T b) { return static_cast<T>(a + b); });
}
template <class T>
T __reduce_max_sync(unsigned, T x) {
  return lanes::reduce(x, [](T a, T b) { return a < b ? b : a; });
}
template <class T>
T __reduce_min_sync(unsigned, T x) {
  return lanes::reduce(x, [](T a, T b) { return b < a ? b : a; });
}
template <class T, class U>
T atomicAdd(T* p, U x) {
  return lanes::exchange(p, [&](T y) { return static_cast<T>(y + static_cast<T>(x)); });
}
template <class T, class U>
T atomicMax(T* p, U x) {
  return lanes::exchange(p, [&](T y) { return y < static_cast<T>(x) ? static_cast<T>(x) : y; });
}
template <class T, class U>
T atomicMin(T* p, U x) {
  return lanes::exchange(p, [&](T y) { return static_cast<T>(x) < y ? static_cast<T>(x) : y; });
}
template <class T, class U>
T atomicOr(T* p, U x) {
  return lanes::exchange(p, [&](T y) { return static_cast<T>(y | static_cast<T>(x)); });
}
inline void __trap() { std::abort(); }
inline std::size_t __cvta_generic_to_global(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }
inline std::size_t __cvta_generic_to_shared(const void* p) {
  return static_cast<std::size_t>(static_cast<const unsigned char*>(p) - lanes::shared_memory());
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
