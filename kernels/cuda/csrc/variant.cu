// variant.cu: one variant of the kernel behind a C ABI; compiled once per variant, for a GPU by
// nvcc and for the emulated SM by a host compiler. The defines name what the variant fixes.

#include <algorithm>
#include <string>
#include <vector>

#include "pod/combine.cuh"
#include "pod/pod_kernel.cuh"
#include "pod/ptx/launch.cuh"
#include "pod/stamp.cuh"

namespace pod {
namespace {

// A tag type: a struct as template value breaks nvcc 13.0 with gcc 12.
struct Variant {
  using Element = POD_DTYPE;
  using KvElement = POD_KV_DTYPE;
  static constexpr int head_dim = POD_HEAD_DIM;
  static constexpr PrefillEngine prefill_engine = PrefillEngine::POD_PREFILL_ENGINE;
  static constexpr PodConfig config{
      {POD_PREFILL_Q_ROWS, POD_PREFILL_KV_ROWS, POD_PREFILL_STAGES, POD_PREFILL_WARPS},
      {POD_DECODE_Q_ROWS, POD_DECODE_KV_ROWS, POD_DECODE_STAGES, POD_DECODE_WARPS},
      POD_CTAS_PER_SM,
      POD_VIRTUAL_DECODE};
};

constexpr TileConfig kPrefill = Variant::config.prefill, kDecode = Variant::config.decode;
constexpr int kTiles = kPrefill.q_rows / (16 * kPrefill.warps);
static_assert(is_head_dim(Variant::head_dim), "head dim is 64, 96, 128 or 256");
static_assert(kPrefill.q_rows == kTiles * 16 * kPrefill.warps && (kTiles == 1 || kTiles == 2),
              "a prefill warp owns 16 or 32 query rows");
constexpr int kCopyWarps =
    Variant::prefill_engine == PrefillEngine::kPair ? kGroupWarps : kPrefill.warps;
static_assert(kPrefill.kv_rows % 16 == 0 && kPrefill.kv_rows % (8 * kCopyWarps) == 0,
              "a warp copies a multiple of 8 KV rows");
static_assert(has_decode_rows(Smem<Variant>::kDecodeEngine, kDecode.q_rows),
              "a decode tile has 16 query rows, on wgmma 16 or 8");
static_assert(kDecode.kv_rows % (16 * kDecode.warps) == 0, "a decode warp owns 16 n keys");
static_assert(op::Prefill<Variant>::kSuits, "see op/prefill_engine.cuh");
static_assert(cta_warps(Variant::config) <= 16 && Variant::config.virtual_decode <= 8,
              "a CTA has at most 16 warps and 8 decode items");

thread_local std::string error;

int fail(ptx::Error code) {
  error = ptx::error_text(code);
  return 1;
}

template <Ops kOps>
using Shape = KernelShape<Variant, kOps>;

// Of CTAs that stay there are at most as many as SMs; those of both ops that do not draw tickets.
template <Ops kOps>
ptx::Error launch_ops(const LaunchArguments& a, int ctas, void* stream) {
  if (ctas == 0) return {};
  if constexpr (Shape<kOps>::kStays) {
    ctas = std::min(ctas, ptx::sm_count(a.device));
  } else if constexpr (kOps == Ops::kBoth) {
    const ptx::Error code = ptx::clear(a.counters, counter_bytes(a.sm_slots), stream);
    if (code) return code;
  }
  return ptx::launch(pod_kernel<Variant, kOps>, ctas, Shape<kOps>::kThreads, Shape<kOps>::kSmem,
                     stream, static_cast<const KernelArguments&>(a));
}

// Two streams that joined have no launch before that a merge could be the dependent of.
ptx::Error launch_merge(const LaunchArguments& a, bool joined) {
  if (a.merge_ctas == 0) return {};
  constexpr int kThreads = kMergeRows * kWarpSize;
  const auto& arguments = static_cast<const KernelArguments&>(a);
  if (joined) {
    return ptx::launch(merge_kernel<Variant>, a.merge_ctas, kThreads, 0, a.stream, arguments);
  }
  return ptx::launch_dependent(merge_kernel<Variant>, a.merge_ctas, kThreads, a.stream, arguments);
}

ptx::Error prepare(int device);

ptx::Error launch_all(const LaunchArguments& a) {
  if (ptx::Error code = prepare(a.device)) return code;
  const bool hybrid = a.prefill_ctas > 0 && a.decode_ctas > 0;
  const auto strategy = static_cast<Strategy>(a.strategy);
  const bool side_by_side = hybrid && strategy == Strategy::kStreams;
  ptx::Error code{};
  if (hybrid && strategy == Strategy::kFused) {
    code = launch_ops<Ops::kBoth>(a, a.prefill_ctas + a.decode_ctas, a.stream);
  } else if (side_by_side) {
    code = ptx::fork_join(
        a.stream, a.side_stream,
        [&] { return launch_ops<Ops::kDecode>(a, a.decode_ctas, a.side_stream); },
        [&] { return launch_ops<Ops::kPrefill>(a, a.prefill_ctas, a.stream); });
  } else {
    code = launch_ops<Ops::kPrefill>(a, a.prefill_ctas, a.stream);
    if (!code) code = launch_ops<Ops::kDecode>(a, a.decode_ctas, a.stream);
  }
  return code ? code : launch_merge(a, side_by_side);
}

template <Ops kOps>
ptx::Error allow_smem() {
  return ptx::allow_smem(pod_kernel<Variant, kOps>, Shape<kOps>::kSmem);
}

// Kernel attributes belong to a device's context: set before the first launch on each. The caller
// has made `device` current.
ptx::Error prepare(int device) {
  static thread_local std::vector<bool> ready;
  const auto index = static_cast<size_t>(device);
  if (index < ready.size() && ready[index]) return {};
  ptx::Error code = allow_smem<Ops::kPrefill>();
  if (!code) code = allow_smem<Ops::kDecode>();
  if (!code) code = allow_smem<Ops::kBoth>();
  // An SM has one split of cache and shared memory at a time, and merges start beside the others.
  if (!code) code = ptx::allow_smem(merge_kernel<Variant>, 0);
  if (code) return code;
  if (index >= ready.size()) ready.resize(index + 1);
  ready[index] = true;
  return {};
}

template <Ops kOps>
ptx::Error ops_info(KernelInfo* out) {
  return ptx::kernel_info(pod_kernel<Variant, kOps>, Shape<kOps>::kThreads, Shape<kOps>::kSmem,
                          out);
}

ptx::Error info(int device, int kernel, KernelInfo* out) {
  if (ptx::Error code = prepare(device)) return code;
  if (kernel == 0) return ops_info<Ops::kPrefill>(out);
  if (kernel == 1) return ops_info<Ops::kDecode>(out);
  if (kernel == 2) return ops_info<Ops::kBoth>(out);
  return ptx::kernel_info(merge_kernel<Variant>, kMergeRows * kWarpSize, 0, out);
}

}  // namespace
}  // namespace pod

