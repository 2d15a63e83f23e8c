// plan.cpp: items, KV splits and their costs.

#include "pod/cpu/plan.h"

#include <algorithm>

namespace pod::cpu {
namespace {

// What one core of a current server part does in a microsecond, roughly.
constexpr double kMultiplyAddsPerMicro = 40e3;
constexpr double kBytesPerMicro = 10e3;

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Appends the item as `splits` ranges of whole tiles.
void add_split(const Problem& p, Item item, int tile, int splits, Plan& plan,
               std::vector<Item>& items) {
  const int tiles = ceil_div(item.kv1 - item.kv0, tile);
  splits = std::min(splits, tiles);
  const int begin = item.kv0, end = item.kv1;
  const int64_t cost = item.cost;
  item.split_group = -1;
  if (splits > 1) {
    item.split_group = static_cast<int>(plan.groups.size());
    plan.groups.push_back(
        {item.request, item.kv_head, item.row0, item.rows, splits, splits, nullptr});
    plan.partial_floats += int64_t{splits} * item.rows * (p.head_dim + 2);
  }
  for (int s = 0; s < splits; ++s) {
    item.split = s;
    item.kv0 = begin + static_cast<int>(int64_t{tiles} * s / splits) * tile;
    item.kv1 = std::min(end, begin + static_cast<int>(int64_t{tiles} * (s + 1) / splits) * tile);
    item.cost = std::max<int64_t>(1, cost * (item.kv1 - item.kv0) / (end - begin));
    items.push_back(item);
  }
}

template <typename Visit>
void for_each_prefill_block(const Problem& p, const PodConfig& config, Visit visit) {
  for (int b = 0; b < p.num_requests; ++b) {
    const int q_len = p.q_indptr[b + 1] - p.q_indptr[b];
    if (q_len < 2) continue;
    const int rows = q_len * p.group, offset = p.kv_lens[b] - q_len;
    for (int row = 0; row < rows; row += config.prefill.q_rows) {
      const int count = std::min(config.prefill.q_rows, rows - row);
      const int first = offset + row / p.group;
      const int begin = p.window_left >= 0 ? std::max(0, first - p.window_left) : 0;
      const int end = offset + (row + count - 1) / p.group + 1;
      for (int head = 0; head < p.num_kv_heads; ++head) {
        const int64_t cost = int64_t{2} * count * (end - begin) * p.head_dim;
        visit(Item{b, head, row, count, begin, end, -1, 0, cost});
      }
    }
  }
}

void plan_prefill(const Problem& p, const PodConfig& config, int threads, Plan& plan) {
  int64_t blocks = 0;
  for_each_prefill_block(p, config, [&](const Item&) { ++blocks; });
  if (blocks == 0) return;
  const int64_t slots = int64_t{config.max_prefill_waves} * threads * config.ctas_per_sm;
  const int splits = static_cast<int>(std::max<int64_t>(1, slots / blocks));
  for_each_prefill_block(p, config, [&](const Item& item) {
    add_split(p, item, config.prefill.kv_rows, splits, plan, plan.prefill);
  });
  std::stable_sort(plan.prefill.begin(), plan.prefill.end(),
                   [](const Item& a, const Item& b) { return a.cost > b.cost; });
}

void plan_decode(const Problem& p, const PodConfig& config, Plan& plan) {
  std::vector<Item>& items = plan.decode;
  for (int b = 0; b < p.num_requests; ++b) {
    if (p.q_indptr[b + 1] - p.q_indptr[b] != 1) continue;
    const size_t first = items.size();
    const int begin = first_visible(p, b), end = p.kv_lens[b];
    const int tile = config.decode_split_tokens ? config.decode_split_tokens : end - begin;
    for (int head = 0; head < p.num_kv_heads; ++head) {
      for (int row = 0; row < p.group; row += config.decode.q_rows) {
        const int count = std::min(config.decode.q_rows, p.group - row);
        const int64_t cost = int64_t{2} * (end - begin) * p.row_bytes;
        add_split(p, {b, head, row, count, begin, end, -1, 0, cost}, tile,
                  ceil_div(end - begin, tile), plan, items);
      }
    }
    std::stable_sort(items.begin() + first, items.end(),
                     [](const Item& a, const Item& b) { return a.kv0 < b.kv0; });
  }
}

}  // namespace

double Plan::micros() const {
  return static_cast<double>(prefill_cost) / kMultiplyAddsPerMicro +
         static_cast<double>(decode_cost) / kBytesPerMicro;
}

double Plan::prefill_share() const {
  const double total = micros();
  return total > 0 ? static_cast<double>(prefill_cost) / kMultiplyAddsPerMicro / total : 0.0;
}

int first_visible(const Problem& p, int request) {
  if (p.window_left < 0) return 0;
  const int q_len = p.q_indptr[request + 1] - p.q_indptr[request];
  return std::max(0, p.kv_lens[request] - q_len - p.window_left);
}

void make_plan(const Problem& p, const PodConfig& config, int threads, Plan& plan) {
  plan.prefill.clear();
  plan.decode.clear();
  plan.groups.clear();
  plan.partial_floats = 0;
  plan_prefill(p, config, threads, plan);
  plan_decode(p, config, plan);
  plan.prefill_cost = plan.decode_cost = 0;
  for (const Item& item : plan.prefill) plan.prefill_cost += item.cost;
  plan.decode_before.clear();
  for (const Item& item : plan.decode) {
    plan.decode_before.push_back(plan.decode_cost);
    plan.decode_cost += item.cost;
  }
  plan.decode_before.push_back(plan.decode_cost);
}

void place_partials(Plan& plan, int head_dim, float* base) {
  for (SplitGroup& group : plan.groups) {
    group.partial = base;
    base += int64_t{group.splits} * group.rows * (head_dim + 2);
  }
}

}  // namespace pod::cpu
