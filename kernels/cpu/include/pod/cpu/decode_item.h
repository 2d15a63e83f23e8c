// decode_item.h: the packed rows of one query token over one range of keys; bound by bandwidth.
//
// K and V rows are read once from where they lie, by dot product and by scaled addition; with
// several packed rows the second use of a row finds it in L1. Every key of the range is visible.
#pragma once

#include "pod/cpu/fma_block.h"
#include "pod/cpu/long_sum.h"
#include "pod/cpu/output.h"

namespace pod::cpu::POD_ISA {

// T is the type of q and out, Kv that of K and V.
template <typename T, typename Kv>
class DecodeItem {
 public:
  DecodeItem(const Problem& p, const PodConfig& config, const Item& item, SplitGroup* groups,
             Scratch& scratch)
      : p_(p), tile_(config.decode), item_(item), groups_(groups), x_(scratch),
        o_(scratch.dop, scratch.dsum, scratch.dlow, item.rows * p.head_dim) {
    stride_ = tile_.kv_rows + kLanes;
  }

  void run() {
    pack_q();
    for (int kv = item_.kv0; kv < item_.kv1; kv += tile_.kv_rows) {
      const int n = rows_in_tile(kv);
      begin_tile(kv);
      for_row_blocks(item_.rows, [&](auto rows, int r) { scores<rows()>(r, n); });
      for (int r = 0; r < item_.rows; ++r) softmax(r, n);
      for_row_blocks(item_.rows, [&](auto rows, int r) { values<rows()>(r, n); });
      if (o_.grown(n) && kv + n < item_.kv1) fold();
    }
    finish();
  }

 private:
  void pack_q() {
    const int dim = p_.head_dim;
    for (int r = 0; r < item_.rows; ++r) {
      const PackedRow at = packed_row(p_, item_.request, item_.kv_head, item_.row0 + r);
      const T* from =
          reinterpret_cast<const T*>(p_.q + at.token * p_.q_token + at.head * p_.q_head);
      for (int d = 0; d < dim; d += kLanes) {
        store(x_.dq + r * dim + d, load(from + d) * broadcast(p_.q_scale));
        store(x_.dop + r * dim + d, VecF{});
      }
      m_[r] = m_sum_[r] = kNegInf;
      l_[r] = 0;
    }
  }

  // Row pointers of the tile at `kv`, in its slot of the ring; K rows past the tile's end repeat
  // the last one, their scores are masked.
  void find_rows(int kv) {
    const char** k_rows = slot(kv);
    const int n = rows_in_tile(kv);
    for_each_row(p_, item_.request, item_.kv_head, kv, kv + n,
                 [&](int i, const char* k, const char* v) {
                   k_rows[i] = k;
                   k_rows[stride_ + i] = v;
                 });
    for (int i = n; i < n + kLanes; ++i) k_rows[i] = k_rows[n - 1];
  }

  int rows_in_tile(int kv) const {
    return kv + tile_.kv_rows < item_.kv1 ? tile_.kv_rows : item_.kv1 - kv;
  }
  const char** slot(int kv) const {
    return x_.rows + (kv - item_.kv0) / tile_.kv_rows % tile_.stages * 2 * stride_;
  }

  // Chooses the tile to compute and, `stages` - 1 tiles further, the one to prefetch meanwhile.
  void begin_tile(int kv) {
    const int ahead = kv + (tile_.stages - 1) * tile_.kv_rows;
    for (int next = kv == item_.kv0 ? kv : ahead; next <= ahead; next += tile_.kv_rows) {
      if (next < item_.kv1) find_rows(next);
    }
    k_rows_ = slot(kv);
    coming_ = slot(ahead);
    coming_rows_ = ahead > kv && ahead < item_.kv1 ? rows_in_tile(ahead) : 0;
  }

  // Issued in small portions between the products: a burst would fill the core's miss buffers and
  // stall it.
  void prefetch_rows(int offset, int from, int to, int begin, int bytes) const {
    to = to < coming_rows_ ? to : coming_rows_;
    for (int i = from; i < to; ++i) {
      const char* row = coming_[offset + i] + begin;
      for (int b = 0; b < bytes; b += 64) __builtin_prefetch(row + b, 0, 2);
    }
  }

  // Scores of kLanes / kRows keys at a time: one accumulator per (row, key) pair fills a vector.
  template <int kRows>
  void scores(int r, int n) {
    constexpr int kKeys = kLanes / kRows;
    const int dim = p_.head_dim;
    const float* q = x_.dq + r * dim;
    for (int j = 0; j < n; j += kKeys) {
      const Kv* k[kKeys];
      for (int i = 0; i < kKeys; ++i) k[i] = reinterpret_cast<const Kv*>(k_rows_[j + i]);
      if (r == 0) prefetch_rows(0, j, j + kKeys, 0, p_.row_bytes);
      VecF acc[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) acc[i] = VecF{};
      for (int d = 0; d < dim; d += kLanes) {
        VecF row[kRows];
#pragma GCC unroll 4
        for (int m = 0; m < kRows; ++m) row[m] = load(q + m * dim + d);
#pragma GCC unroll 16
        for (int i = 0; i < kKeys; ++i) {
          const VecF key = load(k[i] + d);
#pragma GCC unroll 4
          for (int m = 0; m < kRows; ++m) acc[m * kKeys + i] += row[m] * key;
        }
      }
      const VecF all = sum_each(acc);
      float* s = x_.ds + r * stride_ + j;
#pragma GCC unroll 4
      for (int m = 0; m < kRows; ++m) {
        __builtin_memcpy(s + m * stride_, reinterpret_cast<const float*>(&all) + m * kKeys,
                         kKeys * sizeof(float));
      }
    }
  }

