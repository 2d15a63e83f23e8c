// wgmma_registers.cpp: registers of the lanes that wgmma reads and writes behind their backs.

#include <algorithm>
#include <cstring>

#include "engine.h"

namespace pod::emulator {
namespace {

constexpr int kPoison = 0xff;
constexpr size_t kMaxWatched = 64;

const struct Poison {
  uint8_t bytes[kMaxColumnTiles * 16];
  Poison() { std::memset(bytes, kPoison, sizeof bytes); }
} poison;

// Lane l holds elements (l / 4, 2 * (l % 4)..) of both halves of each column tile.
void take(Accumulators& d) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint8_t* from = d.lanes[lane];
    for (int n = 0; n < d.columns; ++n) {
      std::memcpy(&d.values[n][0][0][2 * lane], from + 16 * n, 8);
      std::memcpy(&d.values[n][1][0][2 * lane], from + 16 * n + 8, 8);
    }
  }
}

}  // namespace

void release_accumulators(const Accumulators& d) {
  for (int lane = 0; lane < kLanes; ++lane) {
    uint8_t* to = d.lanes[lane];
    if (std::memcmp(to, poison.bytes, static_cast<size_t>(d.columns) * 16)) {
      fail(
          "lane %d wrote accumulators while a wgmma was in flight on them. Wait for its group "
          "first",
          lane);
    }
    for (int n = 0; n < d.columns; ++n) {
      std::memcpy(to + 16 * n, &d.values[n][0][0][2 * lane], 8);
      std::memcpy(to + 16 * n + 8, &d.values[n][1][0][2 * lane], 8);
    }
  }
}

Accumulators& claim_accumulators(Warp& warp) {
  const WgmmaForm& form = warp.wgmma.form[0];
  uint8_t** lanes = warp.wgmma.d;
  const size_t bytes = static_cast<size_t>(form.columns) * 16;
  auto& known = warp.products.accumulators;
  Accumulators* chosen = nullptr;
  for (const auto& entry : known) {
    Accumulators& d = *entry;
    if (d.writers == 0) {
      chosen = &d;
    } else if (d.lanes[0] < lanes[0] + bytes && lanes[0] < d.lanes[0] + 16 * d.columns) {
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
  if (form.accumulate) {
    require_fenced_registers(warp, lanes, bytes, "accumulators");
    take(*chosen);
  }
  for (uint8_t* d : chosen->lanes) std::memset(d, kPoison, bytes);
  return *chosen;
}

void Watched::remember() {
  for (int lane = 0; lane < kLanes; ++lane) {
    std::memcpy(&at_fence[static_cast<size_t>(lane) * bytes], lanes[lane], bytes);
  }
  fenced = true;
}

void require_fenced_registers(Warp& warp, const uint8_t* const* lanes, size_t bytes,
                              const char* what) {
  std::vector<Watched>& all = warp.products.watched;
  for (const Watched& known : all) {
    if (known.bytes != bytes || !std::equal(lanes, lanes + kLanes, known.lanes)) continue;
    for (int lane = 0; known.fenced && lane < kLanes; ++lane) {
      if (!std::memcmp(&known.at_fence[static_cast<size_t>(lane) * bytes], lanes[lane], bytes)) {
        continue;
      }
      fail(
          "wgmma on %s that lane %d has changed since the last wgmma_fence(). Call it after the "
          "last write",
          what, lane);
    }
    return;
  }
  if (all.size() == kMaxWatched) return;
  Watched added{};
  std::copy(lanes, lanes + kLanes, added.lanes);
  added.bytes = bytes;
  added.at_fence.resize(kLanes * bytes);
  all.push_back(std::move(added));
}

}  // namespace pod::emulator
