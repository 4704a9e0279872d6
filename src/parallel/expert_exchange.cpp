#include "grist/parallel/expert_exchange.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "exchange_memory.h"
#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/nn/model.h"
#include "grist/ops/dispatch.h"

namespace grist::parallel {

namespace {

using nn::ExpertPass;
using nn::ExpertRows;
using Kind = nn::ExpertPass::Kind;

struct Range {
  std::int64_t begin = 0, end = 0;
};

TensorView rows_of(const TensorView& v, Range r) {
  return rows(v, r.begin, r.end);
}

// One value a row, as a matrix of one column.
TensorView column(const TensorView& v) {
  return reshape(v, {v.numel(), 1});
}

std::span<std::byte> bytes_of(const TensorView& v) {
  return {static_cast<std::byte*>(v.data), v.bytes()};
}

class RowExchange final : public nn::ExpertExchange {
 public:
  RowExchange(const Group& group, const ExchangeSizes& sizes, Device device, MemoryLedger* ledger)
      : numbers_(group.host()),
        group_(group.tensors()),
        memory_(sizes, device, ledger),
        numbers_of_(static_cast<std::size_t>(sizes.layers)),
        at_source_(static_cast<std::size_t>(sizes.sources * sizes.chunks)),
        at_owner_(at_source_.size()),
        arriving_(static_cast<std::size_t>(sizes.chunks)) {}

  std::int64_t first_expert() const override { return sizes().first_expert; }
  std::int64_t num_experts() const override { return sizes().experts; }
  std::int64_t sources() const override { return sizes().sources; }
  int chunks() const override { return static_cast<int>(sizes().chunks); }
  std::int64_t growths() const override { return memory_.growths(); }

  void begin(const Context& ctx, const ExpertPass& pass) override {
    pass_ = pass;
    layer_ = static_cast<std::int64_t>(pass.layer) - sizes().first_layer;
    GRIST_CHECK(0 <= layer_ && layer_ < sizes().layers, "layer {} has no experts", pass.layer);
    if (pass.kind == Kind::forward) exchange_counts(ctx);
    find_ranges();
    if (pass.kind == Kind::forward) {
      memory_.make_room(layer_, rows_here_);
      regroup(ctx);
    }
    arrays_ = memory_.arrays(layer_);
    const std::int64_t sent = numbers().offsets.back();
    ops::gather_rows(
        ctx,
        {.y = rows(pass.rows, 0, sent), .x = pass.tokens, .index = rows(pass.row_token, 0, sent)});
    const TensorView arrived = pass.kind == Kind::backward ? arrays_.dy : arrays_.x;
    for (int c = 0; c < chunks(); ++c)
      arriving_[static_cast<std::size_t>(c)] = send_chunk(c, pass.rows, arrived);
    if (pass.kind == Kind::forward && arrays_.row_weight) send_weights();
  }

  ExpertRows arrive(const Context& /*ctx*/, int chunk) override {
    arriving_[static_cast<std::size_t>(chunk)].wait();
    const RowTables& t = memory_.tables(layer_);
    const std::int64_t first = first_of(chunk), count = first_of(chunk + 1) - first, S = sources();
    return {.first = first,
            .count = count,
            .x = arrays_.x,
            .dy = arrays_.dy,
            .row_token = arrays_.row_received,
            .row_weight = arrays_.row_weight,
            .expert_offsets = reshape(rows(t.chunk_offsets, chunk, chunk + 1), {num_experts() + 1}),
            .source_offsets = rows(t.source_offsets, first * S, (first + count) * S + 1),
            .z = arrays_.z,
            .a = arrays_.a,
            .rows = arrays_.rows,
            .dz = arrays_.dz,
            .drow_weight = arrays_.drow_weight};
  }

  void give_back(const Context& ctx, int chunk) override {
    pack(ctx, chunk, arrays_.packed, arrays_.rows);
    others_.push_back(return_chunk(chunk, pass_.rows, arrays_.packed));
    if (pass_.kind != Kind::backward) return;
    pack(ctx, chunk, column(arrays_.weights), column(arrays_.drow_weight));
    others_.push_back(return_chunk(chunk, pass_.drow_weight, arrays_.weights));
  }

  void finish(const Context& ctx) override {
    for (comm::Pending& p : others_) p.wait();
    others_.clear();
    if (pass_.kind != Kind::forward || !arrays_.row_weight) return;
    const Range all = {0, rows_here_};
    ops::gather_rows(ctx, {.y = column(rows_of(arrays_.row_weight, all)),
                           .x = column(arrays_.weights),
                           .index = rows_of(arrays_.row_received, all)});
  }

