#pragma once
// From YAML trees to the structs: finds the key that each written name means, checks type and
// range, and remembers where every value came from.
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grist/config/config.h"
#include "yaml_tree.h"

namespace grist::config {

struct Written {
  Where where;
  std::string spelled;  // as in the file; differs from the key for an alias
};

// Megatron's moe_router_enable_expert_bias, without which its update rate does nothing
// (megatron.cpp).
struct BiasSwitch {
  bool on = false;
  Where where;
};
inline constexpr std::string_view kBiasSwitch = "model.moe_router_enable_expert_bias";

struct Bound {
  Config config;
  std::map<std::string, Written, std::less<>> written;  // by key; items as data.train.0.path
  std::vector<std::string> notes;
  std::optional<BiasSwitch> bias_switch;
};

class Binder {
 public:
  explicit Binder(Problems& problems);
  void add_file(const YamlNode& root);
  void add_set(std::string_view argument);  // "optim.lr=1e-3"; later ones win
  Bound bind();

 private:
  struct Entry {
    int layer;
    Written written;
    YamlNode node;
  };
  bool is_block(std::string_view path) const;
  bool is_key(std::string_view path) const;
  void collect(const YamlNode& node, const std::string& path);
  void collect_entry(const std::string& spelled, Where where, const YamlNode& value);
  void add(const std::string& key, Written written, YamlNode node);
  void check_fixed(const std::string& spelled, Where where, const YamlNode& value);
  void add_bias_switch(Where where, const YamlNode& value);
  bool set_in_list(const std::string& path, const YamlNode& value);

  Problems& problems_;
  std::vector<std::string> keys_;
  std::vector<std::string> list_keys_;  // those of keys_ whose value is a list
  std::map<std::string, std::vector<Entry>, std::less<>> entries_;
  std::vector<std::string> notes_;
  std::optional<BiasSwitch> bias_switch_;
  int layer_ = 0;
};

}  // namespace grist::config
