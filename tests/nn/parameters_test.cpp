// Names, slices and initial values of parameters.
#include "grist/nn/parameters.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "support/compare.h"
#include "support/model.h"

namespace grist {
namespace {

TEST(Parameters, EveryTensorHasItsHuggingFaceNameAndShape) {
  ModelConfig config = test::tiny_model();
  config.qk_norm = true;
  config.num_hidden_layers = 2;
  config.moe.first_k_dense_replace = 1;
  config.moe.shared_expert_intermediate_size = 12;
  const nn::Parameters p(config, Device::cpu, false, nullptr);

  std::map<std::string, Shape> shapes;
  for (const nn::NamedTensor& t : p.tensors()) shapes[t.name] = t.shape;
  EXPECT_EQ(shapes.size(), 3U + 2 * (2 + 4 + 2) + 3 + 1 + 8 * 3 + 3);
  EXPECT_EQ(shapes.at("model.embed_tokens.weight"), (Shape{61, 24}));
  EXPECT_EQ(shapes.at("model.layers.0.mlp.gate_proj.weight"), (Shape{40, 24}));
  EXPECT_EQ(shapes.at("model.layers.0.mlp.down_proj.weight"), (Shape{24, 40}));
  EXPECT_EQ(shapes.at("model.layers.1.mlp.gate.weight"), (Shape{8, 24}));
  EXPECT_EQ(shapes.at("model.layers.1.mlp.experts.7.up_proj.weight"), (Shape{20, 24}));
  EXPECT_EQ(shapes.at("model.layers.1.mlp.experts.0.down_proj.weight"), (Shape{24, 20}));
  EXPECT_EQ(shapes.at("model.layers.1.mlp.shared_experts.up_proj.weight"), (Shape{12, 24}));
  EXPECT_EQ(shapes.at("model.layers.1.self_attn.q_norm.weight"), (Shape{6}));
  EXPECT_EQ(shapes.at("model.layers.1.self_attn.k_proj.weight"), (Shape{12, 24}));
  EXPECT_EQ(shapes.at("lm_head.weight"), (Shape{61, 24}));
}

TEST(Parameters, TensorsAreInNameOrderAndDoNotOverlap) {
  const nn::Parameters p(test::tiny_model(), Device::cpu, true, nullptr);
  std::map<std::int64_t, std::int64_t> extents;
  for (std::size_t i = 0; i < p.tensors().size(); ++i) {
    const nn::NamedTensor& t = p.tensors()[i];
    if (i > 0) {
      EXPECT_LT(p.tensors()[i - 1].name, t.name);
    }
    EXPECT_EQ(t.master.as<float>() - p.tensors()[0].master.as<float>(),
              t.grad.as<float>() - p.tensors()[0].grad.as<float>());
    extents[t.offset] = t.shape.numel();
  }
  std::int64_t end = 0;
  for (const auto& [begin, n] : extents) {
    EXPECT_GE(begin, end);
    end = begin + n;
  }
  EXPECT_LE(end, p.numel());
}

TEST(Parameters, InitialValuesFollowTheirNamesOnly) {
  test::CpuContext ctx;
  ModelConfig deep = test::tiny_model();
  ModelConfig fewer = deep;
  fewer.moe.num_experts = 4;
  nn::Parameters a(deep, Device::cpu, false, nullptr), b(fewer, Device::cpu, false, nullptr);
  a.initialize(*ctx, 9);
  b.initialize(*ctx, 9);

  std::map<std::string, const float*> values;
  for (const nn::NamedTensor& t : a.tensors()) values[t.name] = t.master.as<float>();
  for (const nn::NamedTensor& t : b.tensors()) {
    if (t.kind == nn::ParameterKind::router) continue;  // other shape
    EXPECT_EQ(std::vector<float>(values.at(t.name), values.at(t.name) + t.shape.numel()),
              std::vector<float>(t.master.as<float>(), t.master.as<float>() + t.shape.numel()))
        << t.name;
  }
}

TEST(Parameters, OutputMatricesStartSmallerAndOnlyMatricesDecay) {
  const ModelConfig config = test::tiny_model();
  const nn::Parameters p(config, Device::cpu, false, nullptr);
  for (const nn::NamedTensor& t : p.tensors()) {
    const bool is_out =
        t.name.find("o_proj") != std::string::npos || t.name.find("down_proj") != std::string::npos;
    const bool is_norm = t.name.find("norm") != std::string::npos;
    const bool no_decay = is_norm || t.name.find("embed") != std::string::npos ||
                          t.name.find("mlp.gate.") != std::string::npos;
    EXPECT_FLOAT_EQ(t.init_std, is_norm ? 0.0F : is_out ? 0.2F / std::sqrt(4.0F) : 0.2F) << t.name;
    EXPECT_EQ(t.decay, !no_decay) << t.name;
  }
}

}  // namespace
}  // namespace grist
