// SPDX-FileCopyrightText: The bi authors
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "needle/machine.hpp"
#include "needle/plan.hpp"
#include "support/data.hpp"

namespace test::needle {

// A case in a machine's memory.
class matrix {
 public:
  matrix(machine& m, const needle_case& c, const options& o)
      : m_(m), case_(c), options_(o), table_(c.make(o.seed)), most_rows_(std::min(table_.most_rows, o.most_rows)) {
    if (o.far) most_rows_ = far_rows;
    for (std::size_t i = 0; i < table_.in.size(); ++i) {
      // Columns of one name are parts of one array.
      const bool next = i > 0 && table_.in[i].name == table_.in[i - 1].name;
      std::int64_t parts = 1;
      while (i + static_cast<std::size_t>(parts) < table_.in.size() &&
             table_.in[i + static_cast<std::size_t>(parts)].name == table_.in[i].name) {
        ++parts;
      }
      const std::int64_t size = size_of(table_.in[i]);
      in_.push_back(place(table_.in[i], next ? in_[i - 1].base + size : m_.allocate(parts * size), size, true));
    }
    for (const column& out : table_.out) {
      const std::int64_t size = size_of(out);
      out_.push_back(place(out, m_.allocate(size), size, false));
      alone_.push_back(m_.allocate(table_.pool * out.bytes));
    }
    for (std::size_t i = 0; i < table_.shared.size(); ++i) {
      share(table_.shared[i], i < table_.pieces.size() ? table_.pieces[i] : 0);
    }
    index_ = reinterpret_cast<std::int32_t*>(m_.allocate(most_rows_ * 4));
  }
  ~matrix() { m_.release_all(); }
  matrix(const matrix&) = delete;
  matrix& operator=(const matrix&) = delete;

  // Rows of the pool alone, each once: what batches are compared with.
  void compute_alone(const std::vector<std::int32_t>& rows) {
    known_.resize(static_cast<std::size_t>(table_.pool));
    for (const std::int32_t row : rows) {
      if (known_[static_cast<std::size_t>(row)]) continue;
      known_[static_cast<std::size_t>(row)] = true;
      start({1, neighbours::mixed, 0, options_.far ? far_layout : 0, false}, {row});
      require(m_.run(table_, call_));
      const std::int32_t first = 0;
      m_.upload(index_, &first, 4);
      for (std::size_t i = 0; i < out_.size(); ++i) {
        const std::int64_t bytes = out_[i].rows.bytes;
        m_.gather({alone_[i] + row * bytes, bytes, 1, bytes}, out_[i].rows.data, index_, 1);
      }
    }
  }
  std::vector<unsigned char> alone(std::size_t output) {
    std::vector<unsigned char> all(static_cast<std::size_t>(table_.pool * out_[output].rows.bytes));
    m_.download(all.data(), alone_[output], static_cast<std::int64_t>(all.size()));
    return all;
  }
  // One row, an output.
  std::vector<unsigned char> row_alone(std::int32_t row, std::size_t output) {
    start({1, neighbours::mixed, 0, 0, false}, {row});
    require(m_.run(table_, call_));
    std::vector<unsigned char> all(static_cast<std::size_t>(out_[output].rows.bytes));
    m_.download(all.data(), out_[output].rows.data, static_cast<std::int64_t>(all.size()));
    return all;
  }
  const table& of() const { return table_; }