 private:
  const ExchangeSizes& sizes() const { return memory_.sizes(); }
  std::int64_t first_of(std::int64_t chunk) const { return num_experts() * chunk / sizes().chunks; }
  std::size_t at(std::int64_t rank, std::int64_t chunk) const {
    return static_cast<std::size_t>(rank * sizes().chunks + chunk);
  }

  // What the host must know of a layer's rows, from its forward pass on.
  struct Numbers {
    std::vector<std::int32_t> offsets;  // (E+1) of the source's plan
    std::vector<std::int32_t> counts;   // (S, El) rows that come
  };
  const Numbers& numbers() const { return numbers_of_[static_cast<std::size_t>(layer_)]; }

  // How many rows go to each expert, and how many come for those here from each source.
  void exchange_counts(const Context& ctx) {
    const std::int64_t E = pass_.expert_offsets.numel() - 1, S = sources(), held = num_experts();
    GRIST_CHECK(E == S * held, "{} experts, {} ranks with {}", E, S, held);
    Numbers& n = numbers_of_[static_cast<std::size_t>(layer_)];
    n.offsets = to_host<std::int32_t>(ctx, pass_.expert_offsets);
    n.counts.resize(static_cast<std::size_t>(E));
    const std::vector<std::int32_t>& offsets = n.offsets;
    std::vector<std::int32_t> counts(static_cast<std::size_t>(E));
    for (std::size_t e = 0; e < counts.size(); ++e) counts[e] = offsets[e + 1] - offsets[e];
    std::vector<std::int64_t> cuts;
    for (std::int64_t p = 0; p <= S; ++p) cuts.push_back(p * held);
    comm::all_to_all(numbers_, {counts.data(), DType::i32, {E}}, cuts,
                     {n.counts.data(), DType::i32, {E}}, cuts)
        .wait();
    copy_in(ctx, memory_.tables(layer_).counts, n.counts.data());
  }

  // Where each chunk's rows lie: at the source in the order of its plan, at the owner by (source,
  // expert, token).
  void find_ranges() {
    const std::int32_t* offsets = numbers().offsets.data();
    const std::int32_t* counts = numbers().counts.data();
    rows_here_ = 0;
    for (std::int64_t p = 0; p < sources(); ++p) {
      for (std::int64_t c = 0; c < sizes().chunks; ++c) {
        const std::int64_t first = p * num_experts() + first_of(c);
        const std::int64_t last = p * num_experts() + first_of(c + 1);
        at_source_[at(p, c)] = {offsets[first], offsets[last]};
        Range& here = at_owner_[at(p, c)];
        here.begin = rows_here_;
        for (std::int64_t i = first; i < last; ++i) rows_here_ += counts[i];
        here.end = rows_here_;
      }
    }
  }

  void regroup(const Context& ctx) {
    const RowTables& t = memory_.tables(layer_);
    const RowArrays arrays = memory_.arrays(layer_);
    ops::regroup_plan(ctx, {.expert_offsets = t.expert_offsets,
                            .source_offsets = t.source_offsets,
                            .row_received = arrays.row_received,
                            .received_row = arrays.received_row,
                            .counts = t.counts});
    std::vector<std::int32_t> offsets = {0};  // of the experts here, as regroup_plan finds them
    for (std::int64_t e = 0; e < num_experts(); ++e) {
      std::int32_t rows_of_e = 0;
      for (std::int64_t p = 0; p < sources(); ++p)
        rows_of_e += numbers().counts[static_cast<std::size_t>(p * num_experts() + e)];
      offsets.push_back(offsets.back() + rows_of_e);
    }
    std::vector<std::int32_t> of_chunks;
    for (std::int64_t c = 0; c < sizes().chunks; ++c) {
      const auto at = [&](std::int64_t e) { return offsets[static_cast<std::size_t>(e)]; };
      for (const std::int32_t offset : offsets)
        of_chunks.push_back(std::clamp(offset, at(first_of(c)), at(first_of(c + 1))));
    }
    copy_in(ctx, t.chunk_offsets, of_chunks.data());
  }

  comm::Pending send_chunk(std::int64_t chunk, const TensorView& source, const TensorView& owner) {
    std::vector<comm::Send> sends;
    std::vector<comm::Receive> receives;
    for (int p = 0; p < group_.size(); ++p) {
      sends.push_back({p, bytes_of(rows_of(source, at_source_[at(p, chunk)]))});
      receives.push_back({p, bytes_of(rows_of(owner, at_owner_[at(p, chunk)]))});
    }
    return group_.exchange(sends, receives);
  }

