#pragma once
// What a checkpoint at step 0 carries beside weights.
#include <functional>
#include <string>
#include <vector>

#include "grist/ckpt/checkpoint.h"
#include "grist/core/json.h"
#include "grist/hub/families.h"

namespace grist::hub {

// Counters of a run that has not begun. `tokenizer`: its hash; empty: none.
Json initial_state(const std::string& tokenizer);

// Selection biases that are off and the even load of a start. Must outlive the slices.
class StartOfRouters {
 public:
  explicit StartOfRouters(const ModelConfig& model);
  // Adds them for every layer with experts; not the biases that `has` knows.
  void add(std::vector<TensorSlice>& slices,
           const std::function<bool(const std::string& name)>& has) const;

 private:
  const ModelConfig& model_;
  std::vector<float> zeros_, even_;
};

}  // namespace grist::hub
