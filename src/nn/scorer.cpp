#include "grist/nn/scorer.h"

#include <algorithm>
#include <numeric>

#include "cached_layers.h"
#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/core/uploads.h"
#include "grist/ops/cross_entropy.h"
#include "grist/ops/embedding.h"

namespace grist::nn {

namespace {

struct RowCopy {  // `count` rows from `from` of a tensor of all tokens, in order of the target
  std::int64_t from = 0, count = 0;
};

void append(std::vector<RowCopy>& copies, const RowCopy& next) {
  if (!copies.empty() && copies.back().from + copies.back().count == next.from) {
    copies.back().count += next.count;
  } else {
    copies.push_back(next);
  }
}

void gather(const Context& ctx, const TensorView& to, const TensorView& from,
            const std::vector<RowCopy>& copies) {
  std::int64_t at = 0;
  for (const RowCopy& c : copies) {
    copy(ctx, rows(to, at, at + c.count), rows(from, c.from, c.from + c.count));
    at += c.count;
  }
}

// The pieces as the operations take them. A piece's keys are those of the pieces that it goes on
// from, then its own.
struct Plan {
  std::vector<std::int32_t> ids, positions, cu_q = {0}, cu_k = {0};
  std::vector<RowCopy> keys;

  Plan(const std::vector<TextPiece>& pieces, std::int64_t max_positions) {
    std::vector<std::int64_t> first_row, first_position;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const TextPiece& p = pieces[i];
      GRIST_CHECK(p.parent < static_cast<std::int64_t>(i) && !p.tokens.empty(),
                  "piece {} goes on from piece {} with {} tokens", i, p.parent, p.tokens.size());
      const auto before = p.parent < 0
                              ? 0
                              : first_position[static_cast<std::size_t>(p.parent)] +
                                    std::ssize(pieces[static_cast<std::size_t>(p.parent)].tokens);
      const std::int64_t end = before + std::ssize(p.tokens);
      GRIST_CHECK(end <= max_positions, "{} positions, the model has {}", end, max_positions);
      first_row.push_back(std::ssize(ids));
      first_position.push_back(before);
      ids.insert(ids.end(), p.tokens.begin(), p.tokens.end());
      for (std::int64_t t = before; t < end; ++t) positions.push_back(static_cast<std::int32_t>(t));
      std::vector<std::size_t> path;
      for (auto at = static_cast<std::int64_t>(i); at >= 0;
           at = pieces[static_cast<std::size_t>(at)].parent)
        path.push_back(static_cast<std::size_t>(at));
      for (auto at = path.rbegin(); at != path.rend(); ++at)
        append(keys, {first_row[*at], std::ssize(pieces[*at].tokens)});
      cu_q.push_back(static_cast<std::int32_t>(ids.size()));
      cu_k.push_back(cu_k.back() + static_cast<std::int32_t>(end));
    }
  }
  std::int64_t tokens() const { return std::ssize(ids); }
};

ConstTensorView host(const std::vector<std::int32_t>& v) {
  return {v.data(), DType::i32, {std::ssize(v)}};
}

}  // namespace

std::vector<float> Scorer::score(const Context& ctx, const std::vector<TextPiece>& pieces,
                                 const std::vector<TokenQuery>& queries) const {
  if (queries.empty()) return {};
  const ModelConfig& c = model_.config();
  const Parameters& p = model_.parameters();
  const ops::WeightView& head = p.output().compute;
  const Plan plan(pieces, c.max_position_embeddings);
  std::vector<RowCopy> asked;
  std::vector<std::int32_t> target_ids;
  for (const TokenQuery& q : queries) {
    GRIST_CHECK(q.row >= 0 && q.row < plan.tokens() && q.target >= 0 && q.target < c.vocab_size,
                "token {} behind row {} of {}", q.target, q.row, plan.tokens());
    append(asked, {q.row, 1});
    target_ids.push_back(q.target);
  }
  Activations act(c, plan.tokens(), 1, Keep::nothing, head.device, nullptr, nullptr, head.dtype);
  Arena arena("scoring", head.device, nullptr);
  const Shape kv = {plan.cu_k.back(), c.num_key_value_heads, c.head_dim};
  const auto Q = std::ssize(queries);
  const std::size_t k_at = arena.reserve(head.dtype, kv), v_at = arena.reserve(head.dtype, kv),
                    x_at = arena.reserve(head.dtype, {Q, c.hidden_size}),
                    loss_at = arena.reserve(DType::f32, {Q});
  arena.commit();
  const KeysValues all = {arena.view(k_at, head.dtype, kv), arena.view(v_at, head.dtype, kv)};

  const Readable ids(ctx, host(plan.ids)), positions(ctx, host(plan.positions)),
      cu_q(ctx, host(plan.cu_q)), cu_k(ctx, host(plan.cu_k)), targets(ctx, host(target_ids));
  if (model_.router_values_)
    copy_in(ctx, model_.router_values_, router_values(model_.router_state_).data());
  ops::embedding_forward(ctx,
                         {.y = act.layers[0].h_in, .table = p.embedding.master, .ids = ids.view()});
  const AttentionInput in{positions.view(), cu_q.view(), cu_k.view(), model_.rope_table_};
  const auto keys = [&](std::size_t, const LayerActivations& a) {
    gather(ctx, all.k, a.k, plan.keys);
    gather(ctx, all.v, a.v, plan.keys);
    return all;
  };
  final_norm(ctx, c, p, act, run_cached_layers(ctx, model_, model_.router_values_, act, in, keys));
  const TensorView x = arena.view(x_at, head.dtype, {Q, c.hidden_size});
  gather(ctx, x, act.n_final, asked);
  const TensorView losses = arena.view(loss_at, DType::f32, {Q});
  ops::linear_cross_entropy(ctx, {.losses = losses,
                                  .z = {},
                                  .dx = {},
                                  .dw = {},
                                  .x = x,
                                  .w = head,
                                  .targets = targets.view(),
                                  .grad_scale = {}});
  return to_host<float>(ctx, losses);
}

}  // namespace grist::nn
