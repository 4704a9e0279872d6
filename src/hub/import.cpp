// grist import: files of the hub, checked by name and shape, streamed into a checkpoint.
#include "grist/hub/import.h"

#include <algorithm>
#include <unordered_map>

#include "aside_folder.h"
#include "grist/ckpt/checkpoint.h"
#include "grist/config/load.h"
#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/log.h"
#include "grist/core/progress.h"
#include "grist/data/prepare.h"
#include "import_source.h"
#include "start_state.h"
#include "step_source.h"

namespace grist::hub {

namespace {

constexpr std::uint64_t kMaxText = 1ULL << 28;

// ---- configuration ---------------------------------------------------------------------------

Json router_values(const RouterConfig& r) {
  Json j = Json::object();
  j.set("score_function", word(r.score_function));
  j.set("pre_softmax", r.pre_softmax);
  j.set("norm_topk_prob", r.norm_topk_prob);
  j.set("routed_scaling_factor", r.routed_scaling_factor);
  return j;
}

Json model_values(const ModelConfig& c) {
  Json j = Json::object();
  j.set("num_hidden_layers", c.num_hidden_layers);
  j.set("hidden_size", c.hidden_size);
  j.set("num_attention_heads", c.num_attention_heads);
  j.set("num_key_value_heads", c.num_key_value_heads);
  j.set("head_dim", c.head_dim);
  j.set("intermediate_size", c.intermediate_size);
  j.set("vocab_size", c.vocab_size);
  j.set("max_position_embeddings", c.max_position_embeddings);
  j.set("rope_theta", c.rope_theta);
  j.set("rms_norm_eps", c.rms_norm_eps);
  j.set("qk_norm", c.qk_norm);
  j.set("tie_word_embeddings", c.tie_word_embeddings);
  j.set("initializer_range", c.initializer_range);
  if (c.moe.num_experts == 0) return j;
  Json moe = Json::object();
  moe.set("num_experts", c.moe.num_experts);
  moe.set("num_experts_per_tok", c.moe.num_experts_per_tok);
  moe.set("moe_intermediate_size", c.moe.moe_intermediate_size);
  moe.set("first_k_dense_replace", c.moe.first_k_dense_replace);
  moe.set("shared_expert_intermediate_size", c.moe.shared_expert_intermediate_size);
  moe.set("aux_loss_coeff", c.moe.aux_loss_coeff);
  moe.set("expert_bias_update_rate", c.moe.expert_bias_update_rate);
  moe.set("router", router_values(c.moe.router));
  j.set("moe", std::move(moe));
  return j;
}

// A whole configuration, so that `grist train` takes it with its data and schedule put in.
std::string run_config(const ModelConfig& model, const fs::path& output, bool has_tokenizer,
                       const std::string& from) {
  const auto block = [](const char* key, const char* value) {
    Json j = Json::object();
    j.set(key, value);
    return j;
  };
  Json train = Json::object();
  for (const char* key : {"micro_batch_size", "global_batch_size", "train_iters"})
    train.set(key, 1);
  Json data = Json::object();
  if (has_tokenizer)
    data.set("tokenizer", (output / "checkpoints" / step_name(0) / "tokenizer.json").string());
  data.set("train", Json::Array{block("path", "put-your-token-files-here")});
  data.set("seq_length", model.max_position_embeddings);
  Json j = Json::object();
  j.set("run", block("dir", output.c_str()));
  j.set("model", model_values(model));
  j.set("data", std::move(data));
  j.set("train", std::move(train));
  return "# imported; the blocks but `model` are placeholders\n" +
         to_yaml(parse_config(j.dump(), from, {}));
}

// ---- the checkpoint --------------------------------------------------------------------------

struct Place {
  const HubTensor* tensor = nullptr;
  std::int64_t first = 0;
};

class CheckpointSource {
 public:
  explicit CheckpointSource(const Source& source)
      : source_(source),
        routers_(source.model().model),
        progress_("import", source.files().bytes(), "MB", 1e6) {
    for (const HubTensor& t : source.tensors()) {
      std::int64_t at = 0;
      for (const Part& p : t.parts) {
        places_.emplace(p.name, Place{&t, at});
        slices_.push_back(whole(p.name, {nullptr, DType::f32, p.shape}));
        at += p.shape.numel();
      }
    }
    routers_.add(slices_, [&](const std::string& name) { return places_.contains(name); });
  }

  std::vector<TensorSlice> slices() const { return slices_; }

  void give(const std::string& name,
            const std::function<void(std::span<const std::byte>)>& append) {
    stop_if_asked();
    const auto at = places_.find(name);
    GRIST_CHECK(at != places_.end(), "no source of {}", name);
    const HubTensor& t = *at->second.tensor;
    const std::int64_t count = numel_of(t, name);
    source_.each_piece(t.name, at->second.first, count,
                       [&](std::span<const float> piece) { append(std::as_bytes(piece)); });
    done_ += static_cast<std::uint64_t>(count) * width(t);
    progress_.update(done_);
  }
  void finish() { progress_.finish(done_); }

