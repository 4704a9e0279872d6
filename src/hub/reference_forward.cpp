// A forward pass over a hub folder's files in plain float64 loops; see the header.
#include "grist/hub/reference_forward.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "grist/core/check.h"
#include "grist/core/progress.h"
#include "reference_weights.h"

namespace grist::hub {

namespace {

using Size = std::int64_t;

struct Choice {
  Size expert = 0;
  double weight = 0;
};

double silu(double x) {
  return x / (1 + std::exp(-x));
}

class Forward {
 public:
  Forward(const HubFiles& files, const Json& config)
      : weights_(files),
        config_(config),
        type_(config.at("model_type").as_string()),
        D_(config.at("hidden_size").as_int()),
        H_(config.at("num_attention_heads").as_int()),
        Hkv_(either("num_key_value_heads", "num_attention_heads").as_int()),
        Dh_(head_dim()),
        eps_(config.at("rms_norm_eps").as_double()),
        theta_(rope_theta()) {}

  ReferenceLogits run(std::span<const std::int32_t> tokens) {
    Columns x = embed(tokens);
    const Size layers = config_.at("num_hidden_layers").as_int();
    Progress progress("proof", static_cast<std::uint64_t>(layers), "layers");
    for (Size i = 0; i < layers; ++i) {
      progress.update(static_cast<std::uint64_t>(i));
      const std::string at = fmt::format("model.layers.{}.", i);
      add(x, attention(at + "self_attn.", norm(x, at + "input_layernorm.weight")));
      add(x, feed_forward(at, i, norm(x, at + "post_attention_layernorm.weight")));
    }
    progress.finish(static_cast<std::uint64_t>(layers));
    const bool tied = flag("tie_word_embeddings");
    const Size V = config_.at("vocab_size").as_int();
    const Columns y = weights_.linear(norm(x, "model.norm.weight"),
                                      tied ? "model.embed_tokens.weight" : "lm_head.weight", V);
    ReferenceLogits out{.vocab_size = V, .logits = {}, .smallest_gap = smallest_gap_};
    out.logits.resize(y.values.size());
    for (Size v = 0; v < V; ++v)
      for (Size t = 0; t < y.tokens; ++t)
        out.logits[static_cast<std::size_t>(t * V + v)] = static_cast<float>(y.at(v, t));
    return out;
  }

 private:
  // ---- config.json ----
  const Json* find(const char* key) const {
    const Json* j = config_.find(key);
    return j == nullptr || j->is_null() ? nullptr : j;
  }
  const Json& either(const char* a, const char* b) const {
    const Json* j = find(a);
    return j != nullptr ? *j : config_.at(b);
  }
  bool flag(const char* key) const {
    const Json* j = find(key);
    return j != nullptr && j->as_bool();
  }
  Size head_dim() const {
    const Json* j = find("head_dim");
    return j != nullptr ? j->as_int() : D_ / H_;
  }
  double rope_theta() const {
    if (const Json* j = find("rope_theta")) return j->as_double();
    return config_.at("rope_parameters").at("rope_theta").as_double();
  }
  Size num_experts() const {
    if (type_ == "glm4_moe") return config_.at("n_routed_experts").as_int();
    return either("num_local_experts", "num_experts").as_int();
  }

  static void add(Columns& x, const Columns& y) {
    for (std::size_t i = 0; i < x.values.size(); ++i) x.values[i] += y.values[i];
  }

  Columns embed(std::span<const std::int32_t> tokens) const {
    weights_.need("model.embed_tokens.weight", {config_.at("vocab_size").as_int(), D_});
    Columns x(D_, static_cast<Size>(tokens.size()));
    std::vector<float> row(static_cast<std::size_t>(D_));
    for (Size t = 0; t < x.tokens; ++t) {
      weights_.read("model.embed_tokens.weight", tokens[static_cast<std::size_t>(t)] * D_, row);
      for (Size d = 0; d < D_; ++d) x.at(d, t) = row[static_cast<std::size_t>(d)];
    }
    return x;
  }

  // x / rms(x) * weight over rows [begin, begin + weight) of each token.
  void normalise(Columns& x, Size begin, const std::vector<float>& weight) const {
    const auto n = static_cast<Size>(weight.size());
    for (Size t = 0; t < x.tokens; ++t) {
      double squares = 0;
      for (Size d = 0; d < n; ++d) squares += x.at(begin + d, t) * x.at(begin + d, t);
      const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + eps_);
      for (Size d = 0; d < n; ++d)
        x.at(begin + d, t) *= scale * static_cast<double>(weight[static_cast<std::size_t>(d)]);
    }
  }
  Columns norm(Columns x, const std::string& name) const {
    normalise(x, 0, weights_.vector(name, D_));
    return x;
  }

