// wgmma.cpp: asynchronous products. Each warp computes its 16 rows of D on its own.
//
// Nothing of a result is visible before the wait for its group: the lanes' accumulators are poison
// from the issue on, and their sums live in the warp's queue.

#include <algorithm>
#include <cinttypes>
#include <cstring>

#include "engine.h"
#include "race_detector.h"

namespace pod::emulator {
namespace {

constexpr uint32_t kAtomBytes = 1024;
constexpr uint32_t kAdvance = 0x60;  // bits that steps along k set in the start of a K-major tile
constexpr int kPoison = 0xff;

const struct Poison {
  uint8_t bytes[kMaxColumnTiles * 16];
  Poison() { std::memset(bytes, kPoison, sizeof bytes); }
} poison;

uint64_t encode(uint32_t start, uint32_t leading, uint32_t stride) {
  return uint64_t{start} >> 4 | uint64_t{leading >> 4} << 16 | uint64_t{stride >> 4} << 32 |
         uint64_t{1} << 62;
}

bool same(const WgmmaForm& x, const WgmmaForm& y) {
  return x.a == y.a && x.b == y.b && x.columns == y.columns && x.is_bf16 == y.is_bf16 &&
         x.a_in_registers == y.a_in_registers && x.accumulate == y.accumulate;
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

// The tile that a descriptor names; it reaches `reach` bytes past its first atom.
SharedTile decode(uint64_t descriptor, bool n_major, int atoms, int columns, const char* what) {
  const auto field = [&](int at) { return static_cast<uint32_t>(descriptor >> at & 0x3fff) << 4; };
  const uint32_t start = field(0), leading = field(16), stride = field(32);
  if (descriptor != encode(start, leading, stride)) {
    fail("%s: descriptor 0x%" PRIx64
         " has another swizzle or a base offset. Make it with "
         "wgmma_descriptor()",
         what, descriptor);
  }
  const uint32_t advance = n_major ? 0 : kAdvance;
  if (start % kAtomBytes & ~advance) {
    fail(
        "%s: its tile starts at shared address 0x%x, byte %u of a swizzle atom; it must start at a "
        "multiple of 1024%s. Round the base of shared memory up",
        what, start, start % kAtomBytes, n_major ? "" : " plus 0, 32, 64 or 96 bytes along k");
  }
  const uint32_t first = start & ~advance;
  const uint32_t last = n_major ? stride + static_cast<uint32_t>(columns / 8 - 1) * leading
                                : static_cast<uint32_t>(atoms - 1) * stride;
  SharedTile tile = require_shared(first, first + last + kAtomBytes, what);
  tile.start = start;
  tile.leading = leading;
  tile.stride = stride;
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
  for (unsigned i = from; i < 2 * kWgmmaRows; i += step) {
    visit(op.a.along_k(first_wgmma_row(warp) + i / 2, i % 2), op.a);
  }
  for (unsigned i = from; i < 16 * columns; i += step) {
    visit(op.b.along_k(i / 2, i % 2), op.b);
  }
}

// Tells ThreadSanitizer of the lane's share of the reads.
void announce(const Lane& self, const Wgmma& op) {
  if constexpr (races::kWatching) {
    visit_chunks(
        *self.warp, op, static_cast<unsigned>(self.index), kLanes,
        [](uint32_t address, const SharedTile& tile) { races::reads(tile.at(address), 16); });
  }
}

// Lane l holds elements (l / 4, 2 * (l % 4)..) of both halves of each column tile.
void take(Accumulators& d) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const float* from = d.lanes[lane];
    for (int n = 0; n < d.columns; ++n) {
      std::memcpy(&d.values[n][0][0][2 * lane], from + 4 * n, 8);
      std::memcpy(&d.values[n][1][0][2 * lane], from + 4 * n + 2, 8);
    }
  }
}

void give_back(const Accumulators& d) {
  for (int lane = 0; lane < kLanes; ++lane) {
    float* to = d.lanes[lane];
    if (std::memcmp(to, poison.bytes, static_cast<size_t>(d.columns) * 16)) {
      fail(
          "lane %d wrote accumulators while a wgmma was in flight on them. Wait for its group "
          "first",
          lane);
    }
    for (int n = 0; n < d.columns; ++n) {
      std::memcpy(to + 4 * n, &d.values[n][0][0][2 * lane], 8);
      std::memcpy(to + 4 * n + 2, &d.values[n][1][0][2 * lane], 8);
    }
  }
}

// The accumulators of the lanes' d: those in flight already, or else new ones.
Accumulators& claim(Warp& warp, const WgmmaForm& form) {
  float** lanes = warp.wgmma.d;
  auto& known = warp.products.accumulators;
  Accumulators* chosen = nullptr;
  for (const auto& entry : known) {
    Accumulators& d = *entry;
    if (d.writers == 0) {
      chosen = &d;
    } else if (d.lanes[0] < lanes[0] + 4 * form.columns && lanes[0] < d.lanes[0] + 4 * d.columns) {
      if (d.columns == form.columns && std::equal(lanes, lanes + kLanes, d.lanes)) return d;
      fail("wgmma on part of the accumulators of another one in flight. Wait for its group first");
    }
  }
  if (!chosen) {
    known.push_back(std::make_unique<Accumulators>());
    chosen = known.back().get();
  }
  std::copy(lanes, lanes + kLanes, chosen->lanes);
  chosen->columns = form.columns;
  chosen->writers = 0;
  if (form.accumulate) take(*chosen);
  for (float* d : chosen->lanes) std::memset(d, kPoison, static_cast<size_t>(form.columns) * 16);
  return *chosen;
}

bool is_due(const WgmmaQueue& queue, const Wgmma& op, int pending) {
  return op.group + pending < queue.group;
}

}  // namespace

