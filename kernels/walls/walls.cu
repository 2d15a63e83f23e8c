// walls.cu: what an SM of a Hopper GPU does at most, alone and at once: copies, products, decode.
//
// Measures; computes nothing that anybody needs. `python -m benchmarks.gpu walls` runs it.

#include <algorithm>
#include <string>

#include "corun.cuh"
#include "sharer.cuh"
#include "streams.cuh"

namespace pod::walls {
namespace {

thread_local std::string error;

const char* const kKernels =
    "bulk\nboxes\ncopies\ncorun128\ncorun64\nwide128\nshare1\nshare2\nshare4\n";

// Rows of 128 elements as boxes of [box_rows, 128 / panels].
bool encode(CUtensorMap* map, const char* pool, int64_t rows, int box_rows, int panels) {
  static const ptx::EncodeTiled function = ptx::find_encode_tiled();
  if (function == nullptr) {
    error = "the driver has no cuTensorMapEncodeTiled";
    return false;
  }
  const cuuint64_t sizes[2] = {kHeadDim, static_cast<cuuint64_t>(rows)}, pitch[1] = {kRowBytes};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(kHeadDim / panels),
                             static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t strides[2] = {1, 1};
  const CUresult code =
      function(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<char*>(pool), sizes, pitch, box,
               strides, CU_TENSOR_MAP_INTERLEAVE_NONE,
               panels == 2 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code) error = "cuTensorMapEncodeTiled: " + std::to_string(code);
  return code == CUDA_SUCCESS;
}

int stream_bytes(const Stream& s) {
  if (s.warps == 0) return 0;  // and nothing else of it is set
  return s.warps * s.stages * s.copies * s.copy_rows * kRowBytes / s.panels;
}

template <typename Kernel, typename Arguments>
bool launch(Kernel kernel, int threads, int smem, const Arguments& a) {
  const Request& r = a.request;
  cudaError_t code =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, smem);
  if (!code) {
    kernel<<<r.ctas, threads, smem, static_cast<cudaStream_t>(r.stream)>>>(a);
    code = cudaGetLastError();
  }
  if (code) error = cudaGetErrorString(code);
  return !code;
}

template <Method kFirst>
bool run_streams(const Request& r) {
  const Stream& s = r.streams[0];
  StreamsArguments a{{}, r};
  const bool boxes = kFirst == Method::kBoxes;
  if (boxes && !encode(&a.map, s.pool, s.rows * s.groups, s.copy_rows, s.panels)) return false;
  const int smem = kAlignment + stream_bytes(s) + stream_bytes(r.streams[1]);
  return launch(streams_kernel<kFirst>, kMostWarps * kWarpSize, smem, a);
}

template <int kKeys, int kStages, bool kWide = false>
bool run_corun(const Request& r) {
  const Stream& s = r.streams[0];
  const Corun& c = r.corun;
  CorunArguments a{{}, {}, r};
  const int64_t rows = c.tile_rows * c.groups;
  if (!encode(&a.boxes, c.tiles, rows, kKeys, 2) || !encode(&a.rows, c.tiles, rows, 1, 2)) {
    return false;
  }
  const int decoder = kWide ? kWideBytes : s.warps * s.stages * kPlaceBytes;
  const int smem =
      kAlignment + kGroups * kGroupRows * kRowBytes + Ring<kKeys, kStages>::kBytes + decoder;
  return launch(corun_kernel<kKeys, kStages, kWide>, kCorunThreads, smem, a);
}

// As many clusters as are resident at once: those that came later would be counted as if they were.
template <int kCtas>
bool run_share(const Request& r) {
  const Corun& c = r.corun;
  CorunArguments a{{}, {}, r};
  if (!encode(&a.boxes, c.tiles, c.tile_rows * c.groups, kShareKeys / kCtas, 2)) return false;
  const int smem = kAlignment + kGroups * kGroupRows * kRowBytes + ShareRing::kBytes +
                   static_cast<int>(kWideBytes);
  const auto kernel = share_kernel<kCtas>;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kCtas, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(r.ctas / kCtas * kCtas);
  config.blockDim = dim3(kCorunThreads);
  config.dynamicSmemBytes = smem;
  config.stream = static_cast<cudaStream_t>(r.stream);
  config.attrs = &cluster;
  config.numAttrs = 1;
  int clusters = 0;
  cudaError_t code =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, smem);
  if (!code) code = cudaOccupancyMaxActiveClusters(&clusters, kernel, &config);
  if (!code) {
    config.gridDim = dim3(std::min(r.ctas / kCtas, clusters) * kCtas);
    code = cudaLaunchKernelEx(&config, kernel, a);
  }
  if (code) error = cudaGetErrorString(code);
  return !code;
}

bool run(const Request& r) {
  switch (r.kernel) {
    case 0:
      return run_streams<Method::kBulk>(r);
    case 1:
      return run_streams<Method::kBoxes>(r);
    case 2:
      return run_streams<Method::kCopies>(r);
    case 3:
      return run_corun<128, 2>(r);
    case 4:
      return run_corun<64, 4>(r);
    case 5:
      return run_corun<128, 2, true>(r);
    case 6:
      return run_share<1>(r);
    case 7:
      return run_share<2>(r);
    case 8:
      return run_share<4>(r);
    default:
      error = "no such kernel";
      return false;
  }
}

}  // namespace
}  // namespace pod::walls

#define POD_EXPORT extern "C" __attribute__((visibility("default")))

// Launches on the request's stream of the current device. 0, or 1 and pod_error().
POD_EXPORT int pod_walls_run(const pod::walls::Request* request) {
  return pod::walls::run(*request) ? 0 : 1;
}

// Names of the kernels, a line each, in the order of Request::kernel.
POD_EXPORT const char* pod_walls_kernels() { return pod::walls::kKernels; }

// Bytes of Request, Stream, Corun and Record, as those who pack them check.
POD_EXPORT void pod_walls_sizes(int* sizes) {
  sizes[0] = sizeof(pod::walls::Request);
  sizes[1] = sizeof(pod::walls::Stream);
  sizes[2] = sizeof(pod::walls::Corun);
  sizes[3] = sizeof(pod::walls::Record);
}

// The calling thread's last error.
POD_EXPORT const char* pod_error() { return pod::walls::error.c_str(); }
