// dependents.cpp: launches that begin before the launch before has ended, as far as it can be told
// when launches run one after the other.

#include <cstring>

#include "engine.h"
#include "race_detector.h"

namespace pod::emulator {

namespace {

constexpr int kUnwritten = 0xff;  // a NaN

struct Kept {
  Handed place;
  std::vector<uint8_t> bytes;
};

std::vector<Kept> kept;

}  // namespace

void hide(const std::vector<Handed>& handed) {
  for (const Handed& place : handed) {
    const auto* from = static_cast<const uint8_t*>(place.begin);
    kept.push_back({place, std::vector<uint8_t>(from, from + place.bytes)});
    std::memset(place.begin, kUnwritten, place.bytes);
  }
}

void reveal() {
  const races::OnBehalfOfOthers unseen;
  for (const Kept& known : kept) {
    std::memcpy(known.place.begin, known.bytes.data(), known.bytes.size());
  }
  kept.clear();
}

void wait_for_launch_before() {
  machine.current->waited = true;
  if (!kept.empty()) reveal();
}

void require_waited(const Lane& self) {
  if (!machine.dependent || self.waited) return;
  fail(
      "a thread of a dependent launch returns without wait_for_launch_before(). What is launched "
      "next may then begin before the launch before has ended");
}

}  // namespace pod::emulator
