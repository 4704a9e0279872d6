#include "grist/config/load.h"

#include <algorithm>

#include "derived_block.h"
#include "fields.h"
#include "grist/config/compare.h"
#include "grist/core/check.h"
#include "grist/core/file.h"
#include "resolve.h"

namespace grist {

namespace {

using config::Binder;
using config::Problems;
using config::Resolver;

std::string origin_of(const Resolver& r, const std::string& key) {
  if (const auto found = r.origins.find(key); found != r.origins.end()) return found->second;
  if (r.written(key)) {
    const config::Written& w = r.bound.written.find(key)->second;
    const std::string at = r.problems.str(w.where);
    return w.spelled == key ? at : fmt::format("{} ({})", at, w.spelled);
  }
  return "default";
}

LoadedConfig parse(std::string_view text, const std::string& name,
                   const std::vector<std::string>& sets, config::Derived derived) {
  Problems problems(name);
  config::YamlNode root;
  const bool is_yaml = config::parse_yaml(text, 0, problems, root);
  if (!is_yaml) problems.throw_if_any();
  config::take_derived_block(root, derived, problems);
  Binder binder(problems);
  binder.add_file(root);
  if (root.kind != config::YamlNode::Kind::map) problems.throw_if_any();
  for (const std::string& set : sets) binder.add_set(set);

  config::Bound bound = binder.bind();
  Resolver r{bound, problems, {}};
  read_megatron_bias(r);
  derive_rest(r);
  derive_experts(r);
  read_megatron_sigmoid(r);
  check_router(r);
  check_model(r);
  check_training(r);
  problems.throw_if_any();

  LoadedConfig loaded{bound.config, {}, bound.notes};
  for (const KeyValue& kv : config_values(loaded.config))
    loaded.origins.push_back({kv.key, origin_of(r, kv.key)});
  return loaded;
}

}  // namespace

LoadedConfig parse_config(std::string_view text, const std::string& name,
                          const std::vector<std::string>& sets) {
  return parse(text, name, sets, config::Derived::work_out_again);
}

Config saved_config(std::string_view text, const std::string& name) {
  return parse(text, name, {}, config::Derived::keep).config;
}

bool is_derived(const LoadedConfig& loaded, std::string_view key) {
  return std::any_of(loaded.origins.begin(), loaded.origins.end(), [&](const KeyOrigin& o) {
    return o.key == key && o.origin.starts_with("derived ");
  });
}

LoadedConfig load_config(const std::filesystem::path& path, const std::vector<std::string>& sets) {
  constexpr std::uint64_t kMaxBytes = 1ULL << 30;  // more than a configuration: refused by name
  return parse_config(read_text(path, kMaxBytes), path.string(), sets);
}

void resolve_vocab_size(LoadedConfig& loaded, std::int64_t used, const std::string& tokenizer) {
  constexpr std::int64_t kMultiple = 128;  // whole tiles of the output matrix
  ModelConfig& model = loaded.config.model;
  if (model.vocab_size != 0) {
    if (model.vocab_size < used)
      fail(ExitCode::config, "model.vocab_size: {} is less than the {} tokens of {}",
           model.vocab_size, used, tokenizer);
    return;
  }
  model.vocab_size = (used + kMultiple - 1) / kMultiple * kMultiple;
  for (KeyOrigin& o : loaded.origins)
    if (o.key == "model.vocab_size")
      o.origin = fmt::format("derived from {} tokens of {}", used, tokenizer);
}

}  // namespace grist