  // The rows alone, as the reference has them, against this machine's.
  void compare_with_reference(result& r) {
    host_machine host;
    options o = options_;
    o.far = false, o.most_rows = table_.most_rows;
    matrix reference(host, case_, o);
    std::vector<std::int32_t> rows;
    const std::int64_t step = options_.brief                      ? table_.pool / 2
                              : options_.small || options_.forced ? table_.pool / 4
                                                                  : table_.reference_step;
    for (std::int64_t row = 0; row < table_.pool; row += step) {
      rows.push_back(static_cast<std::int32_t>(row));
    }
    compute_alone(rows);
    std::vector<std::vector<unsigned char>> mine, expected(out_.size());
    for (std::size_t i = 0; i < out_.size(); ++i) mine.push_back(alone(i));
    if (table_.choose) {
      for (const std::int32_t row : rows) {
        reference.start({1, neighbours::mixed, 0, 0, false}, {row});
        require(host.run(reference.table_, reference.call_));
        reference.append_rows(expected, 1);
      }
    } else {
      reference.start({static_cast<std::int64_t>(rows.size()), neighbours::mixed, 0, 0, false}, rows);
      require(host.run(reference.table_, reference.call_));
      reference.append_rows(expected, static_cast<std::int64_t>(rows.size()));
    }
    r.reference_rows += static_cast<std::int64_t>(rows.size());
    for (std::size_t i = 0; i < out_.size(); ++i) {
      const auto bytes = static_cast<std::size_t>(out_[i].rows.bytes);
      for (std::size_t k = 0; k < rows.size() * bytes; ++k) {
        const auto row = static_cast<std::size_t>(rows[k / bytes]);
        const unsigned char got = mine[i][row * bytes + k % bytes];
        if (got == expected[i][k]) continue;
        r.bytes_different += 1;
        if (!r.failure.empty()) continue;
        const auto size = static_cast<std::size_t>(table_.out[i].element_bytes), at = k % bytes / size * size;
        r.failure = "row " + std::to_string(row) + " alone is not the reference's: " +
                    describe(static_cast<int>(i), rows[k / bytes], static_cast<std::int64_t>(at),
                             mine[i].data() + row * bytes + at, expected[i].data() + k / bytes * bytes + at);
      }
    }
  }

  // Batches of every size among every kind of neighbours, until there are options.rows.
  void run(result& r) {
    const auto sizes = options_.brief ? std::vector<std::int64_t>{std::min<std::int64_t>(17, most_rows_)}
                                      : batch_sizes(table_, most_rows_, options_.small);
    for (int round = 0; r.failure.empty() && (round == 0 || r.rows < options_.rows); ++round) {
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        if (round > 0 && r.rows >= options_.rows) break;
        const int layout =
            options_.far ? far_layout : static_cast<int>((i + static_cast<std::size_t>(round)) % layouts);
        for (int kind = 0; kind < neighbour_kinds; ++kind) {
          if (options_.small && kind % 4 != 0) continue;  // mixed needles and NaN
          if (options_.brief && kind != 0) continue;
          const launch l{sizes[i], static_cast<neighbours>(kind), round, layout,
                         kind >= neighbour_kinds / 2 && m_.has_graphs() && !table_.arrange};
          check(l, r);
        }
      }
      settle(r);
    }
    if (r.failure.empty()) plant(r);
  }

  // Whether there is a schedule that no case before has tried.
  bool has_untried() {
    for (const std::int64_t rows : forced_sizes(table_, most_rows_, options_.small)) {
      launch l{rows, neighbours::mixed, 0, 0, false};
      start_forced(l);
      for (l.forced = 0; l.forced < static_cast<int>(schedules_.size()); ++l.forced) {
        if (is_untried(l)) return true;
      }
    }
    return false;
  }

  // Batches of some sizes under every schedule that they may have.
  void run_forced(result& r) {
    for (const std::int64_t rows : forced_sizes(table_, most_rows_, options_.small)) {
      for (const neighbours kind : {neighbours::mixed, neighbours::nan}) {
        if (options_.brief && kind != neighbours::mixed) continue;
        launch l{rows, kind, 0, 0, false};
        start_forced(l);
        for (l.forced = 0; l.forced < static_cast<int>(schedules_.size()); ++l.forced) {
          if (!is_untried(l)) continue;
          check(l, r);
          // One that was refused may fit the next case.
          if (options_.tried != nullptr && r.schedules.count(schedule_of(l)) != 0) options_.tried->insert(key_of(l));
        }
        settle(r);
        if (!r.failure.empty()) return;
      }
    }
    plant(r);
  }

