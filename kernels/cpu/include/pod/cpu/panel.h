// panel.h: query rows as lanes. Between rows and panels, and which keys a lane sees.
#pragma once

#include "pod/cpu/fma_block.h"
#include "pod/cpu/softmax.h"

namespace pod::cpu::POD_ISA {

// One vector of rows in a buffer [panels][D][panel rows]: its column 0, and the floats from one
// column to the next.
struct Lanes {
  float* at;
  int stride;
};

// The kLanes rows from r on of a buffer of `rows` rows, a multiple of kLanes; the last panel may be
// a single vector wide.
inline Lanes lanes_of(float* buffer, int rows, int dim, int r) {
  const int panel = r / kPanelRows * kPanelRows;
  const int width = rows - panel < kPanelRows ? kLanes : kPanelRows;
  return {buffer + panel * dim + r % kPanelRows, width};
}

// kLanes rows [D], each where its pointer says, times `scale`.
template <typename T>
inline void rows_to_lanes(const T* const* rows, float scale, int dim, Lanes to) {
  for (int d = 0; d < dim; d += kLanes) {
    VecF x[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) x[i] = load(rows[i] + d) * broadcast(scale);
    transpose(x);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store(to.at + (d + i) * to.stride, x[i]);
  }
}

// The other way, into rows [kLanes, D].
inline void lanes_to_rows(Lanes from, int dim, float* rows) {
  for (int d = 0; d < dim; d += kLanes) {
    VecF x[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) x[i] = load(from.at + (d + i) * from.stride);
    transpose(x);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store(rows + i * dim + d, x[i]);
  }
}

// Lanes, at these positions, that see `key`; window_left as in Problem.
inline VecI sees(VecI position, int key, int window_left) {
  VecI visible = broadcast(key) <= position;
  if (window_left >= 0) visible &= broadcast(key + window_left) >= position;
  return visible;
}

// Base-2 logits of `position`'s lanes and kVecs * kLanes raw scores s of `key`: capped, and -inf
// where a lane does not see the key.
template <int kVecs>
inline void mask_scores(const Problem& p, const VecI* position, int key, float* s) {
#pragma GCC unroll 4
  for (int v = 0; v < kVecs; ++v) {
    const VecF x = logits(load(s + v * kLanes), p.score_scale);
    store(s + v * kLanes, sees(position[v], key, p.window_left) ? x : broadcast(kNegInf));
  }
}

}  // namespace pod::cpu::POD_ISA
