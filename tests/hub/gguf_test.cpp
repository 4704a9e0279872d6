// Models of transformers, imported and exported to GGUF: a small reader of the format, written from
// its description, finds the same numbers under llama.cpp's names.
#include "grist/hub/gguf.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <map>

#include "grist/core/random.h"
#include "grist/core/utf8.h"
#include "grist/data/tokenizer.h"
#include "grist/hub/hub_files.h"
#include "hub/support.h"
#include "src/hub/gguf_file.h"
#include "src/hub/gguf_tokenizer.h"

namespace grist::hub {
namespace {

namespace fs = std::filesystem;
using test::golden;
using test::refusal;

// A value as text; arrays as their elements, separated by a bar.
struct Parsed {
  std::map<std::string, std::string> values;
  struct Tensor {
    std::vector<std::uint64_t> dims;  // fastest first
    std::uint32_t type = 0;
    std::uint64_t offset = 0;
  };
  std::map<std::string, Tensor> tensors;
  std::size_t data = 0;  // where it begins
  std::string bytes;

  explicit Parsed(std::string text) : bytes(std::move(text)) {
    EXPECT_EQ(bytes.substr(0, 4), "GGUF");
    at_ = 4;
    EXPECT_EQ(take<std::uint32_t>(), 3U);
    const auto num_tensors = take<std::uint64_t>(), num_values = take<std::uint64_t>();
    for (std::uint64_t i = 0; i < num_values; ++i) {
      const std::string key = text_here();
      EXPECT_TRUE(values.emplace(key, value(take<std::uint32_t>())).second) << key << " twice";
    }
    for (std::uint64_t i = 0; i < num_tensors; ++i) {
      const std::string name = text_here();
      Tensor t;
      t.dims.resize(take<std::uint32_t>());
      for (std::uint64_t& d : t.dims) d = take<std::uint64_t>();
      t.type = take<std::uint32_t>();
      t.offset = take<std::uint64_t>();
      EXPECT_EQ(t.offset % 32, 0U) << name;
      EXPECT_TRUE(tensors.emplace(name, t).second) << name << " twice";
    }
    data = (at_ + 31) / 32 * 32;
  }

  std::vector<float> read(const std::string& name) const {
    const Tensor& t = tensors.at(name);
    std::size_t count = 1;
    for (const std::uint64_t d : t.dims) count *= d;
    std::vector<float> out(count);
    const char* from = bytes.data() + data + t.offset;
    EXPECT_LE(data + t.offset + count * (t.type == 0 ? 4 : 2), bytes.size()) << name;
    for (std::size_t i = 0; i < count; ++i) {
      std::uint16_t half = 0;
      if (t.type == 0)
        std::memcpy(&out[i], from + 4 * i, 4);
      else
        std::memcpy(&half, from + 2 * i, 2);
      if (t.type == 1) out[i] = static_cast<float>(std::bit_cast<_Float16>(half));
      if (t.type == 30) out[i] = std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
    }
    return out;
  }