  // ---- attention ----
  bool has_qk_norm() const {
    return type_ == "qwen3" || type_ == "qwen3_moe" || (type_ == "glm4_moe" && flag("use_qk_norm"));
  }
  bool has_qkv_bias() const {
    if (type_ != "qwen2_moe") return false;
    const Json* bias = find("qkv_bias");
    return bias == nullptr || bias->as_bool();
  }
  double scale() const {
    if (type_ == "granitemoeshared") return config_.at("attention_multiplier").as_double();
    return 1 / std::sqrt(static_cast<double>(Dh_));
  }

  Columns heads(const std::string& at, const char* which, const Columns& x, Size count) const {
    Columns y = weights_.linear(x, at + which + "_proj.weight", count * Dh_);
    if (has_qkv_bias()) {
      const std::vector<float> bias = weights_.vector(at + which + "_proj.bias", count * Dh_);
      for (Size r = 0; r < y.rows; ++r)
        for (Size t = 0; t < y.tokens; ++t)
          y.at(r, t) += static_cast<double>(bias[static_cast<std::size_t>(r)]);
    }
    return y;
  }

  // rotate_half: the first half of a head against the second.
  void rotate(Columns& x, Size count) const {
    const Size half = Dh_ / 2;
    for (Size i = 0; i < half; ++i) {
      const double frequency =
          std::pow(theta_, -2.0 * static_cast<double>(i) / static_cast<double>(Dh_));
      for (Size t = 0; t < x.tokens; ++t) {
        const double c = std::cos(static_cast<double>(t) * frequency),
                     s = std::sin(static_cast<double>(t) * frequency);
        for (Size h = 0; h < count; ++h) {
          double& a = x.at(h * Dh_ + i, t);
          double& b = x.at(h * Dh_ + half + i, t);
          const double before = a;
          a = before * c - b * s;
          b = b * c + before * s;
        }
      }
    }
  }

  Columns attention(const std::string& at, const Columns& x) const {
    Columns q = heads(at, "q", x, H_), k = heads(at, "k", x, Hkv_);
    const Columns v = heads(at, "v", x, Hkv_);
    if (has_qk_norm()) {
      const std::vector<float> q_norm = weights_.vector(at + "q_norm.weight", Dh_),
                               k_norm = weights_.vector(at + "k_norm.weight", Dh_);
      for (Size h = 0; h < H_; ++h) normalise(q, h * Dh_, q_norm);
      for (Size h = 0; h < Hkv_; ++h) normalise(k, h * Dh_, k_norm);
    }
    rotate(q, H_);
    rotate(k, Hkv_);
    Columns y(H_ * Dh_, x.tokens);
    for (Size h = 0; h < H_; ++h)
      for (Size t = 0; t < x.tokens; ++t) attend(q, k, v, h, t, y);
    return weights_.linear(y, at + "o_proj.weight", D_);
  }

  void attend(const Columns& q, const Columns& k, const Columns& v, Size h, Size t,
              Columns& y) const {
    const Size group = h / (H_ / Hkv_) * Dh_;
    std::vector<double> p(static_cast<std::size_t>(t + 1), 0.0);
    for (Size s = 0; s <= t; ++s) {
      for (Size d = 0; d < Dh_; ++d)
        p[static_cast<std::size_t>(s)] += q.at(h * Dh_ + d, t) * k.at(group + d, s);
      p[static_cast<std::size_t>(s)] *= scale();
    }
    softmax(p);
    for (Size d = 0; d < Dh_; ++d) {
      double sum = 0;
      for (Size s = 0; s <= t; ++s) sum += p[static_cast<std::size_t>(s)] * v.at(group + d, s);
      y.at(h * Dh_ + d, t) = sum;
    }
  }

  static void softmax(std::vector<double>& x) {
    const double most = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (double& v : x) sum += v = std::exp(v - most);
    for (double& v : x) v /= sum;
  }