 private:
  static constexpr std::int64_t zone_bytes = 64 * 1024;
  static constexpr int layouts = 4, far_layout = 4;
  static constexpr std::int64_t far_rows = 3;

  struct launch {
    std::int64_t rows;
    neighbours kind;
    int round, layout;
    bool replayed;
    int forced = -1;  // which schedule
  };
  struct buffer {
    unsigned char* base;
    std::int64_t size;
    unsigned char* pool;
    placed rows;
  };

  // Elements between rows, and before the first.
  std::int64_t gap_of(int layout) const {
    constexpr std::int64_t gaps[layouts] = {0, 8, 3, 0};
    return gaps[layout];
  }
  std::int64_t offset_of(int layout, std::int64_t rows) const {
    const std::int64_t offsets[layouts] = {0, 8, 1 + rows % 15, 1 + (rows + 6) % 15};
    return offsets[layout];
  }

  bool is_far(const column& c) const { return options_.far && !c.packed && !c.transposed; }
  std::int64_t size_of(const column& c) const {
    const std::int64_t elements = c.bytes / c.element_bytes, most_gap = 16 * c.element_bytes;
    const std::int64_t size = is_far(c)      ? far_rows * options_.far_stride * c.element_bytes
                              : c.transposed ? elements * (most_rows_ * c.element_bytes + most_gap)
                                             : most_rows_ * (c.bytes + most_gap);
    return (2 * zone_bytes + most_gap + size + 255) / 256 * 256;
  }
  // The pieces of a shared array, one after the other or far apart.
  void share(const std::vector<unsigned char>& from, std::int64_t piece) {
    const auto bytes = static_cast<std::int64_t>(from.size());
    const std::int64_t each = piece > 0 ? piece : bytes, count = piece > 0 ? bytes / piece : 1;
    std::int64_t stride = each;
    if (options_.far && count > 1) stride = std::max(each, (options_.far_span / (count - 1) + 255) / 256 * 256);
    unsigned char* to = m_.allocate((count - 1) * stride + each);
    if (stride == each) {
      m_.upload(to, from.data(), bytes);
    } else {
      for (std::int64_t i = 0; i < count; ++i) m_.upload(to + i * stride, from.data() + i * each, each);
    }
    shared_.push_back(to);
    piece_stride_.push_back(stride);
  }
  buffer place(const column& c, unsigned char* base, std::int64_t size, bool is_input) {
    buffer b{};
    b.base = base, b.size = size;
    b.rows.bytes = c.bytes, b.rows.element_bytes = c.element_bytes, b.rows.transposed = c.transposed;
    // What is between the rows of an input is NaN.
    if (is_input && !is_far(c)) m_.fill(b.base, 0xFF, size);
    if (!c.pool.empty()) {
      b.pool = m_.allocate(static_cast<std::int64_t>(c.pool.size()));
      m_.upload(b.pool, c.pool.data(), static_cast<std::int64_t>(c.pool.size()));
    }
    return b;
  }

  void lay_out(buffer& b, const column& c, const launch& l, bool is_input) {
    placed& p = b.rows;
    p.gap = 0;
    if (c.packed) {
      p.data = b.base + zone_bytes;
      p.stride = c.bytes;
      if (!is_input && l.layout != far_layout) p.data += offset_of(l.layout, l.rows) * c.element_bytes;
      return;
    }
    if (l.layout == far_layout) {
      p.data = b.base + zone_bytes;
      p.stride = c.transposed ? l.rows * c.element_bytes : options_.far_stride * c.element_bytes;
      if (!is_input && !c.transposed) p.gap = zone_bytes;
      return;
    }
    const std::int64_t gap = gap_of(l.layout) * c.element_bytes;
    p.data = b.base + zone_bytes + offset_of(l.layout, l.rows) * c.element_bytes;
    p.stride = (c.transposed ? l.rows * c.element_bytes : c.bytes) + gap;
    if (!is_input && !c.transposed) p.gap = gap;
  }

