// dependents.cuh: runs the wrappers of ptx/dependents.cuh.
//
// A first launch lets the second start and writes late; the second copies what it wrote.
#pragma once

#include "pod/ptx/dependents.cuh"
#include "pod/ptx/launch.cuh"
#include "pod/ptx/sync.cuh"
#include "sections.cuh"

namespace pod {
namespace {

constexpr uint64_t kLateNs = 20000;

POD_GLOBAL(kCtaThreads, 1) early_kernel(const POD_GRID_CONSTANT ConformanceArguments a) {
  ptx::let_dependents_start();
  const uint64_t begin = ptx::globaltimer();
  while (ptx::globaltimer() - begin < kLateNs) continue;
  const int cta = ptx::cta_index();
  if (ptx::thread_index() != 0) return;
  section<kCtaCount>(a)[cta] = static_cast<uint32_t>(ptx::cta_count());
  section<kLetDependentsStart>(a)[cta] = a.words[cta];
}

POD_GLOBAL(kCtaThreads, 1) dependent_kernel(const POD_GRID_CONSTANT ConformanceArguments a) {
  const int cta = ptx::cta_index();
  ptx::wait_for_launch_before();
  if (ptx::thread_index() != 0) return;
  section<kWaitForLaunchBefore>(a)[cta] = section<kLetDependentsStart>(a)[cta];
  section<kLaunchDependent>(a)[cta] = static_cast<uint32_t>(ptx::cta_count() - cta);
}

ptx::Error launch_dependents(const ConformanceArguments& a) {
  const ptx::Error code = ptx::launch(early_kernel, kCtas, kCtaThreads, 0, a.stream, a);
  return code ? code : ptx::launch_dependent(dependent_kernel, kCtas, kCtaThreads, a.stream, a);
}

}  // namespace
}  // namespace pod
