// output.cuh: where a finished row goes: out and lse, or the partial buffers of its split.
#pragma once

#include "pod/layout/rows.cuh"
#include "pod/softmax.cuh"

namespace pod {

constexpr float kLn2 = 0.693147181f;
constexpr float kLog2e = 1.44269504f;

// Two neighbouring columns of a partial row.
struct alignas(8) Pair {
  float x, y;
};

// A finished row: its LSE (natural), and the factor that turns its O into the answer.
struct RowEnd {
  float lse;
  float inverse;  // 1 / l, or 0 for a row that saw no key
};

// `m` is the reference of the row's weights, unscaled, and l their sum; `scale` turns m into a
// logit. A NaN in l stays one.
POD_DEVICE RowEnd end_row(float m, float l, float scale) {
  if (l <= 0.f) return {kNegativeInfinity, 0.f};
  return {m * scale + ptx::lg2(l) * kLn2, ptx::rcp(l)};
}

// A sink joins the denominator as one more key without a value; it takes the place of m where it
// is larger. An infinite one leaves NaN, as a score that is infinite does.
POD_DEVICE RowEnd end_row(float m, float l, float scale, float sink) {
  if (sink == kNegativeInfinity) return end_row(m, l, scale);
  const float above = (m * scale - sink) * kLog2e;
  if (above >= 0.f) return end_row(m, l + ptx::ex2(-above), scale);
  // 1, or NaN where the sink has no difference to itself.
  const float weight = 1.f + (sink - sink);
  const float shrink = ptx::ex2(above), total = l * shrink + weight;
  return {sink + ptx::lg2(total) * kLn2, shrink * ptx::rcp(total)};
}

// Destination of one row of an item; `row` < item.rows.
template <typename T>
class RowOutput {
 public:
  POD_DEVICE RowOutput(const KernelArguments& a, const Item& item, int row, int head_dim)
      : a_(a), slot_(item.slot < 0 ? -1 : item.slot + row) {
    const auto at = layout::token_head(a, item, row);
    head_ = at.head;
    if (slot_ >= 0) {
      row_ = a.partial_o + int64_t{slot_} * head_dim;
    } else {
      row_ = static_cast<T*>(a.out) + at.token * a.out_token + at.head * a.out_head;
      lse_ = a.lse + at.token * a.lse_token + at.head * a.lse_head;
    }
  }

  // Writes the row's LSE, or m and l of a split, from the lane that says so; returns the factor of
  // what store() takes. Splits stay undivided and sinks wait for the merge, which counts them once.
  POD_DEVICE float end(float m, float l, bool writes) const {
    if (slot_ >= 0) {
      if (writes) a_.partial_sums[slot_] = {m, l};
      return 1.f;
    }
    const RowEnd end = a_.sinks == nullptr ? end_row(m, l, a_.logit_scale)
                                           : end_row(m, l, a_.logit_scale, a_.sinks[head_]);
    if (writes) *lse_ = end.lse;
    return end.inverse * a_.value_scale;
  }

  // Two neighbouring elements; `column` is even.
  POD_DEVICE void store(int column, float x, float y) const {
    if (is_partial()) {
      store_partial(column, x, y);
    } else {
      *reinterpret_cast<uint32_t*>(static_cast<T*>(row_) + column) = ptx::pack2<T>(x, y);
    }
  }

  POD_DEVICE bool is_partial() const { return slot_ >= 0; }
  // The same, of a row that is partial.
  POD_DEVICE void store_partial(int column, float x, float y) const {
    *reinterpret_cast<Pair*>(static_cast<float*>(row_) + column) = {x, y};
  }
  // Eight neighbouring elements from `column` on, two to a register, of a row that is not partial.
  POD_DEVICE void store_block(int column, const uint32_t (&x)[4]) const {
    *reinterpret_cast<Int4*>(static_cast<T*>(row_) + column) = {
        static_cast<int>(x[0]), static_cast<int>(x[1]), static_cast<int>(x[2]),
        static_cast<int>(x[3])};
  }

 private:
  const KernelArguments& a_;
  void* row_;
  float* lse_ = nullptr;
  int slot_, head_;
};

}  // namespace pod