 private:
  template <class T> T take() {
    T value{};
    std::memcpy(&value, bytes.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  std::string text_here() {
    const auto n = take<std::uint64_t>();
    at_ += n;
    return bytes.substr(at_ - n, n);
  }
  std::string value(std::uint32_t type) {
    switch (type) {
      case 4: return std::to_string(take<std::uint32_t>());
      case 5: return std::to_string(take<std::int32_t>());
      case 6: return fmt::format("{}", take<float>());
      case 7: return take<std::uint8_t>() != 0 ? "true" : "false";
      case 8: return text_here();
      case 9: {
        const auto of = take<std::uint32_t>();
        std::string all;
        for (auto n = take<std::uint64_t>(); n > 0; --n) all += value(of) + (n > 1 ? "|" : "");
        return all;
      }
      default: ADD_FAILURE() << "type " << type; return "";
    }
  }
  std::size_t at_ = 0;
};

Parsed exported(const fs::path& from, const test::TemporaryFolder& temp, GgufDType dtype) {
  import_model({.input = from, .output = temp / "run", .prove = false, .threads = 1});
  export_gguf({.checkpoint = temp / "run", .output = temp / "a.gguf", .dtype = dtype});
  return Parsed(read_text(temp / "a.gguf"));
}

// A golden that llama.cpp computes: its qwen3moe always divides the weights by their sum.
fs::path computed(const test::TemporaryFolder& temp, const std::string& name) {
  fs::path to = test::copy_of(temp, name);
  if (name == "qwen3_moe_fused") test::set_config(to, "norm_topk_prob", true);
  return to;
}

std::vector<float> of_hub(const HubFiles& files, const std::string& name) {
  std::vector<float> out(static_cast<std::size_t>(files.find(name)->shape.numel()));
  files.read(name, 0, out);
  return out;
}

// transformers' rows of each head (half, i) as llama.cpp's (i, half).
std::vector<float> paired(const std::vector<float>& from, std::size_t heads, std::size_t width) {
  const std::size_t half = from.size() / width / heads / 2;
  std::vector<float> to;
  for (std::size_t h = 0; h < heads; ++h)
    for (std::size_t i = 0; i < half; ++i)
      for (std::size_t side = 0; side < 2; ++side) {
        const std::size_t row = (h * 2 + side) * half + i;
        to.insert(to.end(), from.begin() + static_cast<std::ptrdiff_t>(row * width),
                  from.begin() + static_cast<std::ptrdiff_t>((row + 1) * width));
      }
  return to;
}

struct Projection {
  const char *name, *of_mixtral, *fused;
  int of, parts;  // which of how many parts of the fused one, an expert
};
constexpr Projection kProjections[] = {{"gate", "w1", "gate_up_proj", 0, 2},
                                       {"up", "w3", "gate_up_proj", 1, 2},
                                       {"down", "w2", "down_proj", 0, 1}};

// One projection of all experts, behind each other; empty: the layer has none.
std::vector<float> stacked(const HubFiles& hub, const std::string& layer, const Projection& p) {
  std::vector<float> all;
  const std::string fused = layer + "mlp.experts." + p.fused;
  if (const SafetensorsEntry* entry = hub.find(fused); entry != nullptr) {
    const std::vector<float> values = of_hub(hub, fused);
    const std::ptrdiff_t size = std::ssize(values) / entry->shape[0] / p.parts;
    for (std::ptrdiff_t e = 0; e < entry->shape[0]; ++e) {
      const auto from = values.begin() + (e * p.parts + p.of) * size;
      all.insert(all.end(), from, from + size);
    }
    return all;
  }
  for (int e = 0;; ++e) {
    const std::string name =
        fmt::format("{}block_sparse_moe.experts.{}.{}.weight", layer, e, p.of_mixtral);
    if (hub.find(name) == nullptr) return all;
    const std::vector<float> one = of_hub(hub, name);
    all.insert(all.end(), one.begin(), one.end());
  }
}

class Gguf : public ::testing::TestWithParam<const char*> {};

TEST_P(Gguf, HoldsTransformersNumbersUnderLlamaCppsNames) {
  const std::string name = GetParam();
  const test::TemporaryFolder temp;
  const Parsed file = exported(computed(temp, name), temp, GgufDType::fp32);
  const HubFiles hub(golden(name));
  const Json config = test::config_of(golden(name));
  const auto number = [&](const char* key) {
    return static_cast<std::size_t>(config.at(key).as_int());
  };
  const bool pairs = name == "llama" || name == "mixtral";
  const std::size_t width = number("hidden_size");

  std::size_t seen = 0;
  const auto expect = [&](const std::string& ours, const std::vector<float>& want) {
    ASSERT_TRUE(file.tensors.contains(ours)) << ours;
    EXPECT_EQ(file.read(ours), want) << ours;
    ++seen;
  };
  expect("token_embd.weight", of_hub(hub, "model.embed_tokens.weight"));
  expect("output_norm.weight", of_hub(hub, "model.norm.weight"));
  if (hub.find("lm_head.weight") != nullptr) expect("output.weight", of_hub(hub, "lm_head.weight"));
  for (std::size_t l = 0; l < number("num_hidden_layers"); ++l) {
    const std::string there = fmt::format("model.layers.{}.", l), ours = fmt::format("blk.{}.", l);
    const auto plain = [&](const char* a, const char* b) {
      if (hub.find(there + b) != nullptr) expect(ours + a, of_hub(hub, there + b));
    };
    const auto rotated = [&](const char* a, const char* b, std::size_t heads) {
      const std::vector<float> rows = of_hub(hub, there + b);
      expect(ours + a, pairs ? paired(rows, heads, width) : rows);
    };
    plain("attn_norm.weight", "input_layernorm.weight");
    rotated("attn_q.weight", "self_attn.q_proj.weight", number("num_attention_heads"));
    rotated("attn_k.weight", "self_attn.k_proj.weight", number("num_key_value_heads"));
    plain("attn_v.weight", "self_attn.v_proj.weight");
    plain("attn_output.weight", "self_attn.o_proj.weight");
    plain("attn_q_norm.weight", "self_attn.q_norm.weight");
    plain("attn_k_norm.weight", "self_attn.k_norm.weight");
    plain("ffn_norm.weight", "post_attention_layernorm.weight");
    plain("ffn_gate.weight", "mlp.gate_proj.weight");
    plain("ffn_up.weight", "mlp.up_proj.weight");
    plain("ffn_down.weight", "mlp.down_proj.weight");
    plain("ffn_gate_inp.weight", "mlp.gate.weight");
    plain("ffn_gate_inp.weight", "block_sparse_moe.gate.weight");
    for (const Projection& p : kProjections)
      if (const std::vector<float> all = stacked(hub, there, p); !all.empty())
        expect(ours + fmt::format("ffn_{}_exps.weight", p.name), all);
  }
  EXPECT_EQ(seen, file.tensors.size());
}

TEST_P(Gguf, SaysWhatTheModelIs) {
  const std::string name = GetParam();
  const test::TemporaryFolder temp;
  const Parsed file = exported(computed(temp, name), temp, GgufDType::fp32);
  const Json config = test::config_of(golden(name));
  const std::string arch = file.values.at("general.architecture");
  EXPECT_EQ(arch, name == "qwen3" ? "qwen3" : name == "qwen3_moe_fused" ? "qwen3moe" : "llama");
  std::vector<std::pair<const char*, const char*>> same = {
      {"vocab_size", "vocab_size"},
      {"context_length", "max_position_embeddings"},
      {"embedding_length", "hidden_size"},
      {"block_count", "num_hidden_layers"},
      {"attention.head_count", "num_attention_heads"},
      {"attention.head_count_kv", "num_key_value_heads"},
      {"attention.key_length", "head_dim"},
      {"rope.dimension_count", "head_dim"}};
  if (name.find("moe") != std::string::npos) {
    same.emplace_back("expert_feed_forward_length", "moe_intermediate_size");
    same.emplace_back("expert_used_count", "num_experts_per_tok");
  } else {
    same.emplace_back("feed_forward_length", "intermediate_size");
  }
  for (const auto& [ours, theirs] : same)
    EXPECT_EQ(file.values.at(arch + "." + ours), std::to_string(config.at(theirs).as_int()))
        << ours;
  EXPECT_EQ(file.values.at(arch + ".attention.layer_norm_rms_epsilon"),
            fmt::format("{}", static_cast<float>(config.at("rms_norm_eps").as_double())));
  const bool moe = name == "mixtral" || name == "qwen3_moe_fused";
  EXPECT_EQ(file.values.contains(arch + ".expert_count"), moe);
  if (moe) {
    EXPECT_EQ(file.values.at(arch + ".expert_gating_func"), "1");
    EXPECT_EQ(file.values.at(arch + ".expert_weights_norm"), "true");
    EXPECT_EQ(file.values.at(arch + ".expert_count"),
              std::to_string(file.tensors.at("blk.0.ffn_up_exps.weight").dims.at(2)));
  }
  EXPECT_EQ(file.values.at("tokenizer.ggml.model"), "no_vocab");  // the goldens have none
}

INSTANTIATE_TEST_SUITE_P(Families, Gguf,
                         ::testing::Values("llama", "mixtral", "qwen3", "qwen3_moe_fused"),
                         [](const auto& i) { return std::string(i.param); });

TEST(GgufFile, MatricesAreRoundedAndNormsAndRoutersAreNot) {
  for (const GgufDType dtype : {GgufDType::bf16, GgufDType::f16}) {
    const test::TemporaryFolder temp;
    const Parsed file = exported(computed(temp, "qwen3_moe_fused"), temp, dtype);
    const std::uint32_t code = dtype == GgufDType::f16 ? 1 : 30;
    EXPECT_EQ(file.values.at("general.file_type"), dtype == GgufDType::f16 ? "1" : "32");
    for (const auto& [name, t] : file.tensors) {
      const bool small =
          name.find("norm") != std::string::npos || name.ends_with("gate_inp.weight");
      EXPECT_EQ(t.type, small ? 0 : code) << name;
    }
    const HubFiles hub(golden("qwen3_moe_fused"));
    const std::vector<float> want = of_hub(hub, "model.layers.0.self_attn.v_proj.weight"),
                             got = file.read("blk.0.attn_v.weight");
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got[i], want[i],
                  std::abs(want[i]) * (dtype == GgufDType::f16 ? 0x1p-11F : 0x1p-8F) + 0x1p-25F);
  }
}

TEST(GgufFile, HalfIsTheCompilers) {
  const Random random(1, "halves");
  for (std::uint64_t i = 0; i < 200'000; ++i) {
    auto bits = static_cast<std::uint32_t>(random.bits(i));
    if (i % 2 == 0) bits = (bits & 0x80001FFFU) | static_cast<std::uint32_t>(i << 13 & 0x7FFFE000U);
    const auto value = std::bit_cast<float>(bits);
    if (std::isnan(value)) continue;
    ASSERT_EQ(to_f16(value), std::bit_cast<std::uint16_t>(static_cast<_Float16>(value))) << value;
  }
  for (const float v : {0.0F, -0.0F, 65504.0F, 65519.99F, 65520.0F, 1e30F, 0x1p-24F, 0x1p-25F,
                        0x1.000002p-25F, 0x1.8p-24F, 0x1.ffcp-15F, 0x1.fffp-15F, 2049.0F, 2051.0F})
    EXPECT_EQ(to_f16(v), std::bit_cast<std::uint16_t>(static_cast<_Float16>(v))) << v;
}

TEST(GgufFile, WhatLlamaCppDoesNotComputeIsRefusedByItsKey) {
  for (const auto& [name, key] :
       {std::pair{"qwen2_moe", "model.moe.router.pre_softmax"},
        {"glm4_moe", "model.moe.router.score_function"},
        {"qwen3_moe", "model.moe.first_k_dense_replace"},
        {"qwen3_moe_fused", "model.moe.router.norm_topk_prob"},
        {"granitemoeshared", "model.moe.shared_expert_intermediate_size"}}) {
    const test::TemporaryFolder temp;
    const auto refused = refusal([&] { exported(golden(name), temp, GgufDType::f16); });
    EXPECT_EQ(refused.code, ExitCode::config) << name;
    EXPECT_SAYS(refused, key);
    EXPECT_FALSE(fs::exists(temp / "a.gguf"));
    EXPECT_FALSE(fs::exists(temp / "a.gguf.grist-tmp"));
  }
}

TEST(GgufFile, AFileThatIsThereIsNotTouched) {
  const test::TemporaryFolder temp;
  temp.write("a.gguf", "mine");
  const auto refused = refusal([&] { exported(golden("mixtral"), temp, GgufDType::f16); });
  EXPECT_EQ(refused.code, ExitCode::cannot_create);
  EXPECT_EQ(read_text(temp / "a.gguf"), "mine");
}

// ---- tokenizers --------------------------------------------------------------------------------

// GPT-2's printable characters for the bytes, in the order of the bytes.
std::vector<std::string> byte_tokens() {
  std::vector<std::string> out;
  char32_t next = 256;
  for (char32_t b = 0; b < 256; ++b) {
    const bool shown = (b > 32 && b < 127) || (b > 160 && b != 173);
    unicode::append_utf8(out.emplace_back(), shown ? b : next++);
  }
  return out;
}

// The bytes, "ab", and an added token behind them.
std::string tokenizer_json(const std::string& pre) {
  Json vocab = Json::object();
  std::int64_t id = 0;
  for (const std::string& token : byte_tokens()) vocab.set(token, id++);
  vocab.set("ab", id++);
  return R"({"version":"1.0","added_tokens":[{"id":257,"content":"<|end|>","single_word":false,)"
         R"("lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":null,)"
         R"("pre_tokenizer":)" +
         pre +
         R"(,"post_processor":null,"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":)" +
         vocab.dump() + R"(,"merges":[["a","b"]]}})";
}

TEST(GgufTokenizer, HasTokensMergesAndPadding) {
  const std::string json =
      tokenizer_json(R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})");
  const Tokenizer tokenizer = Tokenizer::parse(json, "t");
  GgufHeader h;
  add_tokenizer(h, Json::parse(json, "t"), tokenizer,
                {.bos = {}, .eos = Json(std::int64_t{257}), .pad = {}}, 260);
  const Parsed file(h.bytes());
  EXPECT_EQ(file.values.at("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(file.values.at("tokenizer.ggml.pre"), "gpt-2");
  std::string tokens, types;
  for (const std::string& token : byte_tokens()) tokens += token + "|", types += "1|";
  EXPECT_EQ(file.values.at("tokenizer.ggml.tokens"), tokens + "ab|<|end|>|[PAD258]|[PAD259]");
  EXPECT_EQ(file.values.at("tokenizer.ggml.token_type"), types + "1|3|5|5");
  EXPECT_EQ(file.values.at("tokenizer.ggml.merges"), "a b");
  EXPECT_EQ(file.values.at("tokenizer.ggml.eos_token_id"), "257");
  EXPECT_FALSE(file.values.contains("tokenizer.ggml.bos_token_id"));
}

TEST(GgufTokenizer, AnUnknownPatternIsRefused) {
  const auto of = [](const std::string& pattern) {
    return R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":")" + pattern +
           R"("},"behavior":"Isolated","invert":false},)"
           R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})";
  };
  const std::string qwen = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|)"
                           R"( ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)";
  const auto name = [&](const std::string& pre) {
    const std::string json = tokenizer_json(pre);
    GgufHeader h;
    add_tokenizer(h, Json::parse(json, "t"), Tokenizer::parse(json, "t"), {}, 258);
    return Parsed(h.bytes()).values.at("tokenizer.ggml.pre");
  };
  EXPECT_EQ(name(of(qwen)), "qwen2");
  const auto refused = refusal([&] { name(of(R"(\\s+|\\S+)")); });
  EXPECT_EQ(refused.code, ExitCode::config);
  EXPECT_SAYS(refused, "pre_tokenizer");
}

}  // namespace
}  // namespace grist::hub