#define POD_EXPORT extern "C" __attribute__((visibility("default")))

// Launches one call on its stream; the caller has made its device current. 0, or 1 and pod_error().
POD_EXPORT int pod_launch(const pod::LaunchArguments* arguments) {
  const pod::ptx::Error code = pod::launch_all(*arguments);
  return code ? pod::fail(code) : 0;
}

// The calling thread's last error.
POD_EXPORT const char* pod_error() { return pod::error.c_str(); }

// Resources of a kernel (0 prefill, 1 decode, 2 both, 3 merge) on the current device.
POD_EXPORT int pod_info(int device, int kernel, pod::KernelInfo* out) {
  const pod::ptx::Error code = pod::info(device, kernel, out);
  return code ? pod::fail(code) : 0;
}

// Queues a stamp: see stamp.cuh. `plan` and `ring` are addresses that the device can reach.
POD_EXPORT int pod_stamp(const void* plan, void* ring, int width, int index, void* stream) {
  const pod::StampArguments arguments{static_cast<const pod::PlanHeader*>(plan),
                                      static_cast<uint64_t*>(ring), width, index};
  const pod::ptx::Error code =
      pod::ptx::launch(pod::stamp_kernel, 1, pod::kWarpSize, 0, stream, arguments);
  return code ? pod::fail(code) : 0;
}
