// mask.cuh: which keys a lane's rows see, and the scores of the others.
#pragma once

#include "pod/layout/fragment.cuh"
#include "pod/layout/rows.cuh"

namespace pod {

constexpr float kNegativeInfinity = -__builtin_huge_valf();

// The tiles of `keys` keys that every row of an item sees whole, by their first keys.
struct WholeTiles {
  int first, last;

  POD_DEVICE WholeTiles(const Item& item, int keys)
      : first(item.seen_first), last(min(item.seen_last + 1, item.kv1) - keys) {}
  POD_DEVICE bool holds(int kv) const { return kv >= first && kv <= last; }
};

// Scores of unseen keys become -inf. s[tile][n] covers rows row0 + 16 * tile .. of the item and
// keys kv + 8 * n ... Limits of single rows are worked out here, where a tile needs them: keeping
// them would cost registers in every tile.
template <int kTiles, int kColumns>
POD_DEVICE void mask_scores(float (&s)[kTiles][kColumns][4], const KernelArguments& a,
                            const Item& item, int row0, int kv, int lane) {
  lane = ptx::forget(lane);
  Fragment::for_each_row<kTiles>([&](int tile, int half) {
    const int row = row0 + tile * Fragment::kRows + Fragment::row(lane, half);
    const auto keys = layout::visible(a, item, row);
    // One unsigned comparison for both limits.
    const int start = kv + Fragment::column(lane) - keys.first;
    const auto span = static_cast<unsigned>(keys.last - keys.first);
    POD_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      POD_UNROLL
      for (int pair = 0; pair < Fragment::kPairs; ++pair) {
        const auto after = static_cast<unsigned>(start + n * Fragment::kColumns + pair);
        if (after > span) s[tile][n][Fragment::at(half, pair)] = kNegativeInfinity;
      }
    }
  });
}

}  // namespace pod
