// Generation with a cache against the whole forward pass.
#include "grist/nn/decoder.h"

#include <gtest/gtest.h>

#include "grist/core/error.h"
#include "grist/ops/linear.h"
#include "support/compare.h"
#include "support/model.h"

namespace grist {
namespace {

TEST(Decoder, TokenByTokenGivesTheLogitsOfTheWholeSequence) {
  ModelConfig config = test::tiny_model();
  config.qk_norm = true;
  config.num_hidden_layers = 3;
  config.moe.first_k_dense_replace = 1;
  config.moe.shared_expert_intermediate_size = 12;
  const std::int64_t T = 17;
  test::CpuContext ctx;
  nn::Model model(config, Device::cpu, false, nullptr);
  model.parameters().initialize(*ctx, 5);
  model.parameters().refresh(*ctx);
  const test::TestBatch batch(1, T, config.vocab_size, "decoder");
  nn::Activations act(config, T, 1, nn::Keep::nothing, Device::cpu, nullptr);
  model.evaluate(*ctx, act, batch.view());
  std::vector<float> logits(static_cast<std::size_t>(T * config.vocab_size));
  ops::linear_forward(*ctx, {.y = test::view(logits, {T, config.vocab_size}),
                             .x = act.n_final,
                             .w = model.parameters().output().compute});

  nn::Decoder decoder(model, T);
  for (std::int64_t at = 0; at < T;) {
    const std::int64_t n = at == 0 ? 5 : 1;  // a prompt, then one by one
    const auto got = decoder.feed(*ctx, std::span(batch.ids).subspan(static_cast<std::size_t>(at),
                                                                     static_cast<std::size_t>(n)));
    at += n;
    const float* row = logits.data() + (at - 1) * config.vocab_size;
    const std::vector<double> want(row, row + config.vocab_size);
    EXPECT_TRUE(test::close(got.data(), want.data(), config.vocab_size,
                            {.relative = 1e-4, .absolute = 1e-5}))
        << "position " << at;
  }
  EXPECT_EQ(decoder.length(), T);
}

TEST(Decoder, RefusesMoreTokensThanItHasRoomFor) {
  const ModelConfig config = test::tiny_model();
  test::CpuContext ctx;
  const nn::Model model(config, Device::cpu, false, nullptr);
  nn::Decoder decoder(model, 2);
  const std::vector<std::int32_t> tokens = {1, 2, 3};

  EXPECT_THROW(decoder.feed(*ctx, tokens), Error);
  EXPECT_THROW(nn::Decoder(model, config.max_position_embeddings + 1), Error);
}

}  // namespace
}  // namespace grist
