#pragma once
// A hub folder that is to be imported: opened, understood, and checked tensor by tensor.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "grist/core/check.h"
#include "grist/hub/families.h"
#include "grist/hub/hub_files.h"

namespace grist::hub {

namespace fs = std::filesystem;

constexpr std::int64_t kPiece = 1 << 20;  // elements read at once

// Error{bad_data} for everything that the model of config.json does not have or lacks.
class Source {
 public:
  explicit Source(const fs::path& folder);

  const HubFiles& files() const { return files_; }
  const Json& config() const { return config_; }
  const HubModel& model() const { return model_; }
  const std::vector<HubTensor>& tensors() const { return tensors_; }

  // Calls visit with every element of a tensor, a piece at a time. A value that is not finite is
  // Error{bad_data} with the tensor's name.
  template <class F>
  void each_piece(const std::string& name, std::int64_t first, std::int64_t count,
                  F&& visit) const {
    std::vector<float> piece(static_cast<std::size_t>(std::min(count, kPiece)));
    for (std::int64_t i = 0; i < count; i += kPiece) {
      const auto now =
          std::span(piece).first(static_cast<std::size_t>(std::min(kPiece, count - i)));
      files_.read(name, first + i, now);
      for (std::size_t j = 0; j < now.size(); ++j)
        if (!std::isfinite(now[j]))
          fail(ExitCode::bad_data, "{}: tensor \"{}\" holds {} at element {}",
               files_.folder().string(), name, now[j], first + i + static_cast<std::int64_t>(j));
      visit(std::span<const float>(now));
    }
  }

 private:
  void check_size() const;
  void make_table();

  void check_tensors() const;

  // With tie_word_embeddings a file may hold the output layer too, if it is the embedding.
  bool is_tied_copy(const std::string& name) const;

  bool holds_only(const HubTensor& t, float value) const;

  // A shared expert that adds zero in every layer is there because the family wants one.
  void leave_out_dead_experts();

  void check_constants() const;

  // Biases that are zero everywhere were never on.
  void settle_biases();

  HubFiles files_;
  fs::path config_path_;
  std::vector<std::string> names_;
  Json config_;
  HubModel model_;
  std::vector<HubTensor> tensors_;
};

}  // namespace grist::hub
