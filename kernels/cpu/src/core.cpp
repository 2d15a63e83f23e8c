// core.cpp: the compute core of one instruction set; compiled once for each with POD_ISA set.

#include "pod/cpu/decode_item.h"
#include "pod/cpu/prefill_item.h"

namespace pod::cpu::POD_ISA {
namespace {

template <typename Body>
void with_dtype(Dtype dtype, Body body) {
  switch (dtype) {
    case Dtype::kFp32:
      return body(float{});
    case Dtype::kBf16:
      return body(Bf16{});
    case Dtype::kFp16:
      return body(Fp16{});
  }
}

void prefill(const Problem& p, const PodConfig& config, const Item& item, SplitGroup* groups,
             Scratch& scratch, Hooks& hooks) {
  with_dtype(p.dtype, [&](auto type) {
    PrefillItem<decltype(type)>(p, config, item, groups, scratch, hooks).run();
  });
}

void decode(const Problem& p, const PodConfig& config, const Item& item, SplitGroup* groups,
            Scratch& scratch) {
  with_dtype(p.dtype, [&](auto type) {
    DecodeItem<decltype(type)>(p, config, item, groups, scratch).run();
  });
}

}  // namespace

const Core& core() {
  static constexpr Core table{prefill, decode};
  return table;
}

}  // namespace pod::cpu::POD_ISA
