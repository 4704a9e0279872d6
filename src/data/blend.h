#pragma once
// Mixing sources by weight. Weights become whole numbers w_d that add up to a cycle of P <= 2^20
// samples; sample i goes to the source with the largest w_d * (i + 1) - P * taken_d, the lower
// index on ties (the greedy rule of Megatron's blends, with i + 1 for its max(i, 1)). After P
// samples every lag is 0 again, so one stored cycle answers any i at once.
#include <cstdint>
#include <span>
#include <vector>

namespace grist {

class Blend {
 public:
  explicit Blend(std::span<const double> weights);  // each > 0 and finite
  struct Place {
    std::int64_t source = 0;
    std::int64_t sample = 0;
  };
  Place operator()(std::int64_t i) const;
  std::int64_t taken(std::int64_t source, std::int64_t samples) const;  // of the first `samples`
  std::int64_t share(std::int64_t source) const { return share_[static_cast<std::size_t>(source)]; }
  std::int64_t cycle() const { return static_cast<std::int64_t>(source_.size()); }

 private:
  std::vector<std::int64_t> share_;     // of each source, in samples a cycle
  std::vector<std::uint16_t> source_;   // by place in the cycle
  std::vector<std::uint32_t> ordinal_;  // how many of the same source come before, in the cycle
};

}  // namespace grist
