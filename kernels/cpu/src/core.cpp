// core.cpp: the compute core of one instruction set; compiled once for each with POD_ISA set.

#include "pod/cpu/decode_item.h"
#include "pod/cpu/prefill_item.h"

namespace pod::cpu::POD_ISA {
namespace {

// Calls body(type of q, type of K and V).
template <typename Body>
void with_types(const Problem& p, Body body) {
  const auto with = [&](auto type) { p.quantised ? body(type, E4m3{}) : body(type, type); };
  switch (p.dtype) {
    case Dtype::kFp32:
      return with(float{});
    case Dtype::kBf16:
      return with(Bf16{});
    case Dtype::kFp16:
      return with(Fp16{});
  }
}

void prefill(const Problem& p, const PodConfig& config, const Item& item, SplitGroup* groups,
             Scratch& scratch, Hooks& hooks) {
  with_types(p, [&](auto type, auto kv) {
    PrefillItem<decltype(type), decltype(kv)>(p, config, item, groups, scratch, hooks).run();
  });
}

void decode(const Problem& p, const PodConfig& config, const Item& item, SplitGroup* groups,
            Scratch& scratch) {
  with_types(p, [&](auto type, auto kv) {
    DecodeItem<decltype(type), decltype(kv)>(p, config, item, groups, scratch).run();
  });
}

}  // namespace

const Core& core() {
  static constexpr Core table{prefill, decode};
  return table;
}

}  // namespace pod::cpu::POD_ISA
