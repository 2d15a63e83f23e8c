// worker.h: one core's tickets. An "SM" is a core; its two resident CTAs are a prefill item and a
// decode item, between which the core changes at the end of each KV tile of the prefill item.
//
// ctas_per_sm 2  the next decode ticket is drawn early, its K/V rows are prefetched into L2 while
//                prefill tiles compute, and it runs between two tiles once it is due
// ctas_per_sm 1  items run one after the other, ops alternate in the ratio, nothing is prefetched
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "pod/cpu/sched.h"

namespace pod::cpu {

// Rows of one prefetch list: bounds what a single tile may ask for.
constexpr int kMaxStreamRows = 4096;

// Shared by the workers of one call.
struct Queues {
  alignas(64) std::atomic<int> prefill{0};
  alignas(64) std::atomic<int> decode{0};
  alignas(64) std::atomic<int64_t> prefill_done{0};  // cost of the prefill tiles computed so far
};

class Worker {
 public:
  Worker(const Core& core, const Problem& problem, const PodConfig& config, Plan& plan,
         Queues& queues, Scratch scratch);

  void fused();
  void prefill_only();
  void decode_only();
  WorkerLog take_log() { return std::move(log_); }

 private:
  // Consecutive decode items [begin, end) drawn at once.
  struct Ticket {
    int begin = 0, end = 0;
    bool empty() const { return begin == end; }
  };

  bool overlaps() const;
  bool draw_prefill(int& item);
  bool draw_decode();
  bool wants_decode();
  bool decode_is_due(int64_t cost);
  void run_prefill(int item, bool carry);
  void run_decode();
  void on_tile(int64_t cost, Stream& stream);
  void append_rows(Stream& stream, int64_t budget);

  const Core& core_;
  const Problem& problem_;
  const PodConfig& config_;
  Plan& plan_;
  Queues& queues_;
  Scratch scratch_;
  Ticket pending_;
  int rows_item_ = 0, rows_at_ = 0;  // next row of the pending ticket to prefetch
  int64_t drawn_ = 0;                // tickets, as the SM's counter
  double owed_ = 0;                  // decode tickets due by the explicit ratio
  int64_t item_cost_ = 1, tile_cost_ = 0, reported_ = 0;
  double rows_owed_ = 0;
  WorkerLog log_;
};

}  // namespace pod::cpu
