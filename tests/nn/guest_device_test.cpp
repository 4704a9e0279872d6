// A device under a name of its own does what the CPU does: nothing between the configuration and
// the kernels knows which devices there are.
#include "nn/guest_device.h"

#include <gtest/gtest.h>

#include "grist/core/compute_device.h"
#include "grist/nn/decoder.h"
#include "grist/optim/optimizer.h"
#include "support/model.h"

namespace grist {
namespace {

constexpr std::int64_t kRows = 2, kLength = 13;

struct Result {
  double loss = 0, validation = 0;
  std::vector<float> gradients, logits;
};

ModelConfig with_every_part() {
  ModelConfig c = test::tiny_model();
  c.num_hidden_layers = 3;
  c.qk_norm = true;
  c.moe.first_k_dense_replace = 1;
  c.moe.shared_expert_intermediate_size = 12;
  c.moe.expert_bias_update_rate = 0.01;
  c.moe.aux_loss_coeff = 0.05;
  c.moe.z_loss_coeff = 0.01;
  return c;
}

Result run_on(Device device) {
  const ModelConfig config = with_every_part();
  const ComputeDevice computer(device, 2, nullptr, nullptr);
  const Context& ctx = computer.context();
  nn::Model model(config, device, true, nullptr);
  nn::Activations act(config, kRows * kLength, kRows, nn::Keep::everything, device, nullptr);
  model.parameters().initialize(ctx, 3);
  model.parameters().refresh(ctx);
  model.router_state().bias[0][1] = 0.25F;
  const test::TestBatch batch(kRows, kLength, config.vocab_size, "guest");
  Result out;
  nn::StepStatistics statistics;
  model.forward_backward(ctx, act, batch.view(),
                         {.loss_scale = 1.0F / 26, .micro_batch_weight = 1.0F, .first = true},
                         statistics);
  out.loss = statistics.loss_sum;
  for (const nn::NamedTensor& t : model.parameters().tensors()) {
    const std::vector<float> g = to_host<float>(ctx, t.grad);
    out.gradients.insert(out.gradients.end(), g.begin(), g.end());
  }
  out.validation = model.evaluate(ctx, act, batch.view());
  nn::Decoder decoder(model, kLength);
  decoder.feed(ctx, std::span(batch.ids).first(5));
  const auto logits = decoder.feed(ctx, std::span(batch.ids).subspan(5, 1));
  out.logits.assign(logits.begin(), logits.end());
  return out;
}

TEST(GuestDevice, TrainsEvaluatesAndDecodesWithTheBitsOfTheCpu) {
  const Result want = run_on(Device::cpu);
  const test::GuestCounts before = test::guest_counts();

  const Result got = run_on(test::guest_device());

  EXPECT_EQ(got.loss, want.loss);
  EXPECT_EQ(got.validation, want.validation);
  EXPECT_EQ(got.gradients, want.gradients);
  EXPECT_EQ(got.logits, want.logits);
  EXPECT_GT(test::guest_counts().operations, before.operations + 100);
  EXPECT_GT(test::guest_counts().copies_in, before.copies_in);
  EXPECT_GT(test::guest_counts().copies_out, before.copies_out);
}

// A tensor's elements as one optimizer entry of its own, on any device.
std::vector<float> updated_on(Device device) {
  const ComputeDevice computer(device, 2, nullptr, nullptr);
  const Context& ctx = computer.context();
  const std::int64_t n = 3 * 64 * 1024 + 17;  // several chunks, for both threads
  Arena arena("tensors", device, nullptr);
  std::vector<std::size_t> at;
  for (int i = 0; i < 4; ++i) at.push_back(arena.reserve(DType::f32, {n}));
  arena.commit();
  std::vector<TensorView> views;
  for (const std::size_t offset : at) views.push_back(arena.view(offset, DType::f32, {n}));
  std::vector<float> values(static_cast<std::size_t>(n)), zeros(values.size(), 0.0F);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 97) - 48;
  for (std::size_t i = 0; i < views.size(); ++i)
    copy_in(ctx, views[i], i < 2 ? values.data() : zeros.data());
  OptimConfig config;
  Optimizer optimizer(make_update_rule(config), config.clip_grad,
                      {{.tensor = {.name = "w", .shape = {n}, .decay = true},
                        .part = whole_part({n}),
                        .param = views[0],
                        .grad = views[1],
                        .state = {{"m", views[2]}, {"v", views[3]}}}},
                      {.device = device});
  optimizer.step(ctx, {.lr = 1e-3, .loss = 1.0});
  return to_host<float>(ctx, views[0]);
}

TEST(GuestDevice, UpdatesWithTheBitsOfTheCpu) {
  EXPECT_EQ(updated_on(test::guest_device()), updated_on(Device::cpu));
}

}  // namespace
}  // namespace grist