  // ---- feed-forward ----
  bool is_dense(Size layer) const {
    if (type_ == "llama" || type_ == "qwen3") return true;
    if (type_ == "glm4_moe") return layer < config_.at("first_k_dense_replace").as_int();
    const Json* dense = find("mlp_only_layers");
    if (dense == nullptr || (type_ != "qwen3_moe" && type_ != "qwen2_moe")) return false;
    const Json::Array& list = dense->as_array();
    return std::any_of(list.begin(), list.end(),
                       [&](const Json& j) { return j.as_int() == layer; });
  }

  static Columns gated(Columns gate, const Columns& up) {
    for (std::size_t i = 0; i < gate.values.size(); ++i)
      gate.values[i] = silu(gate.values[i]) * up.values[i];
    return gate;
  }
  Columns mlp(const std::string& at, const Columns& x, Size width) const {
    const Columns y = gated(weights_.linear(x, at + "gate_proj.weight", width),
                            weights_.linear(x, at + "up_proj.weight", width));
    return weights_.linear(y, at + "down_proj.weight", D_);
  }
  // gate rows before up rows in one tensor.
  Columns fused(const Columns& x, const std::string& up, const std::string& down, Size width,
                Size index) const {
    const Size n = width * x.rows;
    const Columns y = gated(weights_.product(x, up, width, 2 * index * n),
                            weights_.product(x, up, width, (2 * index + 1) * n));
    return weights_.product(y, down, D_, index * n);
  }

  Columns feed_forward(const std::string& at, Size layer, const Columns& x) {
    if (is_dense(layer)) return mlp(at + "mlp.", x, config_.at("intermediate_size").as_int());
    Columns y(D_, x.tokens);
    const Shared shared = shared_expert(at, x);
    const std::vector<std::vector<Choice>> chosen = route(at, x);
    for (Size e = 0; e < num_experts(); ++e) add_expert(at, e, x, chosen, y);
    if (shared) add(y, *shared);
    return y;
  }

  using Shared = std::optional<Columns>;
  Shared shared_expert(const std::string& at, const Columns& x) const {
    if (type_ == "granitemoeshared") {
      const Size width = config_.at("shared_intermediate_size").as_int();
      const std::string up = at + "shared_mlp.input_linear.weight",
                        down = at + "shared_mlp.output_linear.weight";
      weights_.need(up, {2 * width, D_});
      weights_.need(down, {D_, width});
      return fused(x, up, down, width, 0);
    }
    if (type_ == "glm4_moe")
      return mlp(
          at + "mlp.shared_experts.", x,
          config_.at("moe_intermediate_size").as_int() * config_.at("n_shared_experts").as_int());
    if (type_ != "qwen2_moe") return {};
    Columns y =
        mlp(at + "mlp.shared_expert.", x, config_.at("shared_expert_intermediate_size").as_int());
    const Columns gate = weights_.linear(x, at + "mlp.shared_expert_gate.weight", 1);
    for (Size r = 0; r < y.rows; ++r)
      for (Size t = 0; t < y.tokens; ++t) y.at(r, t) /= 1 + std::exp(-gate.at(0, t));
    return y;
  }

  // The k largest scores of each token; equal ones to the lower expert.
  std::vector<Size> best(const std::vector<double>& scores, Size k) {
    std::vector<Size> order(scores.size());
    std::iota(order.begin(), order.end(), Size{0});
    const auto score = [&](Size e) { return scores[static_cast<std::size_t>(e)]; };
    std::stable_sort(order.begin(), order.end(),
                     [&](Size a, Size b) { return score(a) > score(b); });
    const auto last = order.begin() + k;
    if (last != order.end())
      smallest_gap_ = std::min(smallest_gap_, score(last[-1]) - score(*last));
    order.erase(last, order.end());
    return order;
  }

  std::vector<std::vector<Choice>> route(const std::string& at, const Columns& x) {
    const Size E = num_experts();
    const Columns logits = weights_.linear(x, router_name(at), E);
    std::vector<std::vector<Choice>> out;
    for (Size t = 0; t < x.tokens; ++t) {
      std::vector<double> l(static_cast<std::size_t>(E));
      for (Size e = 0; e < E; ++e) l[static_cast<std::size_t>(e)] = logits.at(e, t);
      out.push_back(type_ == "glm4_moe" ? sigmoid_choice(at, l) : softmax_choice(l));
    }
    return out;
  }

  std::vector<Choice> softmax_choice(std::vector<double> logits) {
    const std::vector<Size> chosen = best(logits, config_.at("num_experts_per_tok").as_int());
    softmax(logits);
    const bool normalise_them =
        type_ == "mixtral" || type_ == "granitemoeshared" || flag("norm_topk_prob");
    return weigh(logits, chosen, normalise_them, 1);
  }

