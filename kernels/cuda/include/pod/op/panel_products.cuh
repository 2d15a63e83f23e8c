// panel_products.cuh: the products of one warpgroup with tiles of a ring of panels, issued and
// waited for apart: 64 query rows at a time.
#pragma once

#include "pod/lazy_softmax.cuh"
#include "pod/mma/warpgroup.cuh"
#include "pod/op/kv_loop.cuh"

namespace pod::op {

constexpr int kBlockRows = 64;  // of a product on the unit

// One set of scores and of weights. `RingOfPanels` tells where tiles lie.
template <class Variant, class RingOfPanels>
class PanelProducts {
 public:
  using Ring = RingOfPanels;
  using Operand = layout::Operand<typename Variant::Element, typename Variant::KvElement>;
  static constexpr int D = Variant::head_dim;
  static constexpr int kColumns = Ring::kRows / Fragment::kColumns;
  using QueryPanels = layout::Panels<D, Ring::tile.q_rows>;
  using KeyPanels = layout::Panels<D, Ring::kRows>;

  POD_DEVICE explicit PanelProducts(const Ring& ring) : ring_(ring) {}

  // Of the 64 rows of Q at address `q`.
  POD_DEVICE void issue_scores(uint32_t q, int stage) {
    ptx::wgmma_fence();
    mma::issue_scores<Operand, D, QueryPanels, KeyPanels>(
        s_[0], QueryPanels::columns_descriptor(q), KeyPanels::columns_descriptor(ring_.k(stage)));
    ptx::wgmma_commit();
  }

  // Weights times values; the fence of the scores' products covers what they read.
  POD_DEVICE void issue_values(RowState<D, 1>& state, int stage) {
    mma::issue_values<Operand, D, KeyPanels>(state.o[0], p_,
                                             KeyPanels::rows_descriptor(ring_.v(stage)));
    ptx::wgmma_commit();
  }

  template <int pending>
  POD_DEVICE void await_scores() {
    ptx::wgmma_wait<pending>();
    ptx::hold(s_[0]);
  }
  POD_DEVICE static void await_values(RowState<D, 1>& state) {
    ptx::wgmma_wait<0>();
    ptx::hold(state.o[0]);
  }

  // Once no product reads the weights of before.
  POD_DEVICE void pack() { mma::pack_weights<Operand>(p_, s_); }

  POD_DEVICE const Ring& ring() const { return ring_; }

 protected:
  float s_[1][kColumns][4];

 private:
  Ring ring_;
  mma::Weights<1, kColumns> p_;
};

}  // namespace pod::op
