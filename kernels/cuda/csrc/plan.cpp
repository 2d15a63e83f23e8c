// plan.cpp: items, KV splits and the CTA ratio.

#include "plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>

#include "cuts.h"
#include "ranges.h"

namespace pod {
namespace {

int ceil_div(int a, int b) { return (a + b - 1) / b; }

struct Request {
  int index, q_begin, q_len, kv_len;
};

// Packed rows row0 .. row0 + rows - 1 of every KV head of a request, and the keys they see.
struct Block {
  Request request;
  int row0, rows;
  int kv0, kv1;
  int seen_first, seen_last;
};

Block block_of(const PlanProblem& p, const Request& r, int row0, int q_rows) {
  const int rows = std::min(q_rows, r.q_len * p.group - row0);
  const int first = r.kv_len - r.q_len + row0 / p.group;
  const int last = r.kv_len - r.q_len + (row0 + rows - 1) / p.group;
  const auto begin = [&](int position) {
    return p.window_left >= 0 ? std::max(0, position - p.window_left) : 0;
  };
  return {r, row0, rows, begin(first), last + 1, begin(last), first};
}

// Appends the block's items, of every KV head ranges that end after as many `unit`s of keys.
void add_items(const PlanProblem& p, const Block& b, int unit, const Ends& ends, Plan& plan,
               std::vector<Item>& items) {
  const int splits = static_cast<int>(ends.size());
  for (int head = 0; head < p.num_kv_heads; ++head) {
    Item item{};
    item.request = b.request.index;
    item.kv_head = head;
    item.row0 = b.row0;
    item.rows = b.rows;
    item.q_begin = b.request.q_begin;
    item.offset = b.request.kv_len - b.request.q_len;
    item.seen_first = b.seen_first;
    item.seen_last = b.seen_last;
    const int slot = plan.header.partial_rows;
    item.kv1 = b.kv0;
    for (int s = 0; s < splits; ++s) {
      item.kv0 = item.kv1;
      item.kv1 = static_cast<int>(std::min<int64_t>(b.kv1, b.kv0 + int64_t{ends[s]} * unit));
      item.slot = splits == 1 ? -1 : slot + s * b.rows;
      items.push_back(item);
    }
    if (splits == 1) continue;
    plan.header.partial_rows += splits * b.rows;
    for (int row = 0; row < b.rows; row += kMergeRows) {
      plan.merge.push_back({slot + row, splits, b.rows, std::min(kMergeRows, b.rows - row),
                            item.q_begin, b.row0 + row, head, 0});
    }
  }
}

int keys_of(const Item& item) { return item.kv1 - item.kv0; }

// An item takes as long as its keys, whatever its rows: its tile has as many.
void sort_longest_first(std::vector<Item>& items) {
  std::stable_sort(items.begin(), items.end(),
                   [](const Item& a, const Item& b) { return keys_of(a) > keys_of(b); });
}

// Among items of about one length those that read the same keys follow each other, so that these
// are read from memory once and then out of L2. Where many heads have long contexts nothing else
// keeps them there: of four prompts of 512 tokens behind 8K, 32 heads, as many items run at once as
// there are heads to read.
void gather_readers(std::vector<Item>& longest_first) {
  const auto read = [](const Item& i) { return std::tie(i.request, i.kv_head, i.kv0); };
  for (auto first = longest_first.begin(); first != longest_first.end();) {
    const int64_t least = int64_t{keys_of(*first)} * 7 / 8;
    const auto last = std::find_if(first, longest_first.end(),
                                   [&](const Item& item) { return keys_of(item) < least; });
    std::stable_sort(first, last, [&](const Item& a, const Item& b) { return read(a) < read(b); });
    first = last;
  }
}

template <typename Visit>
void for_each_block(const PlanProblem& p, const PlanConfig& config, Op op, Visit visit) {
  const int q_rows = op == Op::kPrefill ? config.tiles.prefill.q_rows : config.tiles.decode.q_rows;
  for (int b = 0; b < p.requests; ++b) {
    const int q_len = p.q_indptr[b + 1] - p.q_indptr[b];
    if (q_len == 0 || is_decode(q_len, p.group) != (op == Op::kDecode)) continue;
    const Request request{b, p.q_indptr[b], q_len, p.kv_lens[b]};
    // Last rows first: they see the most keys, so the list of one request is sorted already.
    for (int i = ceil_div(q_len * p.group, q_rows) - 1; i >= 0; --i) {
      visit(block_of(p, request, i * q_rows, q_rows));
    }
  }
}

void plan_prefill(const PlanProblem& p, const PlanConfig& config, Plan& plan) {
  const int unit = config.tiles.prefill.kv_rows;
  const auto tiles_of = [&](const Block& b) { return ceil_div(b.kv1 - b.kv0, unit); };
  std::vector<PrefillBlock> blocks;
  for_each_block(p, config, Op::kPrefill,
                 [&](const Block& b) { blocks.push_back({tiles_of(b), b.rows}); });
  if (blocks.empty()) return;
  int64_t decode_keys = 0;
  for_each_block(p, config, Op::kDecode,
                 [&](const Block& b) { decode_keys += int64_t{b.kv1 - b.kv0} * p.num_kv_heads; });
  const PrefillCut cut = choose_cut(p, config, blocks, decode_keys);
  for_each_block(p, config, Op::kPrefill, [&](const Block& block) {
    const int tiles = tiles_of(block);
    add_items(p, block, unit, equal_ends(tiles, cut.parts_of(tiles)), plan, plan.prefill);
  });
  sort_longest_first(plan.prefill);
  gather_readers(plan.prefill);
}

// Items that decode CTAs may hold until the GPU is full, beside the plan's prefill items; where
// CTAs run both ops these take none of their places.
int64_t free_decode_items(const PlanProblem& p, const PlanConfig& config, const Plan& plan) {
  if (runs_both(config.tiles)) return std::min(p.num_sms, p.fill_ctas);
  const int64_t slots = int64_t{p.num_sms} * config.tiles.ctas_per_sm;
  const int64_t free = std::max<int64_t>(0, slots - static_cast<int64_t>(plan.prefill.size()));
  return std::min<int64_t>(free, p.fill_ctas) * config.tiles.virtual_decode;
}

// A key of a prefill item of 128 rows takes about what one of 16 bits takes to be read.
Beside beside_decodes(const PlanProblem& p, const PlanConfig& config, const Plan& plan) {
  Beside beside{};
  if (config.strategy == Strategy::kSerial) return beside;
  const double units = 2.0 / (p.kv_bytes * kSplitUnit);
  for (const Item& item : plan.prefill) {
    const double each = keys_of(item) * units;
    beside.longest = std::max(beside.longest, each);
    // A CTA that has one has no place for decodes.
    beside.all += each * config.tiles.virtual_decode;
  }
  return beside;
}

// Decodes that fill the GPU may have shares of it. Beside much prefill items of one length mix
// better, and a CTA that runs both ops, or a pair of them, takes its decodes as they come.
void plan_decode(const PlanProblem& p, const PlanConfig& config, Plan& plan) {
  std::vector<int> keys;
  for_each_block(p, config, Op::kDecode,
                 [&](const Block& block) { keys.push_back(block.kv1 - block.kv0); });
  const int64_t free = free_decode_items(p, config, plan);
  const int length = decode_length(p, config, keys, free);
  const int64_t ctas = runs_both(config.tiles) ? 0 : p.num_sms * config.tiles.ctas_per_sm;
  const int64_t slots = std::min<int64_t>(ctas, p.fill_ctas) * config.tiles.virtual_decode;
  const Beside beside = beside_decodes(p, config, plan);
  Shares shares = choose_shares(p, keys, length, slots, beside);
  for_each_block(p, config, Op::kDecode, [&](const Block& block) {
    const int n = block.kv1 - block.kv0, units = ceil_div(n, kSplitUnit);
    const int parts = length > 0 ? parts_of(n, length) : 1;
    const Ends ends = shares ? shares.next(units) : equal_ends(units, parts);
    add_items(p, block, kSplitUnit, ends, plan, plan.decode);
  });
  sort_longest_first(plan.decode);
}

// Where a CTA runs one op at a time, half of them begin with each: HBM then serves some SMs while
// the matrix units of the others work. But as many with prefill as it has long items, where these
// are more than half of the CTAs and leave some over: what waits for decodes to end ends last.
void choose_ratio_in_turn(const PlanProblem& p, const Plan& plan, int64_t& prefill,
                          int64_t& decode) {
  prefill = decode = 1;
  if (plan.prefill.empty()) return;
  const auto begin = plan.prefill.begin(), end = plan.prefill.end();
  // Not the first: those of about its length were gathered by what they read.
  const int longest = keys_of(*std::max_element(
      begin, end, [](const Item& a, const Item& b) { return keys_of(a) < keys_of(b); }));
  const int64_t items =
      std::count_if(begin, end, [&](const Item& item) { return 2 * keys_of(item) > longest; });
  if (2 * items > p.num_sms && 10 * items <= 9 * p.num_sms) {
    prefill = items, decode = p.num_sms - items;
  }
}

// Prefill : decode CTAs where the config leaves it open: proportional, so that both ops end
// together, but while a prefill CTA or two per SM are all there are, these come early. One that is
// drawn in the middle ends long after everything else. Of an H200, 512 tokens at 8K beside 64
// decodes at 4K: 152 prefill CTAs take 460 us proportionally, 386 us at 1:1.
void choose_ratio(const PlanProblem& p, const PlanConfig& config, const Plan& plan,
                  int64_t& prefill, int64_t& decode) {
  if (runs_in_turn(config.tiles, p.head_dim, p.kv_bytes)) {
    choose_ratio_in_turn(p, plan, prefill, decode);
    return;
  }
  prefill = plan.prefill_ctas, decode = plan.decode_ctas;
  const int64_t each = 4 * prefill <= 5 * p.num_sms ? 1 : 2;
  if (2 * prefill <= 5 * p.num_sms && decode > each * prefill) prefill = 1, decode = each;
}

// Any ratio, scaled to a sum that keeps the device's arithmetic within 32 bits.
void set_ratio(const PlanProblem& p, const PlanConfig& config, Plan& plan) {
  int64_t prefill = config.prefill_ctas, decode = config.decode_ctas;
  if (prefill == 0 && decode == 0) choose_ratio(p, config, plan, prefill, decode);
  const int64_t sum = prefill + decode;
  if (sum > kMaxRatioSum) {
    const int64_t scaled = std::llround(static_cast<double>(prefill) * kMaxRatioSum / sum);
    const int64_t least = prefill > 0, most = kMaxRatioSum - (decode > 0);
    prefill = std::clamp<int64_t>(scaled, least, most);
    decode = kMaxRatioSum - prefill;
  }
  plan.header.ratio_prefill = plan.prefill_ctas ? static_cast<int>(prefill) : 0;
  plan.header.ratio_decode = plan.decode_ctas ? static_cast<int>(decode) : 0;
}

}  // namespace

bool is_decode(int q_len, int group) { return q_len == 1 || int64_t{q_len} * group <= kDecodeRows; }

Plan make_plan(const PlanProblem& problem, const PlanConfig& config) {
  Plan plan{};
  plan_prefill(problem, config, plan);
  plan_decode(problem, config, plan);
  PlanHeader& h = plan.header;
  h.prefill_items = static_cast<int>(plan.prefill.size());
  h.decode_items = static_cast<int>(plan.decode.size());
  h.merge_blocks = static_cast<int>(plan.merge.size());
  h.prefill_offset = kHeaderWords;
  h.decode_offset = h.prefill_offset + h.prefill_items * kItemWords;
  h.merge_offset = h.decode_offset + h.decode_items * kItemWords;
  h.words = h.merge_offset + h.merge_blocks * kMergeWords;
  plan.prefill_ctas = h.prefill_items;
  plan.decode_ctas = ceil_div(h.decode_items, config.tiles.virtual_decode);
  set_ratio(problem, config, plan);
  return plan;
}

void write_plan(const Plan& plan, int32_t* buffer) {
  const auto copy = [&](int offset, const auto& items) {
    if (!items.empty()) {
      std::memcpy(buffer + offset, items.data(), items.size() * sizeof(items[0]));
    }
  };
  std::memcpy(buffer, &plan.header, sizeof(plan.header));
  copy(plan.header.prefill_offset, plan.prefill);
  copy(plan.header.decode_offset, plan.decode);
  copy(plan.header.merge_offset, plan.merge);
}

}  // namespace pod