  // What is read beyond an input is then beyond its memory, but for what its alignment leaves.
  static void move_to_end(buffer& b, const launch& l) {
    placed& p = b.rows;
    const std::int64_t last = p.at(l.rows - 1, p.bytes - 1) + 1, room = b.size - last;
    const std::int64_t alignment = reinterpret_cast<std::uintptr_t>(p.data) % 16 == 0 ? 16 : p.element_bytes;
    p.data = b.base + room / alignment * alignment;
  }

  // Inputs gathered, outputs poisoned, call_ made.
  void start(const launch& l, const std::vector<std::int32_t>& batch) {
    m_.upload(index_, batch.data(), l.rows * 4);
    call_ = {};
    call_.rows = l.rows;
    for (std::size_t i = 0; i < in_.size(); ++i) {
      lay_out(in_[i], table_.in[i], l, true);
      if (options_.small) move_to_end(in_[i], l);
      m_.gather(in_[i].rows, in_[i].pool, index_, l.rows);
      call_.in.push_back(in_[i].rows.data);
      call_.in_stride.push_back(in_[i].rows.stride);
    }
    for (std::size_t i = 0; i < out_.size(); ++i) {
      buffer& b = out_[i];
      lay_out(b, table_.out[i], l, false);
      if (l.layout == far_layout && !table_.out[i].packed) {
        for (std::int64_t r = 0; r < l.rows; ++r) {
          m_.fill(b.rows.data + r * b.rows.stride - zone_bytes, poison_byte, b.rows.bytes + 2 * zone_bytes);
        }
      } else {
        m_.fill(b.base, poison_byte, end_of(b, l) + zone_bytes - b.base);
      }
      if (b.pool != nullptr) m_.gather(b.rows, b.pool, index_, l.rows);
      call_.out.push_back(b.rows.data);
      call_.out_stride.push_back(b.rows.stride);
    }
    call_.shared = shared_;
    call_.piece_stride = piece_stride_;
    if (!table_.arrange) return;
    arrangement a = table_.arrange(batch);
    call_.numbers = a.numbers;
    arranged_.resize(std::max(arranged_.size(), a.arrays.size()), {nullptr, 0});
    for (std::size_t i = 0; i < a.arrays.size(); ++i) {
      const auto bytes = static_cast<std::int64_t>(a.arrays[i].size());
      if (bytes > arranged_[i].second) {
        arranged_[i] = {m_.allocate(bytes * 2), bytes * 2};
      }
      m_.upload(arranged_[i].first, a.arrays[i].data(), bytes);
      call_.shared.push_back(arranged_[i].first);
    }
  }
  unsigned char* end_of(const buffer& b, const launch& l) const {
    return b.rows.data + b.rows.at(l.rows - 1, 0) + b.rows.bytes + b.rows.gap;
  }

