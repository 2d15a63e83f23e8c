// decode_wgmma_item.cuh: decode_item on Hopper's warpgroup matrix unit, operands swapped: keys are
// the 64 rows of a product and the 8 or 16 packed query rows its columns.
//
// Scope   one warpgroup. Beside a prefill item's products every instruction of the other CTA waits
//         its turn at the matrix unit: 64 keys are 8 of these and 8 for values (D 128), where
//         four warps of mma.sync need 128
// Smem    Q [q_rows, D] | K x stages | V x stages, or K and V in turns | weights [q_rows, kv_rows],
//         all in panels | notes; afterwards O [q_rows, D] in fp32 in the place of K and V
// Out     as decode_item
#pragma once

#include <type_traits>

#include "pod/copy/query_tile.cuh"
#include "pod/op/column_math.cuh"
#include "pod/op/kv_ahead.cuh"
#include "pod/op/kv_loop.cuh"
#include "pod/op/kv_turns.cuh"

namespace pod::op {

// How its K and V come: a pair's decode has an SM to itself, so that one item's copies fill it.
template <class Variant>
struct ColumnLoop {
  using KeyPanels = typename ColumnMath<Variant>::KeyPanels;
  static constexpr bool kAhead = decode_ahead(Variant::config.decode, Variant::prefill_engine);
  static constexpr bool kTurns = Variant::prefill_engine == PrefillEngine::kPair;
  using InTurns = std::conditional_t<kTurns, KvTurns<Variant, KeyPanels>,
                                     KvLoop<Variant, Op::kDecode, KeyPanels>>;
  using Type = std::conditional_t<kAhead, KvAhead<Variant, KeyPanels>, InTurns>;
};

// `smem` is the item's own part of the CTA's shared memory, where panels may begin.
template <class Variant>
POD_DEVICE void decode_wgmma_item(const KernelArguments& a, const Item& item, uint8_t* smem,
                                  int barrier, int thread) {
  using Math = ColumnMath<Variant>;
  using Loop = ColumnLoop<Variant>;
  const Scope<kGroupWarps> scope{barrier, thread};
  const uint32_t q_tile = ptx::smem_address(smem);
  typename Loop::Type loop(a, item, scope, q_tile);
  copy::load_queries<Math::D, Math::kQueryRows, kGroupThreads, typename Math::QueryPanels>(
      q_tile, a, item, thread);
  if constexpr (!Loop::kAhead) ptx::cp_async_commit();
  loop.start();
  Math math(a, item, smem, scope);
  if constexpr (Loop::kAhead) {
    loop.run([&](uint32_t k_tile, int kv) { math.on_keys(k_tile, kv, [] {}); },
             [&](uint32_t k_tile, uint32_t v_tile, int kv, auto issue) {
               math.on_both(k_tile, v_tile, kv, issue);
             },
             [&](uint32_t v_tile) { math.on_values(v_tile, [] {}); });
  } else if constexpr (Loop::kTurns) {
    loop.run([&](uint32_t k_tile, int kv, auto issue) { math.on_keys(k_tile, kv, issue); },
             [&](uint32_t v_tile, auto issue) { math.on_values(v_tile, issue); });
  } else {
    loop.run([&](uint32_t k_tile, int kv) { math.on_keys(k_tile, kv, [] {}); },
             [&](uint32_t v_tile) { math.on_values(v_tile, [] {}); });
  }
  math.store();
}

}  // namespace pod::op
