// worker.cpp: tickets, the CTA ratio and what is prefetched when.

#include "pod/cpu/worker.h"

#include <algorithm>

namespace pod::cpu {
namespace {

// Prefetch somewhat faster than the ratio consumes, so that a decode item is complete when due.
constexpr double kPrefetchLead = 1.25;
// More than this does not stay in L2 beside the prefill tile.
constexpr int64_t kMaxAheadBytes = 768 << 10;

}  // namespace

Worker::Worker(const Core& core, const Problem& problem, const PodConfig& config, Plan& plan,
               Queues& queues, Scratch scratch)
    : core_(core), problem_(problem), config_(config), plan_(plan), queues_(queues),
      scratch_(scratch) {}

bool Worker::overlaps() const { return config_.ctas_per_sm >= 2 && !plan_.decode.empty(); }

bool Worker::draw_prefill(int& item) {
  item = queues_.prefill.fetch_add(1);
  return item < static_cast<int>(plan_.prefill.size());
}

bool Worker::draw_decode() {
  if (!pending_.empty()) return true;
  const int total = static_cast<int>(plan_.decode.size());
  // Checked first so that the counter cannot run away while others still compute.
  if (queues_.decode.load(std::memory_order_relaxed) >= total) return false;
  const int begin = queues_.decode.fetch_add(config_.virtual_decode);
  if (begin >= total) return false;
  pending_ = {begin, std::min(begin + config_.virtual_decode, total)};
  rows_item_ = begin;
  rows_at_ = 0;
  return true;
}

void Worker::run_decode() {
  const Ticket ticket = pending_;
  pending_ = {};
  for (int i = ticket.begin; i < ticket.end; ++i) {
    log_.tickets.push_back(-1 - i);
    core_.decode(problem_, config_, plan_.decode[i], plan_.groups.data(), scratch_);
  }
}

void Worker::run_prefill(int item, bool carry) {
  log_.tickets.push_back(item);
  const Item& work = plan_.prefill[item];
  item_cost_ = work.cost;
  reported_ = 0;
  tile_cost_ =
      std::max<int64_t>(1, work.cost * std::min(config_.prefill.kv_rows, work.kv1 - work.kv0) /
                               (work.kv1 - work.kv0));
  Hooks hooks{[](void*, int64_t, Stream&) {}, this};
  if (carry) {
    hooks.tile = [](void* self, int64_t cost, Stream& stream) {
      static_cast<Worker*>(self)->on_tile(cost, stream);
    };
  }
  core_.prefill(problem_, config_, work, plan_.groups.data(), scratch_, hooks);
  queues_.prefill_done.fetch_add(work.cost - reported_, std::memory_order_relaxed);
}

// Whether the decode side lags behind its share. Explicit ratio: D tickets per P items. 0:0: both
// queues are to run dry together, so the share of cost taken is compared.
bool Worker::decode_is_due(int64_t cost) {
  if (config_.prefill_ctas > 0) {
    owed_ += static_cast<double>(cost) / item_cost_ * config_.decode_ctas / config_.prefill_ctas;
    return owed_ >= 1.0;
  }
  const double done = static_cast<double>(queues_.prefill_done.load(std::memory_order_relaxed));
  return static_cast<double>(plan_.decode_before[pending_.end]) * plan_.prefill_cost <=
         done * plan_.decode_cost;
}

void Worker::on_tile(int64_t cost, Stream& stream) {
  queues_.prefill_done.fetch_add(cost, std::memory_order_relaxed);
  reported_ += cost;
  while (draw_decode() && decode_is_due(cost)) {
    run_decode();
    owed_ -= 1.0;
    cost = 0;
  }
  double rate = static_cast<double>(plan_.decode_cost) / plan_.prefill_cost;
  if (config_.prefill_ctas > 0 && !pending_.empty()) {
    const int64_t ticket = plan_.decode_before[pending_.end] - plan_.decode_before[pending_.begin];
    rate = static_cast<double>(ticket) * config_.decode_ctas / config_.prefill_ctas / item_cost_;
  }
  rows_owed_ += kPrefetchLead * rate * tile_cost_ / problem_.row_bytes;
  const int64_t budget = static_cast<int64_t>(rows_owed_);
  const char** before = stream.end;
  if (!pending_.empty()) append_rows(stream, budget);
  rows_owed_ -= budget;
  log_.decode_rows_ahead += stream.end - before;
}

// Adds up to `budget` K and V rows of the pending ticket, continuing where the last call stopped.
void Worker::append_rows(Stream& stream, int64_t budget) {
  const PagedCache& cache = problem_.cache;
  const int64_t cap = kMaxAheadBytes / (2 * problem_.row_bytes);
  const int64_t room = scratch_.stream + scratch_.stream_capacity - stream.end;
  int64_t pairs = std::min(budget, room) / 2;
  while (pairs > 0 && rows_item_ < pending_.end) {
    const Item& item = plan_.decode[rows_item_];
    const int begin = item.kv0 + rows_at_;
    const int end = static_cast<int>(std::min<int64_t>(item.kv1, begin + pairs));
    const int32_t* pages = cache.page_indices + cache.page_starts[item.request];
    int page = begin / cache.page_size, slot = begin % cache.page_size;
    for (int j = begin; j < end && rows_at_ < cap; ++j, ++rows_at_, --pairs) {
      *stream.end++ =
          cache.k + item.kv_head * cache.k_head + pages[page] * cache.k_page + slot * cache.k_slot;
      *stream.end++ =
          cache.v + item.kv_head * cache.v_head + pages[page] * cache.v_page + slot * cache.v_slot;
      if (++slot == cache.page_size) {
        slot = 0;
        ++page;
      }
    }
    if (rows_at_ >= cap) return;
    if (item.kv0 + rows_at_ < item.kv1) return;
    ++rows_item_;
    rows_at_ = 0;
  }
}

// Between items: with an explicit ratio the core's own counter decides, else the cost taken.
bool Worker::wants_decode() {
  if (config_.prefill_ctas > 0) {
    const int64_t round = config_.prefill_ctas + config_.decode_ctas;
    return drawn_++ % round >= config_.prefill_ctas;
  }
  const int taken = std::min<int>(queues_.decode.load(), static_cast<int>(plan_.decode.size()));
  const double done = static_cast<double>(queues_.prefill_done.load(std::memory_order_relaxed));
  return static_cast<double>(plan_.decode_before[taken]) * plan_.prefill_cost <
         done * plan_.decode_cost;
}

void Worker::fused() {
  const bool carry = overlaps() && !plan_.prefill.empty();
  bool prefill_left = !plan_.prefill.empty(), decode_left = !plan_.decode.empty();
  while (prefill_left || decode_left) {
    // A carried decode runs inside of prefill items, so between them prefill goes first.
    const bool decode = decode_left && (!prefill_left || (!carry && wants_decode()));
    int item = 0;
    if (decode) {
      decode_left = draw_decode();
      if (decode_left) run_decode();
    } else if ((prefill_left = draw_prefill(item))) {
      run_prefill(item, carry);
    }
  }
}

void Worker::prefill_only() {
  for (int item = 0; draw_prefill(item);) run_prefill(item, false);
}

void Worker::decode_only() {
  while (draw_decode()) run_decode();
}

}  // namespace pod::cpu
