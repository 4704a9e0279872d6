#pragma once
// What a checkpoint at step 0 carries beside weights.
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "grist/ckpt/checkpoint.h"
#include "grist/core/json.h"
#include "grist/hub/families.h"

namespace grist::hub {

// Counters of a run that has not begun. `tokenizer`: its hash; empty: none.
Json initial_state(const std::string& tokenizer);

// Writes step 0 of a run folder. What `source` (SaveRequest's) throws comes out in its own words: a
// save tells of earlier steps, which there are none of.
struct FirstStep {
  Json state = Json::object();
  std::vector<TensorSlice> slices{};
  std::vector<TextFile> texts{};
  decltype(SaveRequest::source) source{};
};
void save_first_step(const std::filesystem::path& run, FirstStep step);

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
