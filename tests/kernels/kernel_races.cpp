// kernel_races.cpp: the CUDA kernel on small batches, for ThreadSanitizer to watch.
//
// kernel_races SHAPE [BUG] runs SHAPE under every schedule, with the planted bug BUG switched on
// where the kernel was built with planted bugs. Exit code 0, 2 for a wrong answer or a wrong call;
// ThreadSanitizer's own says that it saw a race.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#include "plan.h"
#include "pod/arguments.h"

#ifdef POD_PLANTED
extern "C" int pod_mutant;
#endif
extern "C" int pod_launch(const pod::LaunchArguments* arguments);
extern "C" const char* pod_error();
extern "C" void pod_emulator_configure(int num_sms, int ctas_per_sm, int order, int copies,
                                       int preempt_percent, int seed);

namespace {

using namespace pod;

constexpr int kDim = POD_HEAD_DIM, kPageSize = 16, kHeads = 4, kKvHeads = 2, kSms = 2;
constexpr uint16_t kOne = 0x3F80;  // bf16

struct Shape {
  const char* name;
  std::vector<int> q_lens, kv_lens;
};
const Shape kShapes[] = {
    {"hybrid", {40, 1, 1, 9}, {90, 130, 47, 20}},
    {"decode", {1, 1, 1}, {150, 64, 33}},
    {"tiles", {40, 1, 1, 1, 1}, {1000, 200, 200, 200, 200}},
};

struct Schedule {
  int order, copies, preempt_percent;
};
constexpr Schedule kSchedules[] = {{0, 0, 0}, {1, 0, 20}, {2, 1, 30}};

std::vector<int32_t> sums(const std::vector<int>& lens) {
  std::vector<int32_t> result(lens.size() + 1);
  std::partial_sum(lens.begin(), lens.end(), result.begin() + 1);
  return result;
}

// A batch in memory. V is all ones, so whatever the weights are, every output is one.
struct Batch {
  std::vector<int32_t> q_indptr, kv_lens, page_indices, plan;
  std::vector<int64_t> page_starts;
  std::vector<uint16_t> q, k, v, out;
  std::vector<float> lse, partial_o;
  std::vector<RowSums> partial_sums;
  std::vector<int32_t> counters;
  LaunchArguments arguments{};

  explicit Batch(const Shape& shape) : q_indptr(sums(shape.q_lens)), kv_lens(shape.kv_lens) {
    for (int length : kv_lens) {
      page_starts.push_back(static_cast<int64_t>(page_indices.size()));
      for (int page = 0; page * kPageSize < length; ++page) {
        page_indices.push_back(static_cast<int>(page_indices.size()));
      }
    }
    q.resize(size_t(q_indptr.back()) * kHeads * kDim);
    k.resize(page_indices.size() * kPageSize * kKvHeads * kDim);
    // Below one, of either sign.
    for (size_t i = 0; i < q.size(); ++i) q[i] = uint16_t(0x3E00 | (i * 40503 & 0x807F));
    for (size_t i = 0; i < k.size(); ++i) k[i] = uint16_t(0x3E00 | (i * 30011 & 0x807F));
    v.assign(k.size(), kOne);
    out.assign(q.size(), 0);
    lse.resize(q.size() / kDim);
    set_plan();
    set_arguments();
  }

 private:
  void set_plan() {
    constexpr PodConfig tiles{
        {POD_PREFILL_Q_ROWS, POD_PREFILL_KV_ROWS, POD_PREFILL_STAGES, POD_PREFILL_WARPS},
        {POD_DECODE_Q_ROWS, POD_DECODE_KV_ROWS, POD_DECODE_STAGES, POD_DECODE_WARPS},
        POD_CTAS_PER_SM,
        POD_VIRTUAL_DECODE};
    const PlanProblem problem{q_indptr.data(),
                              kv_lens.data(),
                              static_cast<int>(kv_lens.size()),
                              kKvHeads,
                              kHeads / kKvHeads,
                              kDim,
                              sizeof(uint16_t),
                              -1,
                              kSms,
                              0};
    const Plan made = make_plan(problem, {tiles, 0, 0, 4, 48, Strategy::kFused});
    plan.resize(made.header.words);
    write_plan(made, plan.data());
    counters.resize(counter_bytes(kSms) / 4);
    partial_sums.resize(made.header.partial_rows);
    partial_o.resize(size_t(made.header.partial_rows) * kDim);
    arguments.prefill_ctas = made.prefill_ctas;
    arguments.decode_ctas = made.decode_ctas;
    arguments.merge_ctas = made.header.merge_blocks;
  }

  void set_arguments() {
    LaunchArguments& a = arguments;
    a.q = q.data(), a.k = k.data(), a.v = v.data(), a.out = out.data(), a.lse = lse.data();
    a.q_head = a.out_head = kDim;
    a.q_token = a.out_token = kHeads * kDim;
    constexpr uint32_t kChunks = kDim / 8;
    a.k_strides = a.v_strides = {kPageSize * kKvHeads * kChunks, kKvHeads * kChunks, kChunks};
    a.lse_token = kHeads, a.lse_head = 1;
    a.page_indices = page_indices.data(), a.page_starts = page_starts.data();
    a.requests = static_cast<int>(page_starts.size());
    a.plan = plan.data(), a.counters = counters.data();
    a.partial_o = partial_o.data(), a.partial_sums = partial_sums.data();
    a.group = kHeads / kKvHeads, a.page_size = kPageSize, a.window_left = -1;
    a.group_divider = divider(a.group), a.page_divider = divider(kPageSize);
    a.score_scale = 0.1f, a.logit_scale = 0.07f, a.value_scale = 1.0f, a.sm_slots = kSms;
  }
};

int run(const Shape& shape, const Schedule& schedule, bool planted) {
  Batch batch(shape);
  pod_emulator_configure(kSms, POD_CTAS_PER_SM, schedule.order, schedule.copies,
                         schedule.preempt_percent, 1);
  if (pod_launch(&batch.arguments)) {
    std::fprintf(stderr, "%s: %s\n", shape.name, pod_error());
    return 2;
  }
  // A bug may spoil the answer; what counts then is whether its race was seen.
  for (size_t i = 0; i < batch.out.size() && !planted; ++i) {
    if (batch.out[i] == kOne) continue;
    std::fprintf(stderr, "%s: element %zu of out is %#x\n", shape.name, i, batch.out[i]);
    return 2;
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  bool planted = false;
#ifdef POD_PLANTED
  if (count == 3) pod_mutant = std::atoi(words[2]);
  planted = pod_mutant != 0;
#endif
  for (const Shape& shape : kShapes) {
    if (count < 2 || std::strcmp(words[1], shape.name)) continue;
    for (const Schedule& schedule : kSchedules) {
      if (const int code = run(shape, schedule, planted)) return code;
    }
    return 0;
  }
  std::fprintf(stderr, "usage: kernel_races hybrid|decode|tiles [BUG]\n");
  return 2;
}
