// cuts.cpp: what a batch is thought to take whose prefill items are cut, and the cut that is best.

#include "cuts.h"

#include <algorithm>

namespace pod {
namespace {

constexpr int kWhole = 1 << 30;

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Items of one length.
struct Alike {
  int tiles;
  int64_t items;
};

// What prefill is cut into.
struct Pieces {
  std::vector<Alike> longest_first;
  int64_t items = 0, tiles = 0;  // of all
  int64_t partial_rows = 0;      // that cut items write and a merge reads

  // Length of an item by its place among all.
  int tiles_at(int64_t place) const {
    for (const Alike& alike : longest_first) {
      if (place < alike.items) return alike.tiles;
      place -= alike.items;
    }
    return 0;
  }
};

Pieces cut_up(const std::vector<PrefillBlock>& blocks, const PrefillCut& cut, int heads) {
  Pieces pieces;
  for (const PrefillBlock& block : blocks) {
    const int parts = cut.parts_of(block.tiles);
    const int64_t items = int64_t{parts} * heads;
    pieces.longest_first.push_back({ceil_div(block.tiles, parts), items});
    pieces.items += items;
    pieces.tiles += int64_t{block.tiles} * heads;
    if (parts > 1) pieces.partial_rows += items * block.rows;
  }
  std::sort(pieces.longest_first.begin(), pieces.longest_first.end(),
            [](const Alike& a, const Alike& b) { return a.tiles > b.tiles; });
  return pieces;
}

// In us of an H100 that reads as an H200 does. Elsewhere everything is faster or slower by much the
// same, and only what is shorter matters. Decodes that are thought slower than they are hide
// prefill that they do not: 128 tokens at 16K beside 16 decodes at 8K, 16 query and 8 KV heads of
// 256, took an H200 525 us whole and 330 us in two, while a cut too many costs a merge.
class Model {
 public:
  Model(const PlanProblem& p, const PlanConfig& config, int64_t decode_keys)
      : p_(p), tiles_(config.tiles) {
    const double columns = (p.head_dim + kSoftmaxColumns) * 128 / (128 + kSoftmaxColumns);
    tile_flop_ = 4 * columns * tiles_.prefill.q_rows * tiles_.prefill.kv_rows;
    // One after the other, decodes hide nothing.
    const bool hides = config.strategy != Strategy::kSerial;
    decode_us_ = hides ? 4.0 * p.head_dim * decode_keys / (kRead * p.num_sms) : 0;
    // Where a CTA runs one op at a time they take their share of it.
    if (runs_in_turn(tiles_, p.head_dim, p.kv_bytes))
      decode_tiles_ = decode_us_ * kShared / tile_flop_;
  }

  // A batch: its decodes, or what the busiest CTA has to do, and then the merge.
  double batch_us(const Pieces& pieces) const {
    const double merge = pieces.partial_rows == 0
                             ? 0
                             : kMergeUs + 8.0 * p_.head_dim * pieces.partial_rows / partials();
    return std::max(decode_us_, busiest_us(pieces)) + merge;
  }
  // No more than any cut of them takes: all SMs have as much to do, at the best rate.
  double least_us(const Pieces& whole) const {
    const double each = (whole.tiles + kItemTiles * whole.items) / p_.num_sms + decode_tiles_;
    return std::max(decode_us_, each * tile_flop_ / kShared) + kMergeUs;
  }

 private:
  // Bytes/us at which partial rows are written and read again.
  double partials() const { return runs_both(tiles_) ? kPairPartials : kPartials; }

  // FLOP/us of an SM's one or more prefill CTAs, a pair's among these; bytes/us of an SM, and of
  // partial rows that are written and read again. A tile's softmax takes as long as 64 columns
  // more, and an item's first and last steps as long as two tiles.
  static constexpr double kLone = 3.0e6, kShared = 4.1e6, kRead = 31.8e3, kPartials = 1.4e6,
                          kPairPartials = 2.8e6;
  static constexpr double kMergeUs = 5, kSoftmaxColumns = 64, kItemTiles = 2;
  static constexpr int kWaves = 8;  // after which it matters little how items share CTAs

  // Of the w * ctas + 1 longest items one CTA has w + 1, whoever gets which.
  double busiest_us(const Pieces& pieces) const {
    const double each =
        std::clamp<double>(static_cast<double>(pieces.items) / p_.num_sms, 1, tiles_.ctas_per_sm);
    const double rate = each > 1 || runs_both(tiles_) ? kShared : kLone;
    const double ctas = p_.num_sms * each;
    double most = (pieces.tiles + kItemTiles * pieces.items) / ctas + decode_tiles_;
    for (int wave = 0; wave < kWaves; ++wave) {
      const int tiles = pieces.tiles_at(static_cast<int64_t>(wave * ctas));
      if (tiles > 0) most = std::max(most, (wave + 1) * (tiles + kItemTiles));
    }
    return most * tile_flop_ * each / rate;
  }

  const PlanProblem& p_;
  const PodConfig& tiles_;
  double tile_flop_, decode_us_, decode_tiles_ = 0;
};

// Where CTAs stay, cut items take no place of decode items, and may be as many as surely keep all
// CTAs busy; elsewhere one wave is the most that they may fill.
int64_t most_items(const PlanProblem& p, const PlanConfig& config, int64_t whole) {
  const int64_t slots = int64_t{p.num_sms} * config.tiles.ctas_per_sm;
  return runs_both(config.tiles) ? whole + 2 * slots : std::max(whole, slots);
}

// A cut fills idle CTAs, and costs a merge: 512 tokens alone of 32 query and 8 KV heads of 128 take
// 24 us on an H100 whole and 43 us in two. So it must surely pay. Items are cut to a length, so
// that one long context beside many short prompts is, and these are not.
PrefillCut cut_that_pays(const PlanProblem& p, const PlanConfig& config,
                         const std::vector<PrefillBlock>& blocks, int64_t decode_keys) {
  const double surely = runs_both(config.tiles) ? 0.92 : 0.85;
  const Model model(p, config, decode_keys);
  PrefillCut best{1, kWhole};
  const Pieces whole = cut_up(blocks, best, p.num_kv_heads);
  double least = surely * model.batch_us(whole);
  const double no_less = model.least_us(whole);
  const int longest = whole.tiles_at(0);
  int tried = longest;
  for (int parts = 2; parts <= longest && no_less < least; ++parts) {
    const PrefillCut cut{1, ceil_div(longest, parts)};
    if (cut.most_tiles == tried) continue;
    tried = cut.most_tiles;
    const Pieces pieces = cut_up(blocks, cut, p.num_kv_heads);
    if (pieces.items > most_items(p, config, whole.items)) break;
    const double us = model.batch_us(pieces);
    if (us < least) best = cut, least = us;
  }
  return best;
}

}  // namespace

int PrefillCut::parts_of(int tiles) const {
  return std::max(std::min(parts, tiles), ceil_div(tiles, most_tiles));
}

PrefillCut choose_cut(const PlanProblem& p, const PlanConfig& config,
                      const std::vector<PrefillBlock>& blocks, int64_t decode_keys) {
  if (config.max_prefill_waves == 1) return cut_that_pays(p, config, blocks, decode_keys);
  const int64_t slots = int64_t{config.max_prefill_waves} * p.num_sms * config.tiles.ctas_per_sm;
  const int64_t items = static_cast<int64_t>(blocks.size()) * p.num_kv_heads;
  return {static_cast<int>(std::max<int64_t>(1, slots / items)), kWhole};
}

}  // namespace pod
