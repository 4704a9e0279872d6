// Cuts: every element has one owner, pieces begin at chunk edges, every rank knows every rank's.
#include "grist/parallel/shard_plan.h"

#include <map>
#include <set>

#include "grist/ops/optimizer.h"
#include "grist/optim/adamw.h"
#include "replay.h"

namespace grist::parallel {
namespace {

const AdamW kAdamW{OptimConfig{}};

struct Case {
  int world, ep;
  std::int64_t bucket;
};

nn::Parameters parameters_of(const ModelConfig& model, const Layout& layout) {
  const std::int64_t experts = model.moe.num_experts;
  return nn::Parameters(model, Device::cpu, false, nullptr,
                        {layout.first_expert(experts), layout.local_experts(experts)});
}

TEST(ShardPlan, SlicesTileEveryTensorOnceAndAllRanksAgree) {
  const nn::Parameters whole(small_model(), Device::cpu, false, nullptr);
  for (const Case c :
       {Case{1, 1, 1}, Case{2, 2, 1}, Case{8, 1, 4000}, Case{8, 4, 1 << 30}, Case{6, 2, 70000}}) {
    std::vector<std::vector<SlicePlan>> first;
    for (int rank = 0; rank < c.world; ++rank) {
      const Layout layout(c.world, rank, c.ep);
      const nn::Parameters parameters = parameters_of(small_model(), layout);
      const ShardPlan plan(parameters, layout, c.bucket, kAdamW);
      const std::vector<TensorPiece> own = plan.pieces();
      for (int other = 0; other < c.world; ++other) {
        const std::vector<SlicePlan> slices = plan.slices_of(other);
        if (rank == 0) first.push_back(slices);
        const std::vector<SlicePlan>& same = first[static_cast<std::size_t>(other)];
        ASSERT_EQ(slices.size(), same.size());
        for (std::size_t i = 0; i < slices.size(); ++i) {
          EXPECT_EQ(slices[i].name, same[i].name);
          EXPECT_EQ(slices[i].begin, same[i].begin);
          EXPECT_EQ(slices[i].end, same[i].end);
          EXPECT_EQ(slices[i].begin % ops::kNormChunk, 0);
          if (other == rank) {
            EXPECT_EQ(slices[i].name, parameters.tensors()[own[i].tensor].name);
            EXPECT_EQ(slices[i].begin, own[i].begin);
            EXPECT_EQ(slices[i].end, own[i].end);
          }
        }
      }
    }
    std::map<std::string, std::map<std::int64_t, std::int64_t>> pieces;
    for (const auto& slices : first)
      for (const SlicePlan& s : slices) EXPECT_TRUE(pieces[s.name].emplace(s.begin, s.end).second);
    ASSERT_EQ(pieces.size(), whole.tensors().size());
    for (const nn::NamedTensor& t : whole.tensors()) {
      std::int64_t at = 0;
      for (const auto& [begin, end] : pieces.at(t.name)) {
        EXPECT_EQ(begin, at) << t.name;
        at = end;
      }
      EXPECT_EQ(at, t.shape.numel()) << t.name;
    }
  }
}

TEST(ShardPlan, BucketsAreRunsOfGroupsOfAtLeastTheirSize) {
  const nn::Parameters parameters(small_model(), Device::cpu, false, nullptr);
  const auto last_groups = [&](std::int64_t size) {
    const ShardPlan plan(parameters, Layout(), size, kAdamW);
    std::vector<std::size_t> last;
    for (const Bucket& b : plan.buckets()) last.push_back(b.last_group);
    return last;
  };
  // The groups are the output (67 224 elements), three layers (about 5000 each), the embedding.
  EXPECT_EQ(last_groups(1), (std::vector<std::size_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(last_groups(7000), (std::vector<std::size_t>{0, 2, 4}));
  EXPECT_EQ(last_groups(1 << 30), (std::vector<std::size_t>{4}));
}

// Keeps no state; matrices must stay whole.
class WholeMatrices final : public UpdateRule {
 public:
  std::vector<std::string> states(const OptimizedTensor& /*tensor*/) const override { return {}; }
  CutRule cut(const OptimizedTensor& t) const override {
    return t.shape.rank() == 2 ? CutRule::whole : CutRule::chunks;
  }
  void apply(const Context& /*ctx*/, std::span<const UpdateItem> /*items*/,
             const UpdateStep& /*step*/) const override {}
};

TEST(ShardPlan, CutsWhereTheRuleAllows) {
  ModelConfig model = small_model();  // its embedding has more than one chunk
  model.moe.moe_intermediate_size = 6000;
  for (const Case c :
       {Case{2, 1, 1}, Case{8, 1, 1 << 30}, Case{8, 4, 1 << 30}, Case{6, 2, 70000}}) {
    const Layout layout(c.world, 0, c.ep);
    const nn::Parameters parameters = parameters_of(model, layout);
    std::map<std::string, int> owners_whole, owners_chunks;
    std::set<int> busy;
    for (int rank = 0; rank < c.world; ++rank) {
      for (const SlicePlan& s :
           ShardPlan(parameters, layout, c.bucket, WholeMatrices()).slices_of(rank)) {
        ++owners_whole[s.name];
        busy.insert(rank);
        EXPECT_EQ(s.begin, 0) << s.name;
        EXPECT_EQ(s.end, s.shape.numel()) << s.name;
      }
      for (const SlicePlan& s : ShardPlan(parameters, layout, c.bucket, kAdamW).slices_of(rank))
        ++owners_chunks[s.name];
    }
    EXPECT_EQ(busy.size(), static_cast<std::size_t>(c.world));
    EXPECT_EQ(owners_whole.size(), owners_chunks.size());
    EXPECT_TRUE(std::any_of(owners_chunks.begin(), owners_chunks.end(),
                            [](const auto& o) { return o.second > 1; }));
    for (const auto& [name, owners] : owners_whole) EXPECT_EQ(owners, 1) << name;
  }
}

TEST(ShardPlan, ARankMayHaveNothing) {
  ModelConfig model = small_model();
  model.num_hidden_layers = 1;
  model.tie_word_embeddings = true;
  model.moe = {};
  const nn::Parameters parameters(model, Device::cpu, false, nullptr);
  const ShardPlan plan(parameters, Layout(8, 0, 1), 1 << 30, kAdamW);
  std::set<bool> empty;
  for (int rank = 0; rank < 8; ++rank) empty.insert(plan.slices_of(rank).empty());
  EXPECT_EQ(empty, (std::set<bool>{false, true}));

  Job job{.world = 8, .deterministic = Deterministic::elastic, .model = model};
  const Outcome eight = run(job);
  job.world = 1;
  EXPECT_TRUE(run(job) == eight);
}

}  // namespace
}  // namespace grist::parallel
