// wgmma.cpp: asynchronous products. Each warp computes its 16 rows of D on its own.
//
// Nothing of a result is visible before the wait for its group: the lanes' accumulators are poison
// from the issue on, and their sums live in the warp's queue.

#include <cinttypes>
#include <cstring>

#include "engine.h"
#include "race_detector.h"

namespace pod::emulator {
namespace {

constexpr uint64_t kSwizzle128 = 1, kSwizzle64 = 2;

uint64_t encode(uint32_t start, uint32_t leading, uint32_t stride, uint64_t swizzle) {
  return uint64_t{start} >> 4 | uint64_t{leading >> 4} << 16 | uint64_t{stride >> 4} << 32 |
         swizzle << 62;
}

bool same(const WgmmaForm& x, const WgmmaForm& y) {
  return x.a == y.a && x.b == y.b && x.columns == y.columns && x.is_bf16 == y.is_bf16 &&
         x.a_in_registers == y.a_in_registers && x.accumulate == y.accumulate &&
         x.a_m_major == y.a_m_major;
}

// The lanes of a warp must agree, and so must the warps of its group, one after the other.
void require_agreement(Warp& warp) {
  const WgmmaForm* forms = warp.wgmma.form;
  for (int lane = 1; lane < kLanes; ++lane) {
    if (same(forms[lane], forms[0])) continue;
    fail(
        "divergent wgmma: lane %d gives other descriptors or another shape than lane 0. Make "
        "them the same in the whole warpgroup",
        lane);
  }
  Cta& cta = *warp.cta;
  const int group = warp.index / kGroupWarps;
  if ((group + 1) * kGroupWarps * kLanes > cta.threads) {
    fail(
        "wgmma of warp %d, but the CTA's %d threads end within its warpgroup. Four warps from a "
        "multiple of four on execute it together",
        warp.index, cta.threads);
  }
  const unsigned count = ++warp.products.count;
  GroupStep& step = cta.steps[group][count % kGroupSteps];
  if (step.count < count) step = {count, forms[0]};
  if (step.count == count && !same(step.form, forms[0])) {
    fail(
        "divergent wgmma: instruction %u of this warp is another one than that of another warp "
        "of its warpgroup. Give all four warps the same descriptors and shapes",
        count);
  }
}

// The tile that a descriptor names: K-major of `atoms` times 8 rows, or else, `n_major` (A:
// M-major), of `columns` times 8 of them.
SharedTile decode(uint64_t descriptor, bool n_major, int atoms, int columns, const char* what) {
  const auto field = [&](int at) { return static_cast<uint32_t>(descriptor >> at & 0x3fff) << 4; };
  const uint32_t start = field(0), leading = field(16), stride = field(32);
  const uint64_t swizzle = descriptor >> 62;
  const bool known = swizzle == kSwizzle128 || swizzle == kSwizzle64;
  if (!known || descriptor != encode(start, leading, stride, swizzle)) {
    fail("%s: descriptor 0x%" PRIx64
         " has another swizzle or a base offset. Make it with "
         "wgmma_descriptor()",
         what, descriptor);
  }
  const uint32_t row_bytes = swizzle == kSwizzle128 ? 128 : 64, atom_bytes = 8 * row_bytes;
  // Bits that steps along k set in the start of a K-major tile.
  const uint32_t advance = n_major ? 0 : row_bytes - 32;
  if (start % atom_bytes & ~advance) {
    fail(
        "%s: its tile starts at shared address 0x%x, byte %u of a swizzle atom; it must start at a "
        "multiple of %u%s. Round the base of shared memory up",
        what, start, start % atom_bytes, atom_bytes,
        n_major ? "" : " plus a multiple of 32 bytes along k, within the row");
  }
  const uint32_t first = start & ~advance;
  const uint32_t last =
      n_major ? stride + (static_cast<uint32_t>(columns) * 16 - 1) / row_bytes * leading
              : static_cast<uint32_t>(atoms - 1) * stride;
  SharedTile tile = require_shared(first, first + last + atom_bytes, what);
  tile.start = start;
  tile.leading = leading;
  tile.stride = stride;
  tile.row_bytes = row_bytes;
  return tile;
}

// Calls visit(shared address, operand) for chunks `from`, `from` + `step`, .. of each operand.
template <class Visit>
void visit_chunks(const Warp& warp, const Wgmma& op, unsigned from, unsigned step, Visit visit) {
  const unsigned columns = static_cast<unsigned>(op.form.columns);
  if (op.form.a_in_registers) {
    for (unsigned i = from; i < 16 * columns; i += step) {
      visit(op.b.along_n(i / columns, i % columns), op.b);
    }
    return;
  }
  const unsigned row = first_wgmma_row(warp);
  for (unsigned i = from; i < 2 * kWgmmaRows; i += step) {
    visit(
        op.form.a_m_major ? op.a.along_n(i / 2, row / 8 + i % 2) : op.a.along_k(row + i / 2, i % 2),
        op.a);
  }
  for (unsigned i = from; i < 16 * columns; i += step) {
    visit(op.b.along_k(i / 2, i % 2), op.b);
  }
}

// Tells ThreadSanitizer of the warp's reads, as lane 0's: they are the unit's, all of them done for
// every lane that has waited, so that one lane may tell of them. By convention it is lane 0.
void announce(const Lane& self, const Wgmma& op) {
  if constexpr (races::kWatching) {
    if (self.index != 0) return;
    visit_chunks(*self.warp, op, 0, 1, [](uint32_t address, const SharedTile& tile) {
      races::reads(tile.at(address), 16);
    });
  }
}

bool is_due(const WgmmaQueue& queue, const Wgmma& op, int pending) {
  return op.group + pending < queue.group;
}

}  // namespace

uint64_t wgmma_descriptor(uint32_t smem, uint32_t leading_bytes, uint32_t stride_bytes,
                          uint32_t row_bytes) {
  constexpr uint32_t kLimit = 1u << 18;
  if ((smem | leading_bytes | stride_bytes) % 16 || smem >= kLimit || leading_bytes >= kLimit ||
      stride_bytes >= kLimit) {
    fail(
        "wgmma_descriptor: shared address 0x%x, leading %u bytes, stride %u bytes; each must be a "
        "multiple of 16 below 2^18",
        smem, leading_bytes, stride_bytes);
  }
  return encode(smem, leading_bytes, stride_bytes, row_bytes == 128 ? kSwizzle128 : kSwizzle64);
}

void issue_wgmma(const WgmmaForm& form, float* d, const uint32_t* a) {
  Lane& self = *machine.current;
  WgmmaSlots& slots = self.warp->wgmma;
  slots.form[self.index] = form;
  slots.d[self.index] = reinterpret_cast<uint8_t*>(d);
  slots.a_at[self.index] = reinterpret_cast<const uint8_t*>(a);
  for (int i = 0; a && i < 4; ++i) slots.a[i][self.index] = a[i];
  collective(self, Collective::kWgmma);
  announce(self, self.warp->products.issued.back());
}

void wgmma_fence() { collective(*machine.current, Collective::kWgmmaFence); }

void wgmma_commit() { collective(*machine.current, Collective::kWgmmaCommit); }

void wgmma_wait(int pending) {
  Lane& self = *machine.current;
  const WgmmaQueue& queue = self.warp->products;
  for (size_t i = queue.done; races::kWatching && i < queue.issued.size(); ++i) {
    if (is_due(queue, queue.issued[i], pending)) announce(self, queue.issued[i]);
  }
  self.warp->wgmma.pending[self.index] = pending;
  collective(self, Collective::kWgmmaWait);
}

void run_wgmma(Warp& warp) {
  require_agreement(warp);
  const WgmmaForm& form = warp.wgmma.form[0];
  WgmmaQueue& queue = warp.products;
  if (!queue.fenced) {
    fail(
        "wgmma without a wgmma_fence() since the start or the last wait. Call it after the last "
        "write of accumulators and registers");
  }
  Wgmma op{};
  op.form = form;
  op.group = queue.group;
  op.b = decode(form.b, form.a_in_registers, form.columns, form.columns, "wgmma, B");
  if (form.a_in_registers) {
    std::memcpy(op.registers, warp.wgmma.a, sizeof op.registers);
    require_fenced_registers(warp, warp.wgmma.a_at, 16, "registers of A");
  } else {
    constexpr int kTiles = kGroupWarps * 2;  // of 8 rows
    op.a = decode(form.a, form.a_m_major, kTiles, kTiles, "wgmma, A");
  }
  if (warp.cta->unfenced) {
    visit_chunks(warp, op, 0, 1, [&](uint32_t address, const SharedTile&) {
      require_proxy_fence(*warp.cta, address, "wgmma reads");
    });
  }
  if (may_be_unlanded(*warp.cta, op.a.first, op.a.end) ||
      may_be_unlanded(*warp.cta, op.b.first, op.b.end)) {
    visit_chunks(warp, op, 0, 1, [&](uint32_t address, const SharedTile&) {
      require_landed(*warp.cta, address, "wgmma");
    });
  }
  op.d = &claim_accumulators(warp);
  ++op.d->writers;
  if (machine.configuration.copies == Copies::kLandAtIssue) execute_wgmma(warp, op);
  queue.issued.push_back(op);
  ++machine.statistics.wgmma;
}

void run_wgmma_fence(Warp& warp) {
  warp.products.fenced = true;
  for (Watched& registers : warp.products.watched) registers.remember();
}

void run_wgmma_wait(Warp& warp) {
  const int pending = warp.wgmma.pending[0];
  WgmmaQueue& queue = warp.products;
  queue.fenced = false;
  for (; queue.done < queue.issued.size(); ++queue.done) {
    Wgmma& op = queue.issued[queue.done];
    if (!is_due(queue, op, pending)) return;
    if (!op.executed) execute_wgmma(warp, op);
    if (--op.d->writers == 0) release_accumulators(*op.d);
  }
  queue.issued.clear();
  queue.done = 0;
}

void reset_wgmma(Warp& warp) {
  WgmmaQueue& queue = warp.products;
  queue.issued.clear();
  queue.done = 0;
  queue.group = 0;
  queue.count = 0;
  queue.fenced = false;
  queue.watched.clear();
  for (const auto& d : queue.accumulators) d->writers = 0;
}

void require_no_product_reads(const Cta& cta, uint32_t first, uint32_t end, const char* what) {
  const auto meets = [=](const SharedTile& tile) { return tile.first < end && first < tile.end; };
  for (const auto& warp : cta.warps) {
    const WgmmaQueue& queue = warp->products;
    for (size_t i = queue.done; i < queue.issued.size(); ++i) {
      const Wgmma& op = queue.issued[i];
      if (!meets(op.a) && !meets(op.b)) continue;
      visit_chunks(*warp, op, 0, 1, [&](uint32_t address, const SharedTile&) {
        if (address < first || address >= end) return;
        fail(
            "%s overwrites shared address 0x%x, which a wgmma in flight of warp %d reads. Let its "
            "warps arrive where the issuer waits, once they have waited for its group",
            what, address, warp->index);
      });
    }
  }
}

void require_no_wgmma(const Lane& self) {
  const WgmmaQueue& queue = self.warp->products;
  if (queue.done == queue.issued.size()) return;
  fail("thread returns with %zu wgmma in flight%s. Wait for all groups first",
       queue.issued.size() - queue.done,
       queue.issued.back().group == queue.group ? ", the last not committed" : "");
}

}  // namespace pod::emulator
