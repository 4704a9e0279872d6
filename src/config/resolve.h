#pragma once
// After binding: fills in what follows from other values, then checks the values against each
// other. Both skip keys that already have a problem.
#include <map>
#include <string>
#include <string_view>

#include "bind.h"
#include "grist/core/check.h"

namespace grist::config {

struct Resolver {
  Bound& bound;
  Problems& problems;
  std::map<std::string, std::string, std::less<>> origins;  // of what is not as written

  Config& config() const { return bound.config; }
  bool written(std::string_view key) const;
  bool usable(std::initializer_list<std::string_view> keys) const;
  Where where(std::string_view key) const;  // of the key, else of its nearest written neighbour
  std::string spelled(std::string_view key) const;
  void derive(std::string_view key, std::string from);
  template <class... Args>
  void problem(std::string_view key, fmt::format_string<Args...> format, Args&&... args) {
    problems.add(where(key), key, fmt::format(format, std::forward<Args>(args)...));
  }
};

void derive_experts(Resolver& r);
void derive_rest(Resolver& r);
void read_megatron_bias(Resolver& r);
void read_megatron_sigmoid(Resolver& r);
void check_router(Resolver& r);  // also turns pre_softmax with norm_topk_prob into what it is
void check_model(Resolver& r);
void check_training(Resolver& r);

}  // namespace grist::config
