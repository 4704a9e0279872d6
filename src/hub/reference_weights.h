#pragma once
// Matrices of a hub folder's files against columns of float64, for reference_forward.cpp.
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "grist/hub/hub_files.h"

namespace grist::hub {

// (rows, tokens): a token is a column, so that a weight meets all tokens at once.
struct Columns {
  std::int64_t rows = 0, tokens = 0;
  std::vector<double> values;
  Columns(std::int64_t r, std::int64_t t)
      : rows(r), tokens(t), values(static_cast<std::size_t>(r * t)) {}
  double* row(std::int64_t r) { return values.data() + r * tokens; }
  const double* row(std::int64_t r) const { return values.data() + r * tokens; }
  double& at(std::int64_t r, std::int64_t t) { return row(r)[t]; }
  double at(std::int64_t r, std::int64_t t) const { return row(r)[t]; }
};

class ReferenceWeights {
 public:
  explicit ReferenceWeights(const HubFiles& files) : files_(files) {}

  bool has(const std::string& name) const { return files_.find(name) != nullptr; }
  // Error{bad_data} when the tensor is missing or of another shape.
  void need(const std::string& name, const Shape& shape) const;
  // Elements from `first` on. Error{bad_data} for one that is not finite.
  void read(const std::string& name, std::int64_t first, std::span<float> out) const;
  std::vector<float> vector(const std::string& name, std::int64_t n) const;
  // y = W x with W (out, x.rows), which begins at element `first` of the tensor.
  Columns product(const Columns& x, const std::string& name, std::int64_t out,
                  std::int64_t first) const;
  // y = W x with the whole tensor as W, (out, x.rows).
  Columns linear(const Columns& x, const std::string& name, std::int64_t out) const;

 private:
  const HubFiles& files_;
};

}  // namespace grist::hub
