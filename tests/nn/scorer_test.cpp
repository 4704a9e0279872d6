// Probabilities of tokens over a tree of pieces against whole texts, one at a time.
#include "grist/nn/scorer.h"

#include <gtest/gtest.h>

#include <numeric>

#include "grist/core/error.h"
#include "support/compare.h"
#include "support/model.h"

namespace grist {
namespace {

class ScorerTest : public ::testing::Test {
 protected:
  ScorerTest() : model_(config(), Device::cpu, false, nullptr) {
    model_.parameters().initialize(*ctx_, 5);
    model_.parameters().refresh(*ctx_);
  }
  static ModelConfig config() {
    ModelConfig c = test::tiny_model();
    c.qk_norm = true;
    c.num_hidden_layers = 3;
    c.moe.first_k_dense_replace = 1;
    return c;
  }
  // The losses of text[1:] by the pass that training's validation takes.
  std::vector<float> evaluated(std::vector<std::int32_t> text) {
    std::vector<std::int32_t> targets(text.begin() + 1, text.end());
    text.pop_back();
    const auto n = std::ssize(text);
    std::vector<std::int32_t> positions(text.size()), ends = {0, static_cast<std::int32_t>(n)};
    std::iota(positions.begin(), positions.end(), 0);
    nn::Activations act(config(), n, 1, nn::Keep::nothing, Device::cpu, nullptr);
    model_.evaluate(*ctx_, act,
                    {.ids = test::view(text, {n}),
                     .targets = test::view(targets, {n}),
                     .positions = test::view(positions, {n}),
                     .cu_seqlens = test::view(ends, {2})});
    const auto* losses = act.losses.as<float>();
    return {losses, losses + n};
  }
  test::CpuContext ctx_;
  nn::Model model_;
};

TEST_F(ScorerTest, PiecesThatGoOnFromOneAnotherScoreAsWholeTexts) {
  const std::vector<std::int32_t> root = {3, 9, 27, 4, 11, 40}, left = {7, 8, 1}, right = {5},
                                  leaf = {60, 0, 2, 13};
  const std::vector<nn::TextPiece> pieces = {
      {root}, {left, 0}, {{44, 45}, -1}, {right, 0}, {leaf, 1}};  // rows 0, 6, 9, 11, 12
  const auto joined = [](std::initializer_list<std::vector<std::int32_t>> parts) {
    std::vector<std::int32_t> all;
    for (const auto& p : parts) all.insert(all.end(), p.begin(), p.end());
    return all;
  };

  const std::vector<float> got = nn::Scorer(model_).score(
      *ctx_, pieces,
      {{5, 7}, {6, 8}, {7, 1}, {8, 60}, {12, 0}, {13, 2}, {14, 13}, {5, 5}, {9, 45}, {11, 33}});

  const auto whole = evaluated(joined({root, left, leaf}));
  const auto other = evaluated(joined({root, right, {33}}));
  EXPECT_EQ(std::vector<float>(got.begin(), got.begin() + 7),
            std::vector<float>(whole.begin() + 5, whole.end()));
  EXPECT_EQ(got[7], other[5]);
  EXPECT_EQ(got[8], evaluated({44, 45})[0]);
  EXPECT_EQ(got[9], other[6]);
}

TEST_F(ScorerTest, RefusesWhatIsNoTree) {
  const nn::Scorer scorer(model_);
  EXPECT_TRUE(scorer.score(*ctx_, {{{1}}}, {}).empty());
  EXPECT_THROW(scorer.score(*ctx_, {{{1}, 0}}, {{0, 1}}), Error);
  EXPECT_THROW(scorer.score(*ctx_, {{{}}}, {{0, 1}}), Error);
  EXPECT_THROW(scorer.score(*ctx_, {{{1}}}, {{1, 1}}), Error);
  EXPECT_THROW(scorer.score(*ctx_, {{{1}}}, {{0, 61}}), Error);
  EXPECT_THROW(
      scorer.score(*ctx_, {{std::vector<std::int32_t>(20)}, {std::vector<std::int32_t>(13), 0}},
                   {{0, 1}}),
      Error);
}

}  // namespace
}  // namespace grist
