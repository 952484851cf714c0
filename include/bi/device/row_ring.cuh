// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/device/ptx/bulk.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ring_place.cuh"

// Rows on their way through shared memory: a ring of slots that the copy engine fills ahead of the threads that read
// them (sm_90). A thread block has a part of each of many rows, and the parts are cut into pieces of a slot. Whoever
// reads a part once takes its pieces in order. Whoever reads it twice keeps the last pieces, as many as there are
// slots; his second pass starts with those, and gets those before them, last first, as the L2 cache has them.
//
// With no slots nothing is copied, and the threads read global memory: on other GPUs, and for rows that aren't made of
// whole 16-byte words.

BI_NAMESPACE_BEGIN
namespace device {

inline constexpr int ring_slot_bytes = 16384;
inline constexpr int ring_most_slots = 10;

// What the copies are at; of thread 0. In shared memory: the others would have registers for it.
struct ring_source {
  const void* from;  // the part that is copied
  const void* next;  // the next row's, or null
  int filled;        // slots whose copies are under way or read
  int first, left;   // the next piece, and how many are left
  int again;         // how many are then copied again, backwards
  bool back, ahead;  // backwards; `from` is the next row's
  bool paused;       // of all threads: they read global memory
  ring_place to;
};
struct ring_memory {
  mbarrier full[ring_most_slots];
  mbarrier empty[ring_most_slots];
  ring_source source;
};

// All threads of the thread block make the same calls, but for what says otherwise. Thread 0 starts the copies.
template <class T>
class row_ring {
 public:
  static constexpr int slot_elements = ring_slot_bytes / static_cast<int>(sizeof(T));

  // `slots` at `data`, aligned to 128 bytes; each row's part has `count` elements. A barrier of the block, and start(),
  // come before anything else.
  BI_D row_ring(ring_memory& memory, unsigned char* data, int slots, int count)
      : memory_(memory), source_(memory.source), data_(data), slots_(slots), count_(count) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (threadIdx.x == 0 && slots_ > 0) {
      source_ = {};
      for (int s = 0; s < slots_; ++s) {
        mbarrier_init(&memory_.full[s], 1);
        mbarrier_init(&memory_.empty[s], static_cast<int>(blockDim.x) / 32 * arrivals_of_a_warp);
      }
      mbarrier_init_fence();
    }
#endif
  }

  BI_D static int pieces_of(int count) { return (count + slot_elements - 1) / slot_elements; }
  BI_D int pieces() const { return pieces_of(count_); }
  BI_D int kept() const { return !copies() ? 0 : pieces() < slots_ ? pieces() : slots_; }
  // The piece that a step of a pass takes.
  BI_D int piece(int step, bool second) const {
    if (!second || !copies()) return step;
    return step < kept() ? pieces() - kept() + step : pieces() - 1 - step;
  }

  // Thread 0, before the first row: its part, and that of the row after it, or null.
  BI_D void start(const T* part, const T* next) {
    if (slots_ == 0) return;
    take(source_, part, count_);
    source_.next = next;
    fill(0);
  }
  // Thread 0: the row that now begins is read twice.
  BI_D void read_twice() {
    if (slots_ == 0) return;
    source_.again = pieces() - kept();
    fill(0);
  }
  // Thread 0, as a row begins that is not the first: the part of the row after it, or null.
  BI_D void next_row(const T* part, const T* next) {
    if (slots_ == 0) return;
    if (!source_.ahead) take(source_, part, count_);
    source_.ahead = false;
    source_.next = next;
    fill(0);
  }

  // Whether no row comes after this one, which may then be copied once more; after a barrier since its last step.
  BI_D bool is_last() const { return copies() && !source_.ahead && source_.next == nullptr; }
  // Thread 0: all of such a row once more, for a second pass.
  BI_D void copy_again(const T* part) {
    take(source_, part, count_);
    source_.again = pieces() - kept();
    source_.first = source_.again, source_.left = kept();
    fill(0);
  }

  // Threads read global memory, until the ring goes on. That it rests lies in shared memory: the number of slots is a
  // constant then.
  BI_D void pause() { set_paused(true); }
  BI_D void resume() { set_paused(false); }

