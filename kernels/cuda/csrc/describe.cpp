// describe.cpp: what this library knows and Python must know too, told as JSON.

#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

#include <cstddef>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "checks.h"
#include "plan.h"
#include "pod/smem.h"

namespace pod {
namespace {

using tvm::ffi::Shape;

// A field of a struct; the compiler knows that it exists and where it lies.
struct Field {
  const char* name;
  size_t offset;
};
#define POD_FIELD(type, name) \
  Field { #name, offsetof(type, name) }

const std::vector<Field> kHeader{
    POD_FIELD(PlanHeader, prefill_items), POD_FIELD(PlanHeader, decode_items),
    POD_FIELD(PlanHeader, merge_blocks),  POD_FIELD(PlanHeader, ratio_prefill),
    POD_FIELD(PlanHeader, ratio_decode),  POD_FIELD(PlanHeader, prefill_offset),
    POD_FIELD(PlanHeader, decode_offset), POD_FIELD(PlanHeader, merge_offset),
    POD_FIELD(PlanHeader, partial_rows),  POD_FIELD(PlanHeader, words),
    POD_FIELD(PlanHeader, stamp),         POD_FIELD(PlanHeader, drawn),
    POD_FIELD(PlanHeader, reserved)};
const std::vector<Field> kItem{
    POD_FIELD(Item, request),    POD_FIELD(Item, kv_head),   POD_FIELD(Item, row0),
    POD_FIELD(Item, rows),       POD_FIELD(Item, q_begin),   POD_FIELD(Item, offset),
    POD_FIELD(Item, kv0),        POD_FIELD(Item, kv1),       POD_FIELD(Item, slot),
    POD_FIELD(Item, seen_first), POD_FIELD(Item, seen_last), POD_FIELD(Item, first_page)};
const std::vector<Field> kMerge{POD_FIELD(MergeBlock, slot),    POD_FIELD(MergeBlock, splits),
                                POD_FIELD(MergeBlock, stride),  POD_FIELD(MergeBlock, rows),
                                POD_FIELD(MergeBlock, q_begin), POD_FIELD(MergeBlock, row0),
                                POD_FIELD(MergeBlock, kv_head), POD_FIELD(MergeBlock, reserved)};

// {"name": [first word, words], ...}, each field up to where the next begins.
void write_fields(std::ostream& out, const char* name, const std::vector<Field>& fields,
                  size_t bytes) {
  out << '"' << name << "\": {";
  for (size_t i = 0; i < fields.size(); ++i) {
    const size_t end = i + 1 < fields.size() ? fields[i + 1].offset : bytes;
    out << (i ? ", " : "") << '"' << fields[i].name << "\": [" << fields[i].offset / 4 << ", "
        << (end - fields[i].offset) / 4 << ']';
  }
  out << "}, ";
}

// Plan words and limits. Fields are int32 words of a plan: name to [first word, words].
tvm::ffi::String describe() {
  std::ostringstream out;
  out << '{';
  write_fields(out, "header", kHeader, sizeof(PlanHeader));
  write_fields(out, "item", kItem, sizeof(Item));
  write_fields(out, "merge", kMerge, sizeof(MergeBlock));
  const std::pair<const char*, int> numbers[] = {{"record_words", kRecordWords},
                                                 {"least_split", kLeastSplit},
                                                 {"decode_rows", kDecodeRows},
                                                 {"merge_rows", kMergeRows}};
  for (const auto& [name, value] : numbers) out << '"' << name << "\": " << value << ", ";
  out << "\"head_dims\": [";
  bool first = true;
  for (int dim = 1; dim <= 512; ++dim) {
    if (!is_head_dim(dim)) continue;
    out << (first ? "" : ", ") << dim;
    first = false;
  }
  out << "]}";
  return out.str();
}

// Bytes of dynamic shared memory of a CTA that runs (a prefill item, decode items), for a packed
// config, the size of an element of K and V, and an engine of prefill: 0 mma, 1 wgmma, 2 pair; and
// of one that may run either, or runs both.
Shape cta_smem(tvm::ffi::Bytes config, int64_t head_dim, int64_t kv_bytes, int64_t engine) {
  const PodConfig tiles = plan_config(packed::unpack<packed::PodConfig>(config)).tiles;
  const int dim = static_cast<int>(head_dim), bytes = static_cast<int>(kv_bytes);
  const auto prefill = static_cast<PrefillEngine>(engine);
  return Shape({prefill_cta_bytes(tiles, dim, bytes, prefill),
                decode_cta_bytes(tiles, dim, bytes, prefill),
                cta_bytes(tiles, dim, bytes, prefill)});
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(describe, describe);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(cta_smem, cta_smem);

}  // namespace
}  // namespace pod