 private:
  static std::int64_t numel_of(const HubTensor& t, const std::string& part) {
    const auto p =
        std::find_if(t.parts.begin(), t.parts.end(), [&](const Part& x) { return x.name == part; });
    return p->shape.numel();
  }
  std::uint64_t width(const HubTensor& t) const {
    return source_.files().find(t.name)->type == "F32" ? 4 : 2;
  }

  const Source& source_;
  std::unordered_map<std::string, Place> places_;
  std::vector<TensorSlice> slices_;
  StartOfRouters routers_;
  Progress progress_;
  std::uint64_t done_ = 0;
};

// ---- tokenizer -------------------------------------------------------------------------------

void warn_of_other_end(const Json& config, const Tokenizer& tokenizer, const fs::path& folder) {
  const Json* eos = config.find("eos_token_id");
  if (eos == nullptr || !eos->is_int() || tokenizer.eos_id() == eos->as_int()) return;
  log::warn(
      "{}: config.json ends a text with token {}, the tokenizer's files with {}; generation "
      "goes by the latter",
      folder.string(), eos->as_int(),
      tokenizer.eos_id() ? std::to_string(*tokenizer.eos_id()) : "none");
}

// The tokenizer's files, if there are any that grist can use.
std::vector<TextFile> tokenizer_files(const Source& source, std::string& hash) {
  const fs::path folder = source.files().folder();
  std::vector<TextFile> out;
  if (!fs::exists(folder / "tokenizer.json")) {
    log::warn("{}: no tokenizer.json: the model is imported without a tokenizer", folder.string());
    return out;
  }
  try {
    const Tokenizer tokenizer = Tokenizer::load(folder);
    if (tokenizer.vocab_size() > source.model().model.vocab_size)
      fail(ExitCode::bad_data, "{}: the tokenizer has {} tokens, the model's vocab_size is {}",
           folder.string(), tokenizer.vocab_size(), source.model().model.vocab_size);
    hash = tokenizer_hash(tokenizer);
    warn_of_other_end(source.config(), tokenizer, folder);
  } catch (const Error& e) {
    if (e.code() != ExitCode::bad_data) throw;
    log::warn("the model is imported without its tokenizer: {}", e.what());
    return out;
  }
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
    if (fs::exists(folder / name)) out.push_back({name, read_text(folder / name, kMaxText)});
  return out;
}

Json state_of(const Source& source, const std::string& tokenizer) {
  Json state = initial_state(tokenizer);
  Json from = Json::object();
  from.set("path", fs::absolute(source.files().folder()).lexically_normal().string());
  from.set("model_type", word(source.model().family));
  set_special_tokens(from, special_tokens_of(source.config()));
  state.set("imported", std::move(from));
  return state;
}

Proof proof_of(const Source& source, const ImportOptions& options, const fs::path& run) {
  eval::TrainedModel trained =
      eval::load_trained_model(run, {.threads = options.threads, .device = WantedDevice::cpu});
  const Proof proof = prove(source.files(), source.config(), source.tensors(), DType::f32, trained);
  if (!proof.holds())
    fail(ExitCode::numeric,
         "{}: the checkpoint computes other logits than these files: they differ by up to {:.3e}, "
         "{:.3e} is allowed; nothing was written (please report this)",
         source.files().folder().string(), proof.difference, proof.bound());
  return proof;
}

}  // namespace

Imported import_model(const ImportOptions& options) {
  if (!fs::exists(options.input / "config.json"))
    fail(ExitCode::not_found, "{}: holds no config.json", options.input.string());
  const Source source(options.input);
  Imported out{.folder = {},
               .model = source.model(),
               .bytes = source.files().bytes(),
               .has_tokenizer = false,
               .proof = {}};
  std::string hash;
  std::vector<TextFile> texts = tokenizer_files(source, hash);
  out.has_tokenizer = !texts.empty();
  const std::string yaml = run_config(out.model.model, options.output, out.has_tokenizer,
                                      (options.input / "config.json").string());
  texts.push_back({"config.yaml", yaml});
  AsideFolder folder(options.output);
  CheckpointSource tensors(source);
  save_first_step(folder.path(), {.state = state_of(source, hash),
                                  .slices = tensors.slices(),
                                  .texts = std::move(texts),
                                  .source = [&](const std::string& name, const auto& append) {
                                    tensors.give(name, append);
                                  }});
  tensors.finish();
  if (options.prove) out.proof = proof_of(source, options, folder.path());
  write_text_atomically(folder.path() / "config.yaml", yaml);
  out.folder = folder.commit();
  return out;
}

}  // namespace grist::hub