  // Before a second pass.
  BI_D void rewind() {
    if (!copies()) return;
    place_.slot -= kept();
    if (place_.slot < 0) {
      place_.slot += slots_;
      place_.parity ^= 1;
    }
  }
  // Whether pieces are copied at all.
  BI_D bool copies() const { return slots_ != 0 && !source_.paused; }
  // The slot of the step that now begins, once it is full.
  BI_D const T* wait() const { return wait_at(place_); }
  // Of a step after it.
  BI_D const T* wait(int on) const { return wait_at(place_.after(on, slots_)); }
  // Ends a step; its piece is kept, or its slot is free once all warps are here.
  BI_D void step(bool keep) {
    if (!copies()) return;
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    if (!keep) {
      __syncwarp();
      if (arrives_for_warp(static_cast<int>(threadIdx.x % 32)))
        mbarrier_arrive(shared_address(&memory_.empty[place_.slot]));
      if (threadIdx.x == 0) {
        --source_.filled;
        fill(1);  // not the slot just left, for which other warps would have to be waited for
      }
    } else if (threadIdx.x == 0) {
      fill(0);
    }
#endif
    place_.next(slots_);
  }
  // Bytes of a part that the ring holds at once.
  BI_D int bytes_at_once() const {
    const int most = slots_ * ring_slot_bytes, all = copied() * static_cast<int>(sizeof(T));
    return all < most ? all : most;
  }
  // Elements of a part's piece that its slot has: whole words.
  BI_D static int copied_of(int count) { return count / word * word; }
  BI_D int copied() const { return copied_of(count_); }

 private:
  BI_D void set_paused(bool paused) {
    if (slots_ == 0 || source_.paused == paused) return;
    __syncthreads();
    if (threadIdx.x == 0) source_.paused = paused;
    __syncthreads();
  }
  static constexpr int word = 16 / static_cast<int>(sizeof(T));

  BI_D const T* wait_at([[maybe_unused]] const ring_place& at) const {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    mbarrier_wait(shared_address(&memory_.full[at.slot]), at.parity);
#endif
    return reinterpret_cast<const T*>(data_ + at.slot * ring_slot_bytes);
  }

  static BI_D void take(ring_source& source, const void* part, int count) {
    source.from = part;
    source.first = 0;
    source.left = pieces_of(count);
    source.back = false;
  }

  // What to copy now, if anything.
  static BI_D bool has_more(ring_source& source, int count) {
    if (source.left > 0) return true;
    if (source.again > 0) {
      source.first = source.again - 1, source.left = source.again, source.again = 0, source.back = true;
      return true;
    }
    if (source.ahead || source.next == nullptr) return false;
    source.ahead = true;
    take(source, source.next, count);
    return source.left > 0;
  }

  // Copies until all slots but `spare` are in use, or nothing more is known. Not inlined: there are many passes.
  BI_D void fill(int spare) { fill_slots(memory_, data_, slots_, count_, spare); }
  static BI_D __noinline__ void fill_slots([[maybe_unused]] ring_memory& memory, [[maybe_unused]] unsigned char* data,
                                           [[maybe_unused]] int slots, [[maybe_unused]] int count,
                                           [[maybe_unused]] int spare) {
#if BI_DEVICE_CODE && __CUDA_ARCH__ >= 900
    ring_source& source = memory.source;
    while (source.filled + spare < slots && has_more(source, count)) {
      const int begin = source.first * slot_elements, rest = copied_of(count) - begin;
      const int elements = rest < 0 ? 0 : rest < slot_elements ? rest : slot_elements;
      const std::uint32_t full = shared_address(&memory.full[source.to.slot]);
      mbarrier_wait(shared_address(&memory.empty[source.to.slot]), source.to.parity ^ 1);
      mbarrier_arrive_expect(full, elements * static_cast<int>(sizeof(T)));
      if (elements > 0) {
        copy_bulk(shared_address(data + source.to.slot * ring_slot_bytes), static_cast<const T*>(source.from) + begin,
                  elements * static_cast<int>(sizeof(T)), full);
      }
      source.first += source.back ? -1 : 1;
      --source.left;
      ++source.filled;
      source.to.next(slots);
    }
#endif
  }

  ring_memory& memory_;
  ring_source& source_;
  unsigned char* data_;
  int slots_, count_;
  ring_place place_;  // of the step
};

}  // namespace device
BI_NAMESPACE_END