  std::vector<Choice> sigmoid_choice(const std::string& at, std::vector<double> scores) {
    const auto E = static_cast<Size>(scores.size());
    const std::vector<float> bias = weights_.vector(at + "mlp.gate.e_score_correction_bias", E);
    for (double& s : scores) s = 1 / (1 + std::exp(-s));
    std::vector<double> biased = scores;
    for (std::size_t e = 0; e < biased.size(); ++e) biased[e] += static_cast<double>(bias[e]);
    const std::vector<Size> chosen = best(biased, config_.at("num_experts_per_tok").as_int());
    return weigh(scores, chosen, flag("norm_topk_prob"),
                 config_.at("routed_scaling_factor").as_double());
  }

  static std::vector<Choice> weigh(const std::vector<double>& scores,
                                   const std::vector<Size>& chosen, bool normalised,
                                   double factor) {
    double sum = 0;
    for (const Size e : chosen) sum += scores[static_cast<std::size_t>(e)];
    std::vector<Choice> out;
    for (const Size e : chosen)
      out.push_back({e, factor * scores[static_cast<std::size_t>(e)] / (normalised ? sum : 1.0)});
    return out;
  }

  // ---- experts, by the names that the files have ----
  std::string router_name(const std::string& at) const {
    for (const char* name :
         {"mlp.gate.weight", "block_sparse_moe.gate.weight", "block_sparse_moe.router.layer.weight",
          "block_sparse_moe.router.weight"})
      if (weights_.has(at + name)) return at + name;
    return at + "mlp.gate.weight";
  }

  Columns expert(const std::string& at, Size e, const Columns& x) const {
    const Size E = num_experts();
    const bool narrow = type_ == "mixtral" || type_ == "granitemoeshared";
    const Size F = config_.at(narrow ? "intermediate_size" : "moe_intermediate_size").as_int();
    using Names = std::pair<std::string, std::string>;
    for (const auto& [up, down] :
         {Names{"block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight"},
          Names{"block_sparse_moe.experts.gate_up_proj", "block_sparse_moe.experts.down_proj"},
          Names{"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}}) {
      if (!weights_.has(at + up)) continue;
      weights_.need(at + up, {E, 2 * F, D_});
      weights_.need(at + down, {E, D_, F});
      return fused(x, at + up, at + down, F, e);
    }
    if (type_ != "mixtral") return mlp(fmt::format("{}mlp.experts.{}.", at, e), x, F);
    const std::string own = fmt::format("{}block_sparse_moe.experts.{}.", at, e);
    const Columns y =
        gated(weights_.linear(x, own + "w1.weight", F), weights_.linear(x, own + "w3.weight", F));
    return weights_.linear(y, own + "w2.weight", D_);
  }

  // Adds one expert's output for the tokens that chose it.
  void add_expert(const std::string& at, Size e, const Columns& x,
                  const std::vector<std::vector<Choice>>& chosen, Columns& y) const {
    std::vector<std::pair<Size, double>> rows;
    for (Size t = 0; t < x.tokens; ++t)
      for (const Choice& c : chosen[static_cast<std::size_t>(t)])
        if (c.expert == e) rows.emplace_back(t, c.weight);
    if (rows.empty()) return;
    Columns own(D_, static_cast<Size>(rows.size()));
    for (Size d = 0; d < D_; ++d)
      for (Size i = 0; i < own.tokens; ++i)
        own.at(d, i) = x.at(d, rows[static_cast<std::size_t>(i)].first);
    const Columns out = expert(at, e, own);
    for (Size d = 0; d < D_; ++d)
      for (Size i = 0; i < own.tokens; ++i) {
        const auto& [t, weight] = rows[static_cast<std::size_t>(i)];
        y.at(d, t) += weight * out.at(d, i);
      }
  }

  ReferenceWeights weights_;
  const Json& config_;
  std::string type_;
  Size D_, H_, Hkv_, Dh_;
  double eps_, theta_;
  double smallest_gap_ = std::numeric_limits<double>::infinity();
};

}  // namespace

ReferenceLogits reference_logits(const HubFiles& files, const Json& config,
                                 std::span<const std::int32_t> tokens) {
  return Forward(files, config).run(tokens);
}

}  // namespace grist::hub
