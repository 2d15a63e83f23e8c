// register_counts.cpp: setmaxnreg. Registers are not modelled; who moves how many, and when, is.

#include <cstdlib>

#include "engine.h"

namespace pod::emulator {
namespace {

// As a kernel writes it: a count that was raised to is positive, one that was lowered to negative.
std::string text_of(int move) {
  return (move > 0 ? "raise_registers<" : "lower_registers<") + std::to_string(std::abs(move)) +
         ">";
}

// The relation to the warp's last count; the count at launch is the compiler's affair.
void require_direction(int last, int move) {
  const int before = std::abs(last), count = std::abs(move);
  if (last == 0 || (move > 0 ? count >= before : count <= before)) return;
  fail("%s: the warp has %d registers a thread since its %s. %s", text_of(move).c_str(), before,
       text_of(last).c_str(), move > 0 ? "Lower them instead" : "Raise them instead");
}

// The four warps of a group make the same moves, each at its own time.
void require_same_move(const Warp& warp, const Warp& other, size_t number) {
  if (other.register_moves.size() <= number) return;
  const int theirs = other.register_moves[number], ours = warp.register_moves[number];
  if (theirs == ours) return;
  fail("%s: warp %d of the warpgroup has %s here. Give all four warps one count",
       text_of(ours).c_str(), other.index, text_of(theirs).c_str());
}

}  // namespace

void run_setmaxnreg(Warp& warp) {
  const int* moves = warp.registers.move;
  for (int lane = 1; lane < kLanes; ++lane) {
    if (moves[lane] == moves[0]) continue;
    fail("divergent setmaxnreg: lane 0 has %s, lane %d has %s. Give one count in all lanes",
         text_of(moves[0]).c_str(), lane, text_of(moves[lane]).c_str());
  }
  const Cta& cta = *warp.cta;
  const int first = warp.index / kGroupWarps * kGroupWarps;
  if ((first + kGroupWarps) * kLanes > cta.threads) {
    fail(
        "%s of warp %d, but the CTA's %d threads end within its warpgroup. Four warps from a "
        "multiple of four on execute it",
        text_of(moves[0]).c_str(), warp.index, cta.threads);
  }
  require_direction(warp.register_moves.empty() ? 0 : warp.register_moves.back(), moves[0]);
  warp.register_moves.push_back(moves[0]);
  for (int i = first; i < first + kGroupWarps; ++i) {
    require_same_move(warp, *cta.warps[static_cast<size_t>(i)], warp.register_moves.size() - 1);
  }
}

void require_whole_groups_moved(const Cta& cta) {
  for (int i = 0; i < cta.threads / kLanes; ++i) {
    const auto& group = cta.warps[static_cast<size_t>(i / kGroupWarps * kGroupWarps)];
    const auto& ours = cta.warps[static_cast<size_t>(i)]->register_moves;
    const auto& theirs = group->register_moves;
    if (ours.size() == theirs.size()) continue;
    const bool lacks = ours.size() < theirs.size();
    const int move = lacks ? theirs[ours.size()] : ours[theirs.size()];
    fail(
        "%s: warp %d had executed it when the CTA ended, warp %d had not. All four warps of a "
        "warpgroup do, or none",
        text_of(move).c_str(), lacks ? group->index : i, lacks ? i : group->index);
  }
}

void raise_registers(int count) {
  Lane& self = *machine.current;
  self.warp->registers.move[self.index] = count;
  collective(self, Collective::kSetmaxnreg);
}

void lower_registers(int count) { raise_registers(-count); }

}  // namespace pod::emulator
