// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include "bi/config.hpp"
#include "bi/contract/attention.hpp"
#include "bi/device/attention_queue.cuh"
#include "bi/device/attention_split.cuh"
#include "bi/device/ptx/cluster.cuh"
#include "bi/device/ptx/mbarrier.cuh"
#include "bi/device/ptx/order.cuh"
#include "bi/kernel/attention_leaves.cuh"
#include "bi/kernel/attention_leaves_memory.cuh"
#include "bi/kernel/attention_leaves_scores.cuh"
#include "bi/kernel/attention_leaves_source.cuh"
#include "bi/kernel/attention_leaves_values.cuh"
#include "bi/kernel/attention_queue_make.cuh"
#include "bi/kernel/attention_share.cuh"

// As attention_leaves.cuh, for many long items of lengths that differ. A block has a share of the leaves of the longest requests' items,
// if any; then it takes whole items of the others from a queue, which a kernel of one block has made (attention_queue_make.cuh).

BI_NAMESPACE_BEGIN
namespace kernel {

// The queue, in shared memory.
struct attention_queue_source {
  device::attention_queue* queue;
  const std::int32_t* order;
  std::int32_t heads;

  // Whole item i of the order, if there is one.
  BI_D device::attention_queue_item item(std::int32_t i) const {
    if (i >= queue->items) return {};
    const std::int32_t place = i / heads;
    return {order[place], i - place * heads};
  }
  // The one that the block begins with, or has after its share; others are for whoever comes first.
  BI_D device::attention_queue_item first() const { return item(queue->first + static_cast<std::int32_t>(blockIdx.x)); }
  BI_D device::attention_queue_item take() const {
    const std::int32_t others = device::take_flag(&queue->taken, 1);
    return item(queue->first + static_cast<std::int32_t>(gridDim.x) + others);
  }
};

// How a block's warps hear of the items that one of them takes: places for a few, as that one is ahead of others.
struct attention_queue_mail {
  static constexpr int places = 4;
  static constexpr int readers =
      5;  // the warps that copy but one, and a thread each of those who score and who add up V
  attention_queue_source source;
  device::mbarrier told[places], read[places];
  device::attention_queue_item items[places];

  // By one thread.
  BI_D void init(const attention_queue_source& from) {
    source = from;
    for (int i = 0; i < places; ++i) {
      device::mbarrier_init(&told[i], 1);
      device::mbarrier_init(&read[i], readers);
    }
  }
  // That an item is the n-th one after what the block began with.
  BI_D void tell(int n, const device::attention_queue_item& item) {
    const int i = n % places;
    if (n >= places) device::mbarrier_wait(device::shared_address(&read[i]), (n / places - 1) & 1);
    items[i] = item;
    device::mbarrier_arrive(&told[i], 1);
  }
  BI_D device::attention_queue_item hear(int n) {
    const int i = n % places;
    device::mbarrier_wait(device::shared_address(&told[i]), n / places & 1);
    const device::attention_queue_item item = items[i];
    device::mbarrier_arrive(&read[i], 1);
    return item;
  }
};

// What a block begins with.
struct attention_queue_list : attention_list {
  attention_queue_mail* mail = nullptr;
  device::attention_dealt_requests dealt;
  bool whole = false;  // an item of the queue, not a share
};

struct attention_queue_run : attention_leaves_run {
  static constexpr bool has_queue = true;
  attention_queue_mail* mail;
  device::attention_dealt_requests dealt;
  std::int32_t heard;
  bool whole;

  BI_D void set_list(const attention_queue_list& x) {
    mail = x.mail;
    dealt = x.dealt;
    whole = x.whole;
    heard = 0;
  }
  BI_D const device::attention_dealt_requests& requests() const { return dealt; }
  // To the share's next item, or all of the queue's. By one thread. Leaves walk.run.count == 0 if there is none.
  template <class Contract, class T>
  BI_D void advance(const attention_params<T>& p) {
    const std::int64_t request = walk.run.request;
    if (walk.more()) {
      attention_share_next<Contract>(p, walk, dealt);
    } else {
      const device::attention_queue_item next = mail->hear(heard++);
      whole = true;
      walk.run.count = 0;
      if (next.request < 0) return;
      walk.run.request = next.request;
      walk.run.head = next.head;
      walk.run.begin = 0;
    }
    if (walk.run.request != request) enter<Contract>(p, attention_lengths_of(p, walk.run.request));
    if (whole) walk.run.leaves = walk.run.count = item.leaves;
  }
};

// The same for a warp that copies. The first of those takes items for all.
class attention_queue_order : public attention_consecutive_leaves {
 public:
  template <class Memory>
  BI_D attention_queue_order(Memory& memory, int warp)
      : attention_consecutive_leaves(memory, warp), takes_(warp == 0), mail_(memory.mail) {}

