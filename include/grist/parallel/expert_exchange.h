#pragma once
// Expert parallelism: rows of tokens travel to the rank that holds their expert, and results back,
// over an expert-parallel group (nn/expert_exchange.h has the protocol, docs/routing.md the rules).
//
// The source sends the rows that its plan kept, sorted by expert and so by rank; capacity is
// decided there, and a dropped row never travels. The owner gets them in the order (source, expert,
// token) and presents them to the grouped matmuls as (expert, source, token). A row's result
// depends on the row and the weights alone, so outputs and input gradients have the bits of a
// single rank; so has the weight gradient of one source's rows.
//
// Kept for the backward pass: the received x and z with `recompute: none`, else only counts, order
// and row weights; the rows are then sent again. Space for received rows is
// parallel.expert_receive_factor times balanced and grows, with a warning, when more come.
#include <memory>

#include "grist/config/config.h"
#include "grist/nn/activations.h"
#include "grist/parallel/layout.h"

namespace grist::parallel {

// Null when the group has one rank: all experts are here. `group` stays the caller's and outlives
// the exchange; `tokens`, `keep` and `dtype` are those of the activations that the exchange is for.
// Bytes go to `ledger` as "expert exchange ...". On a GPU a forward pass waits once a layer for the
// device: how many rows go where must be known here.
std::unique_ptr<nn::ExpertExchange> make_expert_exchange(const Group& group, const Config& config,
                                                         std::int64_t tokens, nn::Keep keep,
                                                         Device device, DType dtype,
                                                         MemoryLedger* ledger);

}  // namespace grist::parallel
