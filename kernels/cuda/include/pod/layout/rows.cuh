// rows.cuh: packed query rows. Row r of an item is query token (row0 + r) / group of its request
// under head kv_head * group + (row0 + r) % group.
#pragma once

#include "pod/arguments.h"
#include "pod/ptx/platform.cuh"

namespace pod::layout {

POD_DEVICE int quotient(int n, const Divider& by) {
  const auto dividend = static_cast<uint32_t>(n);
  if (by.multiplier == 0) return static_cast<int>(dividend >> by.shift);
  return static_cast<int>(uint64_t{dividend} * by.multiplier >> 32 >> by.shift);
}

struct TokenHead {
  int token;  // row of q and out
  int head;
};

POD_DEVICE TokenHead token_head(const KernelArguments& a, const Item& item, int row) {
  const int packed = item.row0 + row, token = quotient(packed, a.group_divider);
  return {item.q_begin + token, item.kv_head * a.group + packed - token * a.group};
}

// Keys of an item that a row sees: first .. last, both inclusive. A row whose window begins past
// the item's keys gets `first` alone, which no tile of the item has: only a request's last item may
// end within a tile, and a row sees keys of that one.
struct Visible {
  int first, last;
};

POD_DEVICE Visible visible(const KernelArguments& a, const Item& item, int row) {
  const int position = item.offset + quotient(item.row0 + row, a.group_divider);
  const int first = a.window_left >= 0 ? max(0, position - a.window_left) : 0;
  return {first, max(first, min(position, item.kv1 - 1))};
}

}  // namespace pod::layout
