// emulator_dependents.cpp: launches whose threads wait for the launch before.

#include <cmath>

#include "emulator_unit.h"
#include "pod/ptx/dependents.cuh"

using namespace unit;

namespace {

constexpr int kCtas = 3;
float handed[kCtas] = {1.f, 2.f, 3.f};

template <class Body>
int launch_dependent(Body body, int threads = 32) {
  return emulator::launch_dependent(body, kCtas, threads, {{handed, sizeof handed}});
}

}  // namespace

CASE(what_is_handed_over_is_there_once_a_thread_has_waited) {
  configure(kAscending);
  bool first = true, hidden = false;
  float sum = 0.f;
  const int code = launch_dependent([&] {
    if (first) hidden = std::isnan(handed[0]);
    first = false;
    ptx::wait_for_launch_before();
    if (thread_index() == 0) sum += handed[cta_index()];
  });
  expect(code == 0, pod_emulator_error());
  expect(hidden, "what the first thread to run finds before it waits");
  expect(sum == 6.f, "what was read after the wait");
}

CASE(a_thread_of_a_dependent_launch_that_does_not_wait) {
  configure(kAscending);
  const int code = launch_dependent([] {
    if (thread_index() != 5) ptx::wait_for_launch_before();
  });
  const std::string text = pod_emulator_error();
  expect(code == 1, "no error");
  expect(text.find("without wait_for_launch_before()") != std::string::npos, text);
  expect(text.find("thread 5]") != std::string::npos, text);
  expect(handed[0] == 1.f && handed[2] == 3.f, "a launch that failed leaves memory as it was");
  expect_runs([] {});
}

CASE(a_plain_launch_need_not_wait) {
  configure(kDescending);
  float first = 0.f;
  expect_runs([&] {
    ptx::let_dependents_start();
    first = handed[0];
    ptx::wait_for_launch_before();
  });
  expect(first == 1.f, "memory is as it was");
}

CASE(the_grid_is_known_to_its_ctas) {
  int seen = 0;
  expect_runs([&] { seen += thread_index() == 0 && ptx::cta_count() == 5; }, 32, 5);
  expect(seen == 5, "cta_count()");
}
