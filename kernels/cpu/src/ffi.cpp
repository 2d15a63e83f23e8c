// ffi.cpp: the exported functions; loaded by tvm_ffi.load_module.

#include <pthread.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>

#include <mutex>

#include "pod/cpu/checks.h"
#include "pod/cpu/sched.h"

namespace pod::cpu {
namespace {

using packed::unpack;
using tvm::ffi::Array;
using tvm::ffi::Bytes;
using tvm::ffi::Optional;
using tvm::ffi::Shape;
using tvm::ffi::TensorView;

// One call computes at a time: a call uses every core it was given, and callers on other threads
// wait for their turn. Never destroyed, because its threads live until the process ends.
struct Shared {
  std::mutex mutex;
  Engine engine;
};
Shared* shared = nullptr;

// A forked child has this memory but none of the threads, and the mutex may be held for ever: it
// starts anew and abandons the parent's copy.
void start_anew() { shared = new Shared; }

Shared& get_shared() {
  static std::once_flag once;
  std::call_once(once, [] {
    start_anew();
    pthread_atfork(nullptr, nullptr, start_anew);
  });
  return *shared;
}

bool cpu_has(int isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (isa == 1) return avx2;
  if (isa == 0) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
#endif
  return isa == 2;
}

// 0 avx512, 1 avx2, 2 portable.
const Core& choose_core(int64_t isa) {
  if (!cpu_has(static_cast<int>(isa))) {
    TVM_FFI_THROW(KernelUnavailableError)
        << "this CPU cannot run the kernel's instruction set " << isa
        << " (0 avx512, 1 avx2, 2 portable); unset POD_ATTN_ISA";
  }
#if POD_HAS_AVX512
  if (isa == 0) return avx512::core();
#endif
#if POD_HAS_AVX2
  if (isa == 1) return avx2::core();
#endif
  return portable::core();
}

void run(const Call& call, const Bytes& config, int64_t threads, int64_t isa,
         std::vector<WorkerLog>* logs) {
  const Problem problem = check_call(call);
  const PodConfig chosen = check_config(unpack<packed::PodConfig>(config));
  const Core& core = choose_core(isa);
  Shared& state = get_shared();
  std::lock_guard<std::mutex> lock(state.mutex);
  state.engine.run(core, problem, chosen, static_cast<int>(threads), logs);
}

// Attends the batch into out and lse.
void attend(TensorView q, TensorView k_cache, TensorView v_cache, TensorView q_indptr,
            TensorView kv_lens, TensorView page_indices, TensorView page_starts, int64_t page_size,
            Bytes scalars, Optional<TensorView> sinks, TensorView out, TensorView lse, Bytes config,
            int64_t threads, int64_t isa) {
  run({q, k_cache, v_cache, q_indptr, kv_lens, page_indices, page_starts, page_size,
       unpack<packed::Scalars>(scalars), sinks, out, lse},
      config, threads, isa, nullptr);
}

// The same, and tells what each worker did: its tickets in order (prefill item i as i, decode item
// i as -1 - i), preceded by the number of decode rows it prefetched.
Array<Shape> attend_logged(TensorView q, TensorView k_cache, TensorView v_cache,
                           TensorView q_indptr, TensorView kv_lens, TensorView page_indices,
                           TensorView page_starts, int64_t page_size, Bytes scalars,
                           Optional<TensorView> sinks, TensorView out, TensorView lse, Bytes config,
                           int64_t threads, int64_t isa) {
  std::vector<WorkerLog> logs;
  run({q, k_cache, v_cache, q_indptr, kv_lens, page_indices, page_starts, page_size,
       unpack<packed::Scalars>(scalars), sinks, out, lse},
      config, threads, isa, &logs);
  Array<Shape> answer;
  for (WorkerLog& log : logs) {
    log.tickets.insert(log.tickets.begin(), log.decode_rows_ahead);
    answer.push_back(Shape(log.tickets));
  }
  return answer;
}

// Items of the plan, nine integers each: kind (0 prefill, 1 decode), request, kv_head, row0, rows,
// kv0, kv1, split_group, cost.
Shape plan(TensorView q_indptr, TensorView kv_lens, int64_t num_q_heads, int64_t num_kv_heads,
           int64_t head_dim, int64_t row_bytes, int64_t window_left, Bytes config,
           int64_t threads) {
  Problem p{};
  p.q_indptr = static_cast<const int32_t*>(q_indptr.data_ptr());
  p.kv_lens = static_cast<const int32_t*>(kv_lens.data_ptr());
  p.num_requests = static_cast<int>(kv_lens.size(0));
  p.num_q_heads = static_cast<int>(num_q_heads);
  p.num_kv_heads = static_cast<int>(num_kv_heads);
  p.group = p.num_q_heads / p.num_kv_heads;
  p.head_dim = static_cast<int>(head_dim);
  p.row_bytes = static_cast<int>(row_bytes);
  p.window_left = static_cast<int>(window_left);
  Plan made;
  make_plan(p, check_config(unpack<packed::PodConfig>(config)), static_cast<int>(threads), made);
  std::vector<int64_t> rows;
  const auto append = [&](int64_t kind, const std::vector<Item>& items) {
    for (const Item& i : items) {
      for (int64_t value :
           {kind, int64_t{i.request}, int64_t{i.kv_head}, int64_t{i.row0}, int64_t{i.rows},
            int64_t{i.kv0}, int64_t{i.kv1}, int64_t{i.split_group}, i.cost}) {
        rows.push_back(value);
      }
    }
  };
  append(0, made.prefill);
  append(1, made.decode);
  return Shape(rows);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(attend, attend);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(attend_logged, attend_logged);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(plan, plan);

}  // namespace
}  // namespace pod::cpu
