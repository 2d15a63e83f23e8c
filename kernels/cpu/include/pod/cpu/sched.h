// sched.h: who computes which item when. Decides and never computes.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "pod/cpu/plan.h"
#include "pod/cpu/pool.h"

namespace pod::cpu {

// What one worker did in one call.
struct WorkerLog {
  std::vector<int64_t> tickets;   // prefill item i as i, decode item i as -1 - i, in order
  int64_t decode_rows_ahead = 0;  // K and V rows of coming decode items put up for prefetch
};

// Memory and threads of one call at a time; grows, never shrinks.
class Engine {
 public:
  // Attends the batch. `logs`, if not null, receives one entry per worker.
  void run(const Core& core, const Problem& problem, const PodConfig& config, int threads,
           std::vector<WorkerLog>* logs);

 private:
  struct FreeAligned {
    void operator()(void* memory) const;
  };
  struct Buffer {
    std::unique_ptr<char, FreeAligned> memory;
    size_t bytes = 0;
    char* reserve(size_t wanted);
  };

  Scratch carve(int worker, const Problem& problem, const PodConfig& config);

  Pool pool_;
  Plan plan_;
  Buffer partial_;
  std::vector<Buffer> scratch_;
};

}  // namespace pod::cpu
