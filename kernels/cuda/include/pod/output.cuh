// output.cuh: where a finished row goes: out and lse, or the partial buffers of its split.
#pragma once

#include "pod/layout/rows.cuh"
#include "pod/softmax.cuh"

namespace pod {

constexpr float kLn2 = 0.693147181f;
constexpr float kLog2e = 1.44269504f;

// A row's softmax denominator: LSE base 2, and the factor that turns its O into the answer.
struct RowEnd {
  float lse;      // base 2
  float inverse;  // 1 / l, or 0 for a row that saw no key
};

// A sink joins the denominator as one more key without a value.
POD_DEVICE RowEnd end_row(float m_base2, float l, const float* sinks, int head) {
  if (sinks != nullptr) {
    const float sink = sinks[head] * kLog2e, highest = max(m_base2, sink);
    const float shrink = ptx::ex2(m_base2 - highest);
    const float total = l * shrink + ptx::ex2(sink - highest);
    return {highest + ptx::lg2(total), shrink * ptx::rcp(total)};
  }
  if (l <= 0.f) return {kNegativeInfinity, 0.f};
  return {m_base2 + ptx::lg2(l), ptx::rcp(l)};
}

// Destination of one row of an item; `row` < item.rows.
template <typename T>
class RowOutput {
 public:
  POD_DEVICE RowOutput(const LaunchArguments& a, const Item& item, int row, int head_dim)
      : a_(a), slot_(item.slot < 0 ? -1 : item.slot + row) {
    const auto at = layout::token_head(item.q_begin, item.kv_head, item.row0 + row, a.group);
    head_ = at.head;
    if (slot_ >= 0) {
      row_ = a.partial_o + int64_t{slot_} * head_dim;
    } else {
      row_ = static_cast<T*>(a.out) + at.token * a.out_token + at.head * a.out_head;
      lse_ = a.lse + at.token * a.lse_token + at.head * a.lse_head;
    }
  }

  // Sinks wait for the merge where the row is split: they count once.
  POD_DEVICE RowEnd end(float m_base2, float l) const {
    return end_row(m_base2, l, slot_ >= 0 ? nullptr : a_.sinks, head_);
  }

  POD_DEVICE void store_lse(float lse) const {
    if (slot_ >= 0) {
      a_.partial_lse[slot_] = lse;
    } else {
      *lse_ = lse * kLn2;
    }
  }

  // Two neighbouring elements; `column` is even.
  POD_DEVICE void store(int column, float x, float y) const {
    if (slot_ >= 0) {
      float* to = static_cast<float*>(row_) + column;
      to[0] = x;
      to[1] = y;
    } else {
      *reinterpret_cast<uint32_t*>(static_cast<T*>(row_) + column) = ptx::pack2<T>(x, y);
    }
  }

 private:
  const LaunchArguments& a_;
  void* row_;
  float* lse_ = nullptr;
  int slot_, head_;
};

}  // namespace pod
