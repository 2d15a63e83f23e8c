// engine.cpp: workspace and strategy of one call; the tickets themselves are in worker.h.

#include <algorithm>
#include <cstdlib>
#include <new>

#include "pod/cpu/sched.h"
#include "pod/cpu/worker.h"

namespace pod::cpu {
namespace {

constexpr int kAlign = 64;
constexpr int kMaxLanes = 16;

// Waking a thread costs some microseconds: less work than this is not worth it.
constexpr double kMicrosPerThread = 10;

// Threads of the prefill side of the `streams` strategy; each side gets one at least.
int prefill_workers(const Plan& plan, int threads) {
  const int wanted = static_cast<int>(plan.prefill_share() * threads + 0.5);
  return std::clamp(wanted, 1, threads - 1);
}

}  // namespace

void Engine::FreeAligned::operator()(void* memory) const { std::free(memory); }

char* Engine::Buffer::reserve(size_t wanted) {
  if (wanted > bytes) {
    memory.reset();
    bytes = 0;
    const size_t rounded = (wanted + (1 << 16)) / 4096 * 4096;
    memory.reset(static_cast<char*>(std::aligned_alloc(4096, rounded)));
    if (!memory) throw std::bad_alloc();
    bytes = rounded;
  }
  return memory.get();
}

Scratch Engine::carve(int worker, const Problem& p, const PodConfig& config) {
  const size_t dim = p.head_dim, rows = config.prefill.q_rows, kv = config.prefill.kv_rows;
  const size_t decode_rows = config.decode.q_rows, stride = config.decode.kv_rows + kMaxLanes;
  const size_t stream = 2 * kv * config.prefill.stages + kMaxStreamRows;
  size_t used = 0;
  const auto place = [&](size_t bytes) {
    const size_t at = used;
    used += (bytes + kAlign - 1) / kAlign * kAlign;
    return at;
  };
  const size_t f = sizeof(float), ptr = sizeof(char*);
  const size_t at[] = {place(rows * dim * f),
                       place(rows * dim * f),
                       place(kv * dim * f),
                       place(kv * dim * f),
                       place(kv * 2 * kMaxLanes * f),
                       place(rows * f),
                       place(rows * f),
                       place(rows * f),
                       place(decode_rows * dim * f),
                       place(decode_rows * dim * f),
                       place(decode_rows * stride * f),
                       place(2 * config.decode.stages * stride * ptr),
                       place(stream * ptr),
                       place(rows * f),
                       place(rows * dim * f),
                       place(rows * dim * f),
                       place(rows * f),
                       place(decode_rows * dim * f),
                       place(decode_rows * dim * f)};
  char* base = scratch_[worker].reserve(used);
  const auto floats = [&](int i) { return reinterpret_cast<float*>(base + at[i]); };
  const auto pointers = [&](int i) { return reinterpret_cast<const char**>(base + at[i]); };
  return {floats(0),
          floats(1),
          floats(2),
          floats(3),
          floats(4),
          floats(5),
          floats(6),
          floats(13),
          reinterpret_cast<int*>(base + at[7]),
          floats(8),
          floats(9),
          floats(10),
          floats(14),
          floats(15),
          floats(16),
          floats(17),
          floats(18),
          pointers(11),
          pointers(12),
          static_cast<int>(stream)};
}

void Engine::run(const Core& core, const Problem& problem, const PodConfig& config, int threads,
                 std::vector<WorkerLog>* logs) {
  make_plan(problem, config, threads, plan_);
  threads = std::clamp(static_cast<int>(plan_.micros() / kMicrosPerThread), 1, threads);
  place_partials(plan_, problem.head_dim,
                 reinterpret_cast<float*>(partial_.reserve(plan_.partial_floats * sizeof(float))));
  if (static_cast<int>(scratch_.size()) < threads) scratch_.resize(threads);
  std::vector<Worker> workers;
  Queues queues;
  workers.reserve(threads);
  for (int i = 0; i < threads; ++i) {
    workers.emplace_back(core, problem, config, plan_, queues, carve(i, problem, config));
  }
  const bool both = !plan_.prefill.empty() && !plan_.decode.empty();
  if (config.strategy == Strategy::kFused || !both) {
    pool_.run(threads, Pool::Wait::kJoined, [&](int i) { workers[i].fused(); });
  } else if (config.strategy == Strategy::kSerial || threads == 1) {
    pool_.run(threads, Pool::Wait::kJoined, [&](int i) { workers[i].prefill_only(); });
    pool_.run(threads, Pool::Wait::kJoined, [&](int i) { workers[i].decode_only(); });
  } else {
    const int split = prefill_workers(plan_, threads);
    pool_.run(threads, Pool::Wait::kAll,
              [&](int i) { i < split ? workers[i].prefill_only() : workers[i].decode_only(); });
  }
  if (logs) {
    for (Worker& worker : workers) logs->push_back(worker.take_log());
  }
}

}  // namespace pod::cpu