  BI_D void set_list(const attention_queue_list& x) {
    dealt_ = x.dealt;
    whole_ = x.whole;
  }
  BI_D void set_list(const attention_list&) {}  // of a guess, which is not made here
  BI_D const device::attention_dealt_requests& requests() const { return dealt_; }
  // By the warp.
  BI_D bool hear(device::attention_walk& walk) {
    device::attention_queue_item item;
    if (threadIdx.x % 32 == 0) {
      if (takes_) {
        item = whole_ ? mail_.source.take() : mail_.source.first();
        mail_.tell(heard_, item);
      } else {
        item = mail_.hear(heard_);
      }
    }
    ++heard_;
    whole_ = true;
    const std::int32_t request = __shfl_sync(device::full_warp, item.request, 0);
    walk.run.head = __shfl_sync(device::full_warp, item.head, 0);
    walk.run.begin = 0;
    if (request < 0) return false;
    walk.run.request = request;
    return true;
  }

 private:
  const bool takes_;
  attention_queue_mail& mail_;
  device::attention_dealt_requests dealt_;
  bool whole_ = false;
  std::int32_t heard_ = 0;
};

// The block's share, or if it has none its first item, by all threads. Leaves walk.run.count == 0 if there is nothing.
template <class Contract, class T, class ShareMemory>
BI_D attention_queue_list attention_queue_start(const attention_queue_params<T>& p, attention_queue_mail& mail,
                                                ShareMemory& memory, device::attention_walk& walk) {
  attention_queue_list list;
  list.mail = &mail;
  list.dealt.leaves = device::load_l2(&p.queue->dealt.leaves);
  list.dealt.request = device::load_l2(&p.queue->dealt.request);
  walk.run.count = 0;
  if (list.dealt.request >= 0) attention_share_start<Contract>(p.split.a, memory, walk, list.dealt);
  if (walk.run.count > 0) return list;
  const device::attention_queue_item first = mail.source.first();
  list.whole = true;
  if (first.request < 0) return list;
  walk.left = 0;
  walk.run = {first.request, first.head};
  walk.run.leaves = walk.run.count = attention_request_item<Contract>(p.split.a, first.request).leaves;
  return list;
}

template <class Contract, int HeadDim>
struct attention_queue_memory : attention_leaves_memory<Contract, HeadDim, attention_queue_run> {
  using order_type = attention_queue_order;
  attention_queue_mail mail;
};
template <class Contract, int HeadDim>
inline constexpr int attention_queue_ring_at = attention_rings_begin(sizeof(attention_queue_memory<Contract, HeadDim>));
template <class Contract, int HeadDim>
constexpr int attention_queue_bytes(int slots) {
  return attention_rings_end<HeadDim>(attention_queue_ring_at<Contract, HeadDim>, slots);
}

template <class Contract, class T, int HeadDim>
BI_KERNEL __launch_bounds__(attention_leaves_shape<HeadDim>::threads,
                            1) void attention_queue_kernel([[maybe_unused]] const attention_queue_params<T> p) {
#if BI_WGMMA_CODE  // see attention_leaves_kernel
  using shape = attention_leaves_shape<HeadDim>;
  using memory_type = attention_queue_memory<Contract, HeadDim>;
  extern __shared__ __align__(128) unsigned char shared[];
  auto& memory = *reinterpret_cast<memory_type*>(shared);
  T* ring = reinterpret_cast<T*>(shared + attention_queue_ring_at<Contract, HeadDim>);
  const attention_params<T>& a = p.split.a;
  const attention_partials& partials = p.split.partials;
  const int thread = static_cast<int>(threadIdx.x), slots = p.split.stages;
  device::launch_dependents();  // whoever folds waits for the end of this kernel
  memory.init(thread, slots);
  if (thread == shape::threads - 1) memory.mail.init({p.queue, p.order, static_cast<std::int32_t>(a.heads_kv)});
  const bool copies = thread >= shape::score_threads + shape::value_threads;
  if (copies) attention_leaves_prefetch(a, thread - shape::score_threads - shape::value_threads, shape::copy_warps);
  __syncthreads();
  device::wait_for_dependencies();
  device::attention_walk walk;
  const attention_queue_list list = attention_queue_start<Contract>(p, memory.mail, memory.share, walk);
  if (list.whole && thread == 0) partials.cuts[blockIdx.x].request = -1;
  if (walk.run.count == 0) return;
  if (thread < shape::score_threads) {
    attention_leaves_scores<Contract, T, HeadDim, memory_type>(p.split, memory, ring, slots)
        .walk(walk, list, [&](const attention_queue_run& run) {
          if (run.whole) return;
          attention_tell_cut(partials, a.heads_kv, run.walk, run.rows, run.len, memory.share.end, memory.share.total);
        });
  } else if (!copies) {
    attention_leaves_move_registers<152>();
    using results = attention_leaves_results<Contract, T, HeadDim>;
    attention_leaves_values<Contract, T, HeadDim, results, memory_type>(p.split, memory, ring, slots, {p.split})
        .walk(walk, list);
  } else {
    attention_leaves_move_registers<104>();
    using share = attention_listed_share<Contract, T>;
    attention_leaves_source<Contract, T, HeadDim, share, memory_type>(a, memory, ring, slots, walk, list,
                                                                      {a, thread % 32})
        .copy_all(false);
  }
#else
  __trap();  // no launcher asks for it
#endif
}

}  // namespace kernel
BI_NAMESPACE_END
