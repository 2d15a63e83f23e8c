// prefill_item.h: flash attention of a block of packed query rows over one range of keys.
//
// In       q rows of one request and KV head, K/V rows through the page list
// Scratch  Q^T [panels][D][panel rows], O^T likewise, K and V tiles [kv_rows, D], S^T of one panel;
//          all fp32, inputs (q of type T, K and V of type Kv) are converted once when packed
// Out      the answer, or a partial of a split group
#pragma once

#include "pod/cpu/long_sum.h"
#include "pod/cpu/output.h"
#include "pod/cpu/panel.h"

namespace pod::cpu::POD_ISA {

template <typename T, typename Kv>
class PrefillItem {
 public:
  PrefillItem(const Problem& p, const PodConfig& config, const Item& item, SplitGroup* groups,
              Scratch& scratch, Hooks& hooks)
      : p_(p), tile_(config.prefill), item_(item), groups_(groups), x_(scratch), hooks_(hooks),
        rows_((item.rows + kLanes - 1) / kLanes * kLanes),
        o_(scratch.o, scratch.sum, scratch.low, rows_ * p.head_dim) {}

  void run() {
    pack_q();
    int64_t cost = 0;
    for (int kv = item_.kv0; kv < item_.kv1; kv += tile_.kv_rows) {
      const int end = kv + tile_.kv_rows < item_.kv1 ? kv + tile_.kv_rows : item_.kv1;
      Stream stream = plan_stream(kv, cost);
      pack_kv(kv, end);
      for (int row = 0; row < rows_; row += kPanelRows) {
        if (rows_ - row >= kPanelRows) {
          panel<kPanelVecs>(row, kv, end, stream);
        } else {
          panel<1>(row, kv, end, stream);
        }
      }
      cost = item_.cost * (end - kv) / (item_.kv1 - item_.kv0);
      if (o_.grown(end - kv) && end < item_.kv1) fold();
    }
    finish();
  }

 private:
  // Rows past the item's end repeat its last position: finite numbers, never stored.
  void pack_q() {
    const int dim = p_.head_dim;
    const int offset =
        p_.kv_lens[item_.request] - (p_.q_indptr[item_.request + 1] - p_.q_indptr[item_.request]);
    for (int r = 0; r < rows_; r += kLanes) {
      const T* from[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const int packed = item_.row0 + (r + i < item_.rows ? r + i : item_.rows - 1);
        const PackedRow at = packed_row(p_, item_.request, item_.kv_head, packed);
        from[i] = reinterpret_cast<const T*>(p_.q + at.token * p_.q_token + at.head * p_.q_head);
        x_.position[r + i] = offset + packed / p_.group;
        x_.m[r + i] = x_.m_sum[r + i] = kNegInf;
        x_.l[r + i] = x_.l_low[r + i] = 0;
      }
      rows_to_lanes(from, p_.q_scale, dim, lanes_of(x_.q, rows_, dim, r));
    }
    for (int i = 0; i < rows_ * dim; i += kLanes) store(x_.o + i, VecF{});
  }

  // This item's own tiles ahead, then what the scheduler adds; paced so that all is issued within
  // the tile.
  Stream plan_stream(int kv, int64_t cost) {
    Stream stream{x_.stream, x_.stream, 0, 0, p_.row_bytes};
    if (tile_.stages > 1) {
      const int ahead = kv == item_.kv0 ? 1 : tile_.stages - 1;
      int from = kv + ahead * tile_.kv_rows;
      int to = kv + tile_.stages * tile_.kv_rows;
      from = from < item_.kv1 ? from : item_.kv1;
      to = to < item_.kv1 ? to : item_.kv1;
      for_each_row(p_, item_.request, item_.kv_head, from, to,
                   [&](int, const char* k, const char* v) {
                     *stream.end++ = k;
                     *stream.end++ = v;
                   });
    }
    hooks_.tile(hooks_.context, cost, stream);
    const int64_t pending = stream.end - stream.next;
    const int64_t depth =
        1 + int64_t{rows_} * tile_.kv_rows * p_.head_dim * 2 / (kPanelRows * kBlockRows);
    stream.pace = static_cast<uint32_t>((pending * kWholeRow + depth - 1) / depth);
    return stream;
  }

  // K is padded with zero rows to whole blocks; V needs none, its depth loop ends at the tail.
  void pack_kv(int begin, int end) {
    const int dim = p_.head_dim;
    VecU flags{};
    for_each_row(p_, item_.request, item_.kv_head, begin, end,
                 [&](int i, const char* k, const char* v) {
                   const Kv* k_row = reinterpret_cast<const Kv*>(k);
                   const Kv* v_row = reinterpret_cast<const Kv*>(v);
                   for (int d = 0; d < dim; d += kLanes) {
                     store(x_.k + i * dim + d, load(k_row + d));
                     const VecF value = load(v_row + d);
                     store(x_.v + i * dim + d, value);
                     // Carries into the sign where the exponent is that of inf and NaN.
                     flags |= ((VecU)value & 0x7fffffffu) + 0x00800000u;
                   }
                 });
    all_finite_ = !any_negative((VecI)flags);
    for (int i = end - begin; i % kBlockRows; ++i) {
      for (int d = 0; d < dim; d += kLanes) store(x_.k + i * dim + d, VecF{});
    }
  }