  void check(const launch& l, result& r) {
    const auto batch = rows_of(l);
    compute_alone(batch);
    start(l, batch);
    if (l.replayed) {
      // The first of a size is captured, the others follow it with other rows.
      const bool first = launches_.empty() || !launches_.back().replayed;
      if (first) require(m_.capture(table_, call_));
      require(m_.replay());
      r.replays += 1;
    } else {
      const bi::status st = run_once(l);
      if (l.forced >= 0 && !st && st.code != bi::error::cuda) {
        r.refused += 1;
        return;
      }
      require(st);
    }
    if (const std::string name = schedule_of(l); !name.empty()) r.schedules[name] += 1;
    compare(l, static_cast<std::int64_t>(launches_.size()));
    launches_.push_back(l);
    r.rows += l.rows;
    r.launches += 1;
  }
  bi::status run_once(const launch& l) {
    return l.forced >= 0 ? m_.run_forced(table_, call_, static_cast<std::size_t>(l.forced)) : m_.run(table_, call_);
  }
  // In words, without the number of thread blocks; nothing where only the launcher knows.
  std::string schedule_of(const launch& l) const {
    if (l.forced < 0) return table_.schedule ? is_aligned(l) ? table_.schedule(l.rows) : "of rows not aligned" : "";
    const std::string& name = schedules_[static_cast<std::size_t>(l.forced)];
    const std::size_t blocks = name.rfind("blocks="), end = name.find_first_not_of("0123456789", blocks + 7);
    return blocks == std::string::npos
               ? name
               : name.substr(0, blocks) + "blocks=any" + name.substr(std::min(end, name.size()));
  }
  // Its inputs, and the schedules that it may be forced to.
  void start_forced(const launch& l) {
    start(l, rows_of(l));
    schedules_ = table_.schedules(call_);
  }
  std::string key_of(const launch& l) const { return case_.operation + "/" + schedule_of(l); }
  bool is_untried(const launch& l) const {
    if (options_.tried == nullptr) return true;
    const std::string name = key_of(l);
    const std::uint64_t hash = bi::mix64(bi::contract_id(name.c_str()));
    return hash % options_.parts == options_.part && options_.tried->count(name) == 0;
  }
  bool is_aligned(const launch& l) const { return gap_of(l.layout % layouts) % 8 == 0 && l.layout != 3; }
  void compare(const launch& l, std::int64_t number) {
    for (std::size_t i = 0; i < out_.size(); ++i) {
      const coordinate from{number, static_cast<int>(i), 0, 0};
      m_.compare(from, out_[i].rows, alone_[i], index_, l.rows, poison_byte);
      const bool far = l.layout == far_layout && !table_.out[i].packed;
      m_.compare_zone(from, out_[i].rows.data - zone_bytes, zone_bytes, poison_byte);
      if (!far) m_.compare_zone(from, end_of(out_[i], l), zone_bytes, poison_byte);
    }
    // What is read only is still what it was.
    if (number % 8 != 0) return;
    for (std::size_t i = 0; i < in_.size(); ++i) {
      placed p = in_[i].rows;
      p.gap = 0;
      m_.compare({number, static_cast<int>(out_.size() + i), 0, 0}, p, in_[i].pool, index_, l.rows, 0);
    }
  }
  std::vector<std::int32_t> rows_of(const launch& l) const {
    return choose_rows(table_, l.rows, l.kind, seed_of(l), options_.brief ? 2 : options_.small ? 6 : needles);
  }
  std::uint64_t seed_of(const launch& l) const {
    return bi::mix64(options_.seed * 1000003 + static_cast<std::uint64_t>(l.rows) * 64 +
                     static_cast<std::uint64_t>(l.kind) + static_cast<std::uint64_t>(l.round) * 7919 * 8192);
  }