  void softmax(int r, int n) {
    float* s = x_.ds + r * stride_;
    for (int j = n; j % kLanes; ++j) s[j] = kNegInf;
    VecF best = broadcast(kNegInf);
    for (int j = 0; j < n; j += kLanes) {
      VecF x = load(s + j);
      if (p_.score_scale != 0) {
        x = logits(x, p_.score_scale);
        // tanh(-inf) is finite: lanes past the end have to be hidden again.
        for (int i = n - j; i < kLanes; ++i) x[i] = kNegInf;
        store(s + j, x);
      }
      best = max(best, x);
    }
    const float top = max(best) > m_[r] ? max(best) : m_[r];
    const float base = top == kNegInf ? 0.0f : top;
    VecF total{};
    for (int j = 0; j < n; j += kLanes) {
      const VecF x = exp2(load(s + j) - broadcast(base));
      store(s + j, x);
      total += x;
    }
    alpha_[r] = __builtin_exp2f(m_[r] - base);
    l_[r] = l_[r] * alpha_[r] + sum(total);
    m_[r] = top;
  }

  template <int kRows>
  void values(int r, int n) {
    constexpr int kVecs = kLanes == 16 ? 4 : 2;  // 16 vector registers without AVX-512
    int d = 0;
    for (; d + kVecs * kLanes <= p_.head_dim; d += kVecs * kLanes) {
      value_columns<kRows, kVecs>(r, n, d);
    }
    for (; d < p_.head_dim; d += kLanes) value_columns<kRows, 1>(r, n, d);
  }

  template <int kRows, int kVecs>
  void value_columns(int r, int n, int d) {
    const char** v_rows = k_rows_ + stride_;
    const float* s = x_.ds + r * stride_;
    float* o = x_.dop + r * p_.head_dim + d;
    VecF acc[kRows][kVecs];
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) acc[m][v] = VecF{};
    }
    for (int j = 0; j < n; ++j) {
      const Kv* row = reinterpret_cast<const Kv*>(v_rows[j]) + d;
      if (r == 0) prefetch_rows(stride_, j, j + 1, d * sizeof(Kv), kVecs * kLanes * sizeof(Kv));
      VecF value[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) value[v] = load(row + v * kLanes);
#pragma GCC unroll 4
      for (int m = 0; m < kRows; ++m) {
        const VecF weight = broadcast(s[m * stride_ + j]);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) acc[m][v] += value[v] * weight;
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        float* to = o + m * p_.head_dim + v * kLanes;
        store(to, load(to) * broadcast(alpha_[r + m]) + acc[m][v]);
      }
    }
  }

  void fold() {
    o_.start();
    for (int r = 0; r < item_.rows; ++r) {
      const VecF keep = broadcast(__builtin_exp2f(m_sum_[r] - (m_[r] == kNegInf ? 0.0f : m_[r])));
      for (int d = 0; d < p_.head_dim; d += kLanes) o_.fold(r * p_.head_dim + d, keep);
      m_sum_[r] = m_[r];
    }
  }

  void finish() {
    if (o_.folded()) {
      fold();
      o_.finish();
    }
    SplitGroup* group = item_.split_group < 0 ? nullptr : groups_ + item_.split_group;
    for (int r = 0; r < item_.rows; ++r) {
      float* o = x_.dop + r * p_.head_dim;
      if (group) {
        store_partial(p_, *group, item_.split, r, o, m_[r], static_cast<float>(l_[r]));
      } else {
        store_answer<T>(p_, packed_row(p_, item_.request, item_.kv_head, item_.row0 + r), o, m_[r],
                        static_cast<float>(l_[r]));
      }
    }
    if (group) finish_split<T>(p_, *group);
  }

  const Problem& p_;
  const TileConfig& tile_;
  const Item& item_;
  SplitGroup* groups_;
  Scratch& x_;
  LongSum o_;
  int stride_;                     // of a row of scores and of the row pointers
  const char** k_rows_ = nullptr;  // of the tile in use; V rows follow at stride_
  const char** coming_ = nullptr;  // of the tile being prefetched
  int coming_rows_ = 0;
  float m_[kMaxDecodeRows], alpha_[kMaxDecodeRows];
  float m_sum_[kMaxDecodeRows];  // the maximum that the folded sum is relative to
  double l_[kMaxDecodeRows];
};

}  // namespace pod::cpu::POD_ISA