  // Keys of [begin, end) that any row of the panel sees, as offsets into the tile.
  template <int kVecs>
  void panel(int row, int begin, int end, Stream& stream) {
    constexpr int kWidth = kVecs * kLanes;
    const int dim = p_.head_dim;
    const int first = x_.position[row], last = x_.position[row + kWidth - 1];
    int lo = p_.window_left >= 0 ? first - p_.window_left - begin : 0;
    int hi = last + 1 < end ? last + 1 - begin : end - begin;
    lo = lo < 0 ? 0 : lo / kBlockRows * kBlockRows;
    if (lo >= hi) return;
    const float* q = x_.q + row * dim;
    for (int j = lo; j < hi; j += kBlockRows) {
      fma_block<kVecs, false>(x_.k + j * dim, dim, q, dim, nullptr, x_.s + j * kWidth, stream);
    }
    const bool windowed = p_.window_left >= 0 && last - p_.window_left > begin + lo;
    VecF alpha[kVecs];
    softmax<kVecs>(row, begin, lo, hi, first < begin + hi - 1 || windowed, alpha);
    float* o = x_.o + row * dim;
    if (!all_finite_) return values_seen<kVecs>(row, begin, lo, hi, alpha, o);
    for (int d = 0; d < dim; d += kBlockRows) {
      fma_block<kVecs, true>(x_.v + lo * dim + d, dim, x_.s + lo * kWidth, hi - lo, alpha,
                             o + d * kWidth, stream);
    }
  }

  // O of a tile whose V holds an infinity or a NaN: rows that do not see it have a weight of 0 for
  // it, and 0 times that is NaN.
  template <int kVecs>
  void values_seen(int row, int begin, int lo, int hi, const VecF* alpha, float* o) {
    for (int d = 0; d < p_.head_dim; ++d) {
      for (int v = 0; v < kVecs; ++v) {
        const VecI position = load_bits<VecI>(x_.position + row + v * kLanes);
        VecF total{};
        for (int j = lo; j < hi; ++j) {
          VecF x = load(x_.s + (j * kVecs + v) * kLanes) * broadcast(x_.v[j * p_.head_dim + d]);
          total += sees(position, begin + j, p_.window_left) ? x : VecF{};
        }
        float* to = o + (d * kVecs + v) * kLanes;
        store(to, load(to) * alpha[v] + total);
      }
    }
  }

  // Turns scores of keys [lo, hi) into probabilities, updates m and l, yields O's rescaling.
  template <int kVecs>
  void softmax(int row, int begin, int lo, int hi, bool masked, VecF* alpha) {
    VecF old[kVecs], top[kVecs], base[kVecs], total[kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) old[v] = top[v] = load(x_.m + row + v * kLanes);
    if (masked || p_.score_scale != 0) {
      VecI position[kVecs];
      for (int v = 0; v < kVecs; ++v) {
        position[v] = load_bits<VecI>(x_.position + row + v * kLanes);
      }
      for (int j = lo; j < hi; ++j) {
        mask_scores<kVecs>(p_, position, begin + j, x_.s + j * kVecs * kLanes);
      }
    }
    // All vectors of a key at a time: their chains of maxima and sums run side by side.
    for (int j = lo; j < hi; ++j) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) top[v] = max(top[v], load(x_.s + (j * kVecs + v) * kLanes));
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) base[v] = finite_or_zero(top[v]), total[v] = VecF{};
    for (int j = lo; j < hi; ++j) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        float* s = x_.s + (j * kVecs + v) * kLanes;
        const VecF x = exp2(load(s) - base[v]);
        store(s, x);
        total[v] += x;
      }
    }
    for (int v = 0; v < kVecs; ++v) {
      alpha[v] = exp2(old[v] - base[v]);
      float* l = x_.l + row + v * kLanes;
      float* l_low = x_.l_low + row + v * kLanes;
      VecF whole = load(l) * alpha[v], rest = load(l_low) * alpha[v];
      add_exactly(whole, rest, total[v]);
      store(l, whole);
      store(l_low, rest);
      store(x_.m + row + v * kLanes, top[v]);
    }
  }

  void fold() {
    o_.start();
    for (int r = 0; r < rows_; r += kLanes) {
      const Lanes o = lanes_of(x_.o, rows_, p_.head_dim, r);
      const VecF m = load(x_.m + r), keep = exp2(load(x_.m_sum + r) - finite_or_zero(m));
      for (int d = 0; d < p_.head_dim; ++d) o_.fold(o.at - x_.o + d * o.stride, keep);
      store(x_.m_sum + r, m);
    }
  }

  void finish() {
    const int dim = p_.head_dim;
    if (o_.folded()) {
      fold();
      o_.finish();
    }
    SplitGroup* group = item_.split_group < 0 ? nullptr : groups_ + item_.split_group;
    for (int r = 0; r < item_.rows; r += kLanes) {
      // In Q's place: Q has been used.
      lanes_to_rows(lanes_of(x_.o, rows_, dim, r), dim, x_.q);
      for (int i = r; i < r + kLanes && i < item_.rows; ++i) {
        float* o = x_.q + (i - r) * dim;
        if (group) {
          store_partial(p_, *group, item_.split, i, o, x_.m[i], x_.l[i] + x_.l_low[i]);
        } else {
          store_answer<T>(p_, packed_row(p_, item_.request, item_.kv_head, item_.row0 + i), o,
                          x_.m[i], x_.l[i] + x_.l_low[i]);
        }
      }
    }
    if (group) finish_split<T>(p_, *group);
  }

  const Problem& p_;
  const TileConfig& tile_;
  const Item& item_;
  SplitGroup* groups_;
  Scratch& x_;
  Hooks& hooks_;
  int rows_;  // item rows rounded up to whole vectors
  LongSum o_;
  bool all_finite_ = true;  // V of the tile in use
};

}  // namespace pod::cpu::POD_ISA
