#pragma once
// Tensors of a checkpoint, read ahead a batch at a time and given one by one.
#include <cstdint>
#include <span>
#include <vector>

#include "grist/hub/hub_files.h"

namespace grist::hub {

// In the order in which they were added. `read` and the parts must outlive it.
class PartStream {
 public:
  explicit PartStream(const PartReader& read) : read_(read) {}
  void add(const Part& part) { parts_.push_back(&part); }

  std::span<const float> next() {
    if (given_ == batch_.size()) load();
    return batch_[given_++].out;
  }

 private:
  static constexpr std::int64_t kBatch = 8 << 20;  // elements read at once, at most

  void load() {
    std::int64_t elements = 0;
    const std::size_t begin = loaded_;
    do {
      elements += parts_[loaded_++]->shape.numel();
    } while (loaded_ < parts_.size() && elements + parts_[loaded_]->shape.numel() <= kBatch);
    buffer_.resize(static_cast<std::size_t>(elements));
    batch_.clear();
    given_ = 0;
    std::span<float> rest = buffer_;
    for (std::size_t i = begin; i < loaded_; ++i) {
      const auto n = static_cast<std::size_t>(parts_[i]->shape.numel());
      batch_.push_back({parts_[i], rest.first(n)});
      rest = rest.subspan(n);
    }
    read_(batch_);
  }

  const PartReader& read_;
  std::vector<const Part*> parts_;
  std::vector<float> buffer_;
  std::vector<PartBuffer> batch_;  // of the parts before loaded_
  std::size_t given_ = 0, loaded_ = 0;
};

}  // namespace grist::hub