uint64_t wgmma_descriptor(uint32_t smem, uint32_t leading_bytes, uint32_t stride_bytes) {
  constexpr uint32_t kLimit = 1u << 18;
  if ((smem | leading_bytes | stride_bytes) % 16 || smem >= kLimit || leading_bytes >= kLimit ||
      stride_bytes >= kLimit) {
    fail(
        "wgmma_descriptor: shared address 0x%x, leading %u bytes, stride %u bytes; each must be a "
        "multiple of 16 below 2^18",
        smem, leading_bytes, stride_bytes);
  }
  return encode(smem, leading_bytes, stride_bytes);
}

void issue_wgmma(const WgmmaForm& form, float* d, const uint32_t* a) {
  Lane& self = *machine.current;
  WgmmaSlots& slots = self.warp->wgmma;
  slots.form[self.index] = form;
  slots.d[self.index] = d;
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
  } else {
    op.a = decode(form.a, false, kGroupWarps * 2, 0, "wgmma, A");
  }
  if (warp.cta->unfenced) {
    visit_chunks(warp, op, 0, 1, [&](uint32_t address, const SharedTile&) {
      require_proxy_fence(*warp.cta, address, "wgmma");
    });
  }
  op.d = &claim(warp, form);
  ++op.d->writers;
  if (machine.configuration.copies == Copies::kLandAtIssue) execute_wgmma(warp, op);
  queue.issued.push_back(op);
  ++machine.statistics.wgmma;
}

void run_wgmma_wait(Warp& warp) {
  const int pending = warp.wgmma.pending[0];
  WgmmaQueue& queue = warp.products;
  queue.fenced = false;
  for (; queue.done < queue.issued.size(); ++queue.done) {
    Wgmma& op = queue.issued[queue.done];
    if (!is_due(queue, op, pending)) return;
    if (!op.executed) execute_wgmma(warp, op);
    if (--op.d->writers == 0) give_back(*op.d);
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
  for (const auto& d : queue.accumulators) d->writers = 0;
}

void require_no_wgmma(const Lane& self) {
  const WgmmaQueue& queue = self.warp->products;
  if (queue.done == queue.issued.size()) return;
  fail("thread returns with %zu wgmma in flight%s. Wait for all groups first",
       queue.issued.size() - queue.done,
       queue.issued.back().group == queue.group ? ", the last not committed" : "");
}

}  // namespace pod::emulator