  comm::Pending return_chunk(std::int64_t chunk, const TensorView& source,
                             const TensorView& owner) {
    std::vector<comm::Send> sends;
    std::vector<comm::Receive> receives;
    for (int p = 0; p < group_.size(); ++p) {
      sends.push_back({p, bytes_of(rows_of(owner, at_owner_[at(p, chunk)]))});
      receives.push_back({p, bytes_of(rows_of(source, at_source_[at(p, chunk)]))});
    }
    return group_.exchange(sends, receives);
  }

  // The weights of all rows, for the backward pass.
  void send_weights() {
    std::vector<comm::Send> sends;
    std::vector<comm::Receive> receives;
    const std::int64_t last = sizes().chunks - 1;
    for (int p = 0; p < group_.size(); ++p) {
      const Range there = {at_source_[at(p, 0)].begin, at_source_[at(p, last)].end};
      const Range here = {at_owner_[at(p, 0)].begin, at_owner_[at(p, last)].end};
      const ConstTensorView weights = rows(pass_.row_weight, there.begin, there.end);
      sends.push_back({p, {static_cast<const std::byte*>(weights.data), weights.bytes()}});
      receives.push_back({p, bytes_of(rows_of(arrays_.weights, here))});
    }
    others_.push_back(group_.exchange(sends, receives));
  }

  // A chunk's rows, grouped, into the order in which they came.
  void pack(const Context& ctx, std::int64_t chunk, const TensorView& packed,
            const TensorView& grouped) const {
    for (std::int64_t p = 0; p < sources(); ++p) {
      const Range here = at_owner_[at(p, chunk)];
      ops::gather_rows(
          ctx,
          {.y = rows_of(packed, here), .x = grouped, .index = rows_of(arrays_.received_row, here)});
    }
  }

  comm::Communicator& numbers_;  // of the group, on the host
  comm::Communicator& group_;    // where the rows lie
  ExchangeMemory memory_;
  std::vector<Numbers> numbers_of_;  // MoE layers
  // The pass under way.
  ExpertPass pass_;
  std::int64_t layer_ = 0;  // counts MoE layers
  std::int64_t rows_here_ = 0;
  RowArrays arrays_;
  std::vector<Range> at_source_, at_owner_;  // (S, chunks)
  std::vector<comm::Pending> arriving_;      // a chunk each
  std::vector<comm::Pending> others_;
};

ExchangeSizes sizes_of(const Group& group, const Config& config, std::int64_t tokens, nn::Keep keep,
                       DType dtype) {
  const ModelConfig& model = config.model;
  const MoeConfig& moe = model.moe;
  const std::int64_t S = group.size(), held = moe.num_experts / S, K = moe.num_experts_per_tok;
  ExchangeSizes s;
  s.sources = S;
  s.first_expert = group.rank() * held;
  s.experts = held;
  s.chunks = config.parallel.overlap_expert_exchange && held >= 2 ? 2 : 1;
  s.hidden = model.hidden_size;
  s.intermediate = moe.moe_intermediate_size;
  s.layers = model.num_moe_layers();
  s.first_layer = model.first_moe_layer();
  s.balanced_rows = tokens * K;
  s.most_rows = S * tokens * std::min(K, held);
  const std::int64_t capacity =
      keep == nn::Keep::nothing ? 0 : nn::expert_capacity(moe, tokens);  // evaluation is dropless
  if (capacity > 0) s.most_rows = std::min(s.most_rows, S * held * capacity);
  const double room =
      std::ceil(config.parallel.expert_receive_factor * static_cast<double>(s.balanced_rows));
  s.room = room < static_cast<double>(s.most_rows) ? static_cast<std::int64_t>(room) : s.most_rows;
  s.keep = keep;
  s.dtype = dtype;
  return s;
}

}  // namespace

std::unique_ptr<nn::ExpertExchange> make_expert_exchange(const Group& group, const Config& config,
                                                         std::int64_t tokens, nn::Keep keep,
                                                         Device device, DType dtype,
                                                         MemoryLedger* ledger) {
  const MoeConfig& moe = config.model.moe;
  if (group.size() == 1 || moe.num_experts == 0) return nullptr;
  GRIST_CHECK(moe.num_experts % group.size() == 0, "{} experts on {} ranks", moe.num_experts,
              group.size());
  return std::make_unique<RowExchange>(group, sizes_of(group, config, tokens, keep, dtype), device,
                                       ledger);
}

}  // namespace grist::parallel
