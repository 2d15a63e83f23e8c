// decode_item.cuh: one tile of 16 packed query rows (a GQA group) against a range of keys.
//
// Scope   decode.warps warps; each takes kv_rows / warps keys of every tile and keeps its own
//         softmax, so the only exchange is at the end
// Smem    Q [16, D] | K x stages | V x stages; afterwards Q | fp32 O, m, l of each warp
// Out     out and lse, or partial O, m and l of a KV split
#pragma once

#include "pod/mma/products.cuh"
#include "pod/op/rows.cuh"
#include "pod/op/start.cuh"

namespace pod::op {

// Where the warps of a decode item meet.
template <class Variant>
struct Scratch {
  static constexpr int kWarps = Variant::config.decode.warps;
  static constexpr int kStride = scratch_stride(Variant::head_dim);
  float* base;
  POD_DEVICE float* o(int warp, int row) const {
    return base + (warp * kDecodeRows + row) * kStride;
  }
  POD_DEVICE float& m(int warp, int row) const { return ends()[warp * kDecodeRows + row]; }
  POD_DEVICE float& l(int warp, int row) const {
    return ends()[(kWarps + warp) * kDecodeRows + row];
  }

 private:
  POD_DEVICE float* ends() const { return base + kWarps * kDecodeRows * kStride; }
};

template <class Variant>
POD_DEVICE void write_scratch(const Scratch<Variant>& scratch,
                              const RowState<Variant::head_dim, 1>& state, int warp, int lane) {
  POD_UNROLL
  for (int half = 0; half < Fragment::kHalves; ++half) {
    const int row = Fragment::row(lane, half);
    const float l = state.total(0, half);
    float* o = scratch.o(warp, row);
    layout::for_each_pair<layout::kOrder<typename Variant::KvElement>>(
        state.o[0], half, lane, [&](int column, float x, float y) {
          o[column] = x;
          o[column + 1] = y;
        });
    if (Fragment::is_first(lane)) {
      scratch.m(warp, row) = state.m[0][half];
      scratch.l(warp, row) = l;
    }
  }
}

// Merges the warps' softmaxes: each thread two columns of some rows.
template <class Variant>
POD_DEVICE void merge_warps(const Scratch<Variant>& scratch, const KernelArguments& a,
                            const Item& item, int thread) {
  using T = typename Variant::Element;
  constexpr int D = Variant::head_dim, kWarps = Variant::config.decode.warps;
  POD_UNROLL
  for (unsigned i = thread; i < kDecodeRows * (D / 2); i += kWarps * kWarpSize) {
    const int row = i / (D / 2), column = i % (D / 2) * 2;
    if (row >= item.rows) break;
    float m = kNegativeInfinity;
    POD_UNROLL
    for (int warp = 0; warp < kWarps; ++warp) m = max(m, scratch.m(warp, row));
    float l = 0.f, x = 0.f, y = 0.f;
    POD_UNROLL
    for (int warp = 0; warp < kWarps; ++warp) {
      const float weight = moved(scratch.m(warp, row), m, a.score_scale);
      const float* o = scratch.o(warp, row) + column;
      l += weight * scratch.l(warp, row);
      x += weight * o[0];
      y += weight * o[1];
    }
    const RowOutput<T> output(a, item, row, D);
    const float inverse = output.end(m, l, column == 0);
    output.store(column, x * inverse, y * inverse);
  }
}

// `smem` is the item's own part of the CTA's shared memory, `barrier` its own barrier.
template <class Variant>
POD_DEVICE void decode_item(const KernelArguments& a, const Item& item, uint8_t* smem, int barrier,
                            int thread) {
  using T = typename Variant::Element;
  using Kv = typename Variant::KvElement;
  using Operand = layout::Operand<T, Kv>;
  constexpr int D = Variant::head_dim;
  constexpr TileConfig tile = Variant::config.decode;
  constexpr ItemSmem kSmem = Smem<Variant>::decode;
  constexpr int kWarpKeys = tile.kv_rows / tile.warps, kColumns = kWarpKeys / Fragment::kColumns;
  const Scope<tile.warps> scope{barrier, thread};
  const int lane = scope.lane(), warp = scope.warp();
  const uint32_t q_tile = ptx::smem_address(smem);

  KvLoop<Variant, Op::kDecode> loop(a, item, scope, q_tile);
  UnitsOf<Variant, 1> units;
  start<Variant, Op::kDecode>(loop, units, a, item, q_tile, scope);
  ptx::cp_async_wait<decltype(loop)::kInFlight>();
  scope.sync();

  const mma::Queries<D, 1, (D <= 128)> queries(q_tile, lane);
  RowState<D, 1> state;
  mma::Weights<1, kColumns> p;
  const int key0 = warp * kWarpKeys;
  loop.run(
      [&](uint32_t k_tile, int kv) {
        float s[1][kColumns][4];
        mma::scores<Operand, Kv, D>(s, queries, k_tile + key0 * kSmem.kv_row, lane);
        weigh(state, s, units, a, item, 0, kv + key0, lane);
        mma::pack_weights<Operand>(p, s);
      },
      [&](uint32_t v_tile) {
        mma::weighted_values<Operand, Kv, D>(state.o, p, v_tile + key0 * kSmem.kv_row, lane);
      });
  units.settle(state, a);
  if constexpr (tile.warps == 1) {
    store_rows<T, layout::kOrder<Kv>>(state, a, item, 0, lane);
  } else {
    const Scratch<Variant> scratch{reinterpret_cast<float*>(smem + kSmem.scratch)};
    write_scratch<Variant>(scratch, state, warp, lane);
    scope.sync();
    merge_warps<Variant>(scratch, a, item, thread);
  }
}

}  // namespace pod::op
