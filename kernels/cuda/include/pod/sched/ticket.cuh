// ticket.cuh: the SM-aware CTA scheduler: which items a CTA runs.
//
// CTAs are dispatched to SMs in an order that nobody promises, so a CTA decides what it is only
// once it runs: it draws the next ticket of its SM, and the CTA ratio turns the ticket into an
// op. So every SM holds both ops in the wanted ratio while both remain.
// Source: Kamath et al., POD-Attention, ASPLOS 2025, arXiv:2410.18038, section 4.1.
#pragma once

#include "pod/arguments.h"
#include "pod/config.h"
#include "pod/ptx/sync.cuh"

namespace pod::sched {

struct Ticket {
  Op op;
  int first;   // first item
  int count;   // items, at least 1 unless the plan has fewer CTAs than the grid
  int number;  // drawn from its SM's counter; -1: none
};

// Ticket t of P:D is a prefill iff it begins a new P-th of the round: spread evenly, prefill
// first, for any ratio. 0:D and P:0 give one op only.
POD_DEVICE Op op_of_ticket(int ticket, int prefill, int decode) {
  const int round = prefill + decode;
  return ticket % round * prefill % round < prefill ? Op::kPrefill : Op::kDecode;
}

// CTA number `index` of op `op`: a prefill CTA takes one item, a decode CTA up to `virtual_decode`.
POD_DEVICE Ticket ticket_of(const PlanHeader& plan, Op op, int index, int virtual_decode,
                            int number) {
  if (op == Op::kPrefill) return {op, index, min(1, max(0, plan.prefill_items - index)), number};
  const int first = index * virtual_decode;
  return {op, first, min(virtual_decode, max(0, plan.decode_items - first)), number};
}

// Draws for the calling CTA; one thread calls it. Counters are zero when the launch begins. A CTA
// of an exhausted op takes one of the other; a grid larger than the plan leaves some without work.
// The ticket is drawn before the plan is read, so that neither waits for the other.
POD_DEVICE Ticket draw(const KernelArguments& a, const PlanHeader& plan, int virtual_decode) {
  auto* counters = reinterpret_cast<Counters*>(a.counters);
  // An id past the slots shares a counter: the ratio then holds for the pair of SMs.
  const int slot = static_cast<int>(ptx::smid() % static_cast<uint32_t>(a.sm_slots));
  const int number = ptx::atomic_add(&counters->ticket[slot], 1);
  if (plan.ratio_prefill + plan.ratio_decode == 0) return {Op::kPrefill, 0, 0, -1};
  Op op = op_of_ticket(number, plan.ratio_prefill, plan.ratio_decode);
  int index = ptx::atomic_add(&counters->next[static_cast<int>(op)], 1);
  Ticket ticket = ticket_of(plan, op, index, virtual_decode, number);
  if (ticket.count > 0) return ticket;
  op = op == Op::kPrefill ? Op::kDecode : Op::kPrefill;
  index = ptx::atomic_add(&counters->next[static_cast<int>(op)], 1);
  return ticket_of(plan, op, index, virtual_decode, number);
}

// Lane 0's.
POD_DEVICE Ticket broadcast(const Ticket& ticket) {
  return {static_cast<Op>(ptx::shfl(static_cast<int>(ticket.op), 0)), ptx::shfl(ticket.first, 0),
          ptx::shfl(ticket.count, 0), ptx::shfl(ticket.number, 0)};
}

}  // namespace pod::sched
