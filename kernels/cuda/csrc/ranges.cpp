// ranges.cpp: equal ranges while the GPU is not full, shares of it where whole waves are not.

#include "ranges.h"

#include <algorithm>

namespace pod {
namespace {

// What a CTA slot would have read while an item starts and ends, with two of them on each of an
// H200's SMs: there a step over 8 bits takes 5 us, and in each of its waves 15.1 ns per key and
// 3.5 us more, within 3 % for items of 1024 to 32768 keys.
constexpr int kStartBytes = 59000;

// In one item longer than that nobody takes over what a slow SM is late with.
constexpr int kMostUnits = 16384 / kSplitUnit;

// Of the time of decodes: prefill that takes more is not what ends before they do.
constexpr double kMostBeside = 0.25;

// Rows shorter than a share are not cut evenly: worth it from so much on.
constexpr double kGain = 0.97;

// Head dims of which shares were measured to pay throughout. Of 64 the heads of a row drift apart
// in long items, and memory brings them at less of its rate: an H200 took 0.93 of the time for 20
// decodes at 16K and 1.07 for 32, over 8 bits 0.94 and 1.10.
constexpr int kLeastDim = 128;

// Below this a range is left to its neighbour.
constexpr int kLeastUnits = kLeastSplit / kSplitUnit;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

Ends equal_ends(int units, int splits) {
  splits = std::max(1, std::min(splits, units));
  Ends ends(splits);
  for (int s = 0; s < splits; ++s) ends[s] = static_cast<int>(int64_t{units} * (s + 1) / splits);
  return ends;
}

int parts_of(int keys, int length) { return std::max(1, static_cast<int>(ceil_div(keys, length))); }

// Measured on an H100 with 32 query and 8 KV heads of 128: one request of 8192 keys takes 43 us in
// items of 2048 and 26 us in items of 256; 8 requests of 2048 keys take 44 us whole and 35 us in
// items of 512. Where the GPU is full anyway shorter items only cost: 32 requests of 2048 keys take
// 98 us whole and 108 us in items of 512. One length for the batch, so that items stay alike.
int decode_length(const PlanProblem& p, const PlanConfig& config, const std::vector<int>& keys,
                  int64_t free) {
  const auto fits = [&](int length) {
    int64_t parts = 0;
    for (const int n : keys) parts += parts_of(n, length);
    return parts * p.num_kv_heads <= free;
  };
  const int most = config.decode_split_tokens;
  if (most <= kLeastSplit || !fits(most)) return most;
  int least = kLeastSplit / kSplitUnit, enough = static_cast<int>(ceil_div(most, kSplitUnit));
  while (least < enough) {
    const int middle = (least + enough) / 2;
    if (fits(middle * kSplitUnit)) {
      enough = middle;
    } else {
      least = middle + 1;
    }
  }
  return std::min(most, least * kSplitUnit);
}

Ends Shares::next(int units) {
  Ends ends;
  int from = 0;
  for (int64_t end = (at_ / units_ + 1) * units_ - at_; end < units; end += units_) {
    const int cut = static_cast<int>(end);
    if (cut - from < kLeastUnits || units - cut < kLeastUnits) continue;
    ends.push_back(cut);
    from = cut;
  }
  ends.push_back(units);
  at_ += units;
  return ends;
}

// Longest first the rest of a row that was cut meets, in one place, the share that it is short of:
// both are as far down the list as up. So all places end together, where items of one length end in
// waves, the last of which may be nearly empty. The heads of a row are cut at the same keys and run
// side by side: what one of them reads of a token lies beside what the next one does, and of 64
// bytes each an H200's memory brings them at 0.77 of the rate when they come at other times.
Shares choose_shares(const PlanProblem& p, const std::vector<int>& keys, int length, int64_t slots,
                     const Beside& beside) {
  const int64_t places = slots / p.num_kv_heads, rows = static_cast<int64_t>(keys.size());
  if (places <= 0 || length <= kLeastSplit || p.head_dim < kLeastDim) return Shares(0);
  int64_t units = 0, items = 0;
  for (const int n : keys) {
    units += ceil_div(n, kSplitUnit);
    items += parts_of(n, length);
  }
  // Whole rows need no merge, and a captured grid has no more room than rows and one wave.
  const int64_t room = std::max<int64_t>(1, (items - rows) / places);
  const int64_t rounds = std::min(ceil_div(units, places * kMostUnits), room);
  if (items * p.num_kv_heads <= slots || items == rows) return Shares(0);
  const double start = kStartBytes / (2.0 * p.head_dim * p.kv_bytes * kSplitUnit);
  const double item = static_cast<double>(units) / items + start, wide = beside.all / slots;
  const double waves = static_cast<double>(ceil_div(items * p.num_kv_heads, slots));
  const double equal = std::max(waves * item, item * items / places + wide);
  const double share = static_cast<double>(units) / places;
  const double each = rounds + static_cast<double>(rows) / places;
  const double even = share + start * each + std::max(beside.longest, wide);
  const bool pays = even < kGain * equal && wide <= kMostBeside * share;
  return Shares(pays ? ceil_div(units, places * rounds) : 0);
}

}  // namespace pod