  // What was found since the last time, in words.
  void settle(result& r) {
    const found f = m_.collect();
    r.bytes_different += f.bytes;
    if (f.bytes == 0 || !r.failure.empty()) return;
    const coordinate at = coordinate::of(f.first);
    const launch& l = launches_[static_cast<std::size_t>(at.launch)];
    const auto batch = rows_of(l);
    r.failure = "a batch of " + std::to_string(l.rows) + " rows among neighbours " + name_of(l.kind) + ", round " +
                std::to_string(l.round) + ", layout " + std::to_string(l.layout) + (l.replayed ? ", replayed" : "") +
                (l.forced >= 0     ? ", forced " + schedules_[static_cast<std::size_t>(l.forced)]
                 : table_.schedule ? ", " + table_.schedule(l.rows)
                                   : "") +
                ": ";
    const auto column = static_cast<std::size_t>(at.column);
    if (column >= out_.size()) {
      r.failure +=
          "input " + table_.in[column - out_.size()].name + " of row " + std::to_string(at.row) + " was written";
      return;
    }
    if (at.row == coordinate::zone_row || at.byte >= out_[column].rows.bytes) {
      r.failure += "what is around the rows of output " + table_.out[column].name + " was written";
      return;
    }
    // Once more, for the bits.
    start(l, batch);
    require(run_once(l));
    const auto size = table_.out[column].element_bytes;
    const std::int64_t byte = at.byte / size * size;
    const std::int32_t row = batch[static_cast<std::size_t>(at.row)];
    std::vector<unsigned char> got(static_cast<std::size_t>(size)), expected = got;
    const buffer& b = out_[column];
    m_.download(got.data(), b.rows.data + b.rows.at(at.row, byte), size);
    m_.download(expected.data(), alone_[column] + row * b.rows.bytes + byte, size);
    r.failure += "place " + std::to_string(at.row) + " is not row " + std::to_string(row) +
                 " alone: " + describe(at.column, row, byte, got.data(), expected.data());
  }
  std::string describe(int output, std::int32_t row, std::int64_t byte, const unsigned char* got,
                       const unsigned char* expected) const {
    const column& c = table_.out[static_cast<std::size_t>(output)];
    const auto hex = [&](const unsigned char* p) {
      std::string text = "0x";
      char two[3];
      for (std::int64_t i = c.element_bytes; i-- > 0;) {
        std::snprintf(two, sizeof two, "%02x", p[i]);
        text += two;
      }
      return text;
    };
    const std::string element = std::to_string(byte / c.element_bytes);
    return "output " + c.name + ", element " + element + ": " + hex(got) + ", expected " + hex(expected) +
           "; by the reference: needle_row '" + case_.name() + "' --seed " + std::to_string(options_.seed) + " --row " +
           std::to_string(row) + " --output " + c.name + " --element " + element;
  }

  // A byte that is wrong must be found where it is.
  void plant(result& r) {
    const launch l{std::min<std::int64_t>(3, most_rows_), neighbours::mixed, 0, options_.far ? far_layout : 2, false};
    const auto batch = rows_of(l);
    compute_alone(batch);
    start(l, batch);
    require(m_.run(table_, call_));
    const std::size_t last = out_.size() - 1;
    unsigned char* byte = out_[last].rows.data + out_[last].rows.at(l.rows - 1, out_[last].rows.bytes - 1);
    unsigned char value = 0;
    m_.download(&value, byte, 1);
    value ^= 0x10;
    m_.upload(byte, &value, 1);
    compare(l, 1);
    const found f = m_.collect();
    const coordinate at{1, static_cast<int>(last), l.rows - 1, out_[last].rows.bytes - 1};
    if (f.bytes != 1 || f.first != at.key()) r.failure = "a byte that was made wrong was not found";
  }

  void append_rows(std::vector<std::vector<unsigned char>>& to, std::int64_t rows) {
    for (std::size_t i = 0; i < out_.size(); ++i) {
      for (std::int64_t row = 0; row < rows; ++row) {
        const unsigned char* p = out_[i].rows.data + row * out_[i].rows.stride;
        to[i].insert(to[i].end(), p, p + out_[i].rows.bytes);
      }
    }
  }
  void require(const bi::status& st) const {
    if (!st) throw std::runtime_error(case_.name() + ": " + bi::describe(st));
  }

  machine& m_;
  const needle_case& case_;
  options options_;
  table table_;
  std::int64_t most_rows_;
  std::vector<buffer> in_, out_;
  std::vector<unsigned char*> shared_, alone_;
  std::vector<std::int64_t> piece_stride_;
  std::vector<std::string> schedules_;  // that the batch at hand is forced under
  std::vector<std::pair<unsigned char*, std::int64_t>> arranged_;
  std::int32_t* index_ = nullptr;
  std::vector<bool> known_;
  call call_;
  std::vector<launch> launches_;
};

inline result check_case(machine& m, const needle_case& c, const options& o) {
  result r;
  matrix x(m, c, o);
  if (o.forced && (!x.of().schedules || (o.tried != nullptr && !x.has_untried()))) return r;
  x.compare_with_reference(r);
  if (r.failure.empty()) o.forced ? x.run_forced(r) : x.run(r);
  return r;
}

}  // namespace test::needle
