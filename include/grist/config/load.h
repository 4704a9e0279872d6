#pragma once
// YAML -> Config, strictly: unknown and repeated keys, wrong types, values out of range and
// impossible combinations are all reported at once. Rules and keys: docs/configuration.md.
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "grist/config/config.h"

namespace grist {

struct KeyOrigin {
  std::string key;     // "optim.lr", "data.train.0.path"
  std::string origin;  // "configs/run/x.yaml:12", "--set optim.lr=1e-3", "derived from ...",
                       // "default"
};

struct LoadedConfig {
  Config config;                   // resolved: derived values are filled in
  std::vector<KeyOrigin> origins;  // one a key, in the order of the structs
  std::vector<std::string> notes;  // for the log: what was read differently from how it is written
};

// `sets` are arguments of --set, "key=value" with a YAML value; they win over the file, later ones
// over earlier ones. Throws Error{config} whose message has one line a problem,
// "file:line: key: what; what to do", and Error{not_found} when there is no file.
LoadedConfig load_config(const std::filesystem::path& path, const std::vector<std::string>& sets);

// The same from text; `name` stands for the file in messages and origins.
LoadedConfig parse_config(std::string_view text, const std::string& name,
                          const std::vector<std::string>& sets);

// A configuration that a run saved, with its derived values as they stand, for comparing and for
// building the model of its checkpoint. The two above work them out again (docs/configuration.md).
Config saved_config(std::string_view text, const std::string& name);

bool is_derived(const LoadedConfig& loaded, std::string_view key);

// model.vocab_size is 0 after loading when it shall come from the tokenizer; whoever opens the
// tokenizer says so here. Throws Error{config} when it is set to something smaller than `used`.
void resolve_vocab_size(LoadedConfig& loaded, std::int64_t used, const std::string& tokenizer);

// The resolved config, every key with its origin as a comment, and the block `derived`. Loads again
// to the same values.
std::string to_yaml(const LoadedConfig& loaded);

}  // namespace grist
