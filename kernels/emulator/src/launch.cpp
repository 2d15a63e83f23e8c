// launch.cpp: residency slots of the emulated SMs, and which CTA takes which.

#include <algorithm>
#include <mutex>
#include <new>
#include <numeric>

#include "engine.h"

namespace pod::emulator {

// Every variant's library contains an emulator, but a process has one set of signal handlers. The
// dynamic linker makes one object of an inline variable that is visible in several libraries.
[[gnu::visibility("default")]] inline std::mutex one_launch;

namespace {

constexpr size_t kMaxSmem = 227 << 10;  // of one CTA, sm_90

thread_local std::string last_error;

// Kept from launch to launch, with the stacks of their lanes.
std::vector<std::unique_ptr<Cta>> slots;

LaunchShape shape;
std::vector<int> waiting;     // CTAs in the order of their dispatch, the next one last
std::vector<int> slot_order;  // in which free slots are looked for

void shuffle(std::vector<int>& values) {
  for (size_t left = values.size(); left > 1; --left) {
    std::swap(values[left - 1], values[random_bits() % left]);
  }
}

void arrange(std::vector<int>& values, int count, bool last_first) {
  values.resize(static_cast<size_t>(count));
  std::iota(values.begin(), values.end(), 0);
  if (last_first) std::reverse(values.begin(), values.end());
  if (machine.configuration.order == Order::kRandom) shuffle(values);
}

void add_warp(Cta& cta) {
  auto warp = std::make_unique<Warp>();
  warp->cta = &cta;
  warp->index = static_cast<int>(cta.warps.size());
  for (int lane = 0; lane < kLanes; ++lane) {
    Lane& self = warp->lanes[lane];
    self.warp = warp.get();
    self.index = lane;
    self.bit = 1u << lane;
    self.in_flight = &warp->in_flight[lane];
    self.thread = warp->index * kLanes + lane;
  }
  cta.warps.push_back(std::move(warp));
}

void prepare_slots() {
  const Configuration& configuration = machine.configuration;
  const int count = configuration.num_sms * configuration.ctas_per_sm;
  const size_t warps = static_cast<size_t>(shape.threads / kLanes);
  while (slots.size() < static_cast<size_t>(count)) slots.push_back(std::make_unique<Cta>());
  machine.warps.clear();
  for (int i = 0; i < count; ++i) {
    Cta& cta = *slots[static_cast<size_t>(i)];
    cta.live = 0;
    cta.smid = i % configuration.num_sms;  // breadth first: a GPU fills all SMs evenly
    while (cta.warps.size() < warps) add_warp(cta);
    for (const auto& warp : cta.warps) warp->live = warp->ready = 0;
    for (size_t w = 0; w < warps; ++w) machine.warps.push_back(cta.warps[w].get());
  }
}

void start(Cta& cta, int index) {
  cta.index = index;
  cta.threads = cta.live = shape.threads;
  prepare_memory(cta, shape.smem);
  for (Barrier& barrier : cta.barriers) barrier = Barrier{};
  for (auto& steps : cta.steps) std::fill(std::begin(steps), std::end(steps), GroupStep{});
  for (int w = 0; w < shape.threads / kLanes; ++w) {
    Warp& warp = *cta.warps[static_cast<size_t>(w)];
    warp.live = warp.ready = kFullWarp;
    warp.op = Collective::kNone;
    warp.parked = 0;
    warp.blocked_at = -1;
    draw_order(warp);
    reset_wgmma(warp);
    warp.register_moves.clear();
    prepare_stacks(warp);
    for (Lane& lane : warp.lanes) {
      lane.in_flight->copies.clear();
      lane.in_flight->landed = 0;
      lane.in_flight->proxy_fences = 0;
      lane.in_flight->unfenced = false;
      lane.group = 0;
      lane.waited = false;
      prepare_fiber(lane);
    }
  }
  ++machine.statistics.ctas;
}

// Fills free slots; the number of CTAs that are resident then.
int dispatch() {
  int resident = 0;
  if (machine.configuration.order == Order::kRandom) shuffle(slot_order);
  for (int index : slot_order) {
    Cta& cta = *slots[static_cast<size_t>(index)];
    if (cta.live == 0 && !waiting.empty()) {
      start(cta, waiting.back());
      waiting.pop_back();
    }
    resident += cta.live != 0;
  }
  return resident;
}

void run_slots() {
  prepare_slots();
  const Configuration& configuration = machine.configuration;
  const bool descending = configuration.order == Order::kDescending;
  arrange(waiting, shape.grid, !descending);
  arrange(slot_order, configuration.num_sms * configuration.ctas_per_sm, descending);
  while (const int resident = dispatch()) {
    Statistics& statistics = machine.statistics;
    statistics.max_resident = std::max<int64_t>(statistics.max_resident, resident);
    run_until_idle();
    if (!machine.error.empty()) return;
    if (!machine.cta_finished) return report_deadlock();
  }
}

void run_grid() {
  try {
    run_slots();
  } catch (const std::bad_alloc&) {
    const Configuration& c = machine.configuration;
    machine.error = "no memory for " + std::to_string(c.num_sms) + " SMs of " +
                    std::to_string(c.ctas_per_sm) + " CTAs of " + std::to_string(shape.threads) +
                    " threads, each with a stack of its own. Emulate fewer SMs";
  }
}

std::string check_configuration() {
  const Configuration& c = machine.configuration;
  if (c.num_sms < 1 || c.ctas_per_sm < 1) {
    return "the emulator is configured with " + std::to_string(c.num_sms) + " SMs of " +
           std::to_string(c.ctas_per_sm) + " CTAs; both are at least 1";
  }
  const int order = static_cast<int>(c.order), copies = static_cast<int>(c.copies);
  if (order < 0 || order > 2 || copies < 0 || copies > 1) {
    return "the emulator is configured with order " + std::to_string(order) + " and copies " +
           std::to_string(copies) + "; orders are 0..2, copies 0..1";
  }
  if (c.preempt_percent < 0 || c.preempt_percent > 100) {
    return "the emulator is configured to preempt at " + std::to_string(c.preempt_percent) +
           " percent; the range is 0..100";
  }
  return "";
}

std::string check() {
  if (shape.grid < 1) {
    return "launch of " + std::to_string(shape.grid) + " CTAs; a grid has at least 1";
  }
  if (shape.threads < kLanes || shape.threads > kMaxThreads || shape.threads % kLanes) {
    return "launch with " + std::to_string(shape.threads) +
           " threads per CTA; the emulator takes multiples of 32 from 32 to 1024";
  }
  if (shape.smem > kMaxSmem) {
    return "launch with " + std::to_string(shape.smem) +
           " bytes of dynamic shared memory; a CTA has at most " + std::to_string(kMaxSmem);
  }
  return check_configuration();
}

void seed_random(int seed) {
  machine.random = (uint64_t{static_cast<uint32_t>(seed)} + 1) * 0x9E3779B97F4A7C15ull;
  for (int i = 0; i < 8; ++i) random_bits();  // neighbouring seeds start alike
}

int run_locked(const LaunchShape& launch_shape, void (*body)(void*), void* arguments) {
  shape = launch_shape;
  machine.grid = shape.grid;
  machine.body = body;
  machine.arguments = arguments;
  machine.last_warp = 0;
  machine.current = &machine.host;
  machine.error = check();
  if (machine.error.empty()) {
    prepare_host(machine.host);
    seed_random(machine.configuration.seed);
    draw_preemption();
    run_catching_faults(run_grid);
  }
  last_error = machine.error;
  return machine.error.empty() ? 0 : 1;
}

}  // namespace

int run(const LaunchShape& launch_shape, void (*body)(void*), void* arguments) {
  const std::lock_guard<std::mutex> lock(one_launch);
  return run_locked(launch_shape, body, arguments);
}

int run_dependent(const LaunchShape& launch_shape, const std::vector<Handed>& handed,
                  void (*body)(void*), void* arguments) {
  const std::lock_guard<std::mutex> lock(one_launch);
  hide(handed);
  machine.dependent = true;
  const int code = run_locked(launch_shape, body, arguments);
  machine.dependent = false;
  reveal();
  return code;
}

const char* error() { return last_error.c_str(); }

int refuse(const std::string& text) {
  last_error = text;
  return 1;
}

void configure(const Configuration& configuration) {
  const std::lock_guard<std::mutex> lock(one_launch);
  machine.configuration = configuration;
}

Statistics take_statistics(bool reset) {
  const std::lock_guard<std::mutex> lock(one_launch);
  const Statistics taken = machine.statistics;
  if (reset) machine.statistics = Statistics{};
  return taken;
}

}  // namespace pod::emulator
