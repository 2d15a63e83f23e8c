// output.h: normalize, add the sink, round and store; merge of split KV.
//
// A row whose visible logits are all -inf has l = 0: out 0, lse -inf. A NaN that a row met is in
// its l and o by now, and so in its answer.
#pragma once

#include "pod/cpu/rows.h"
#include "pod/cpu/softmax.h"

namespace pod::cpu::POD_ISA {

// Stores one answer row from o [D] unnormalized, m (base 2) and l; scales o in place.
template <typename T>
inline void store_answer(const Problem& p, const PackedRow& row, float* o, float m, float l) {
  if (p.sinks) {
    const float sink = p.sinks[row.head] * kLog2e;
    const float top = sink > m ? sink : m;
    const float base = top == kNegInf ? 0.0f : top;
    const float keep = __builtin_exp2f(m - base);
    l = l * keep + __builtin_exp2f(sink - base);
    for (int d = 0; d < p.head_dim; d += kLanes) store(o + d, load(o + d) * broadcast(keep));
    m = top;
  }
  const VecF inverse = broadcast(l == 0 ? 0.0f : p.value_scale / l);
  T* out = reinterpret_cast<T*>(p.out + row.token * p.out_token + row.head * p.out_head);
  for (int d = 0; d < p.head_dim; d += kLanes) store(out + d, load(o + d) * inverse);
  p.lse[row.token * p.lse_token + row.head * p.lse_head] =
      l == 0 ? kNegInf : (m + __builtin_log2f(l)) * kLn2;
}

inline void store_partial(const Problem& p, const SplitGroup& group, int split, int r,
                          const float* o, float m, float l) {
  const int64_t dim = p.head_dim;
  float* base = group.partial + split * group.rows * (dim + 2);
  __builtin_memcpy(base + r * dim, o, dim * sizeof(float));
  base[group.rows * dim + r] = m;
  base[group.rows * (dim + 1) + r] = l;
}

// Rescales all splits of each row to their common maximum, adds them up and stores the answer.
template <typename T>
inline void merge(const Problem& p, const SplitGroup& group) {
  const int64_t dim = p.head_dim, stride = group.rows * (dim + 2);
  alignas(64) float o[kMaxHeadDim], low[kMaxHeadDim];
  for (int r = 0; r < group.rows; ++r) {
    const float* m = group.partial + group.rows * dim + r;
    const float* l = m + group.rows;
    float top = kNegInf;
    double total = 0;
    for (int s = 0; s < group.splits; ++s) top = m[s * stride] > top ? m[s * stride] : top;
    const float base = top == kNegInf ? 0.0f : top;
    for (int d = 0; d < dim; d += kLanes) store(o + d, VecF{}), store(low + d, VecF{});
    for (int s = 0; s < group.splits; ++s) {
      const float weight = __builtin_exp2f(m[s * stride] - base);
      const float* part = group.partial + s * stride + r * dim;
      for (int d = 0; d < dim; d += kLanes) {
        VecF whole = load(o + d), rest = load(low + d);
        add_exactly(whole, rest, load(part + d) * broadcast(weight));
        store(o + d, whole);
        store(low + d, rest);
      }
      total += static_cast<double>(weight) * l[s * stride];
    }
    for (int d = 0; d < dim; d += kLanes) store(o + d, load(o + d) + load(low + d));
    store_answer<T>(p, packed_row(p, group.request, group.kv_head, group.row0 + r), o, top,
                    static_cast<float>(total));
  }
}

// Counts this item's split as done; whoever finishes last sees all parts and merges them.
template <typename T>
inline void finish_split(const Problem& p, SplitGroup& group) {
  if (__atomic_sub_fetch(&group.left, 1, __ATOMIC_ACQ_REL) == 0) merge<T>(p, group);
}

}  // namespace pod::cpu::POD_ISA
