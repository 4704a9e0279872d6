#pragma once
// A small training state in several dtypes and shards, and what a test asks of a
// checkpoint folder again and again.
#include <gtest/gtest.h>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "grist/ckpt/checkpoint.h"
#include "grist/core/random.h"
#include "support/temporary_folder.h"

namespace grist::test {

constexpr const char* kRun = "11111111-2222-4333-8444-555555555555";
constexpr const char* kOtherRun = "99999999-2222-4333-8444-555555555555";

struct TensorSpec {
  std::string name;
  DType dtype;
  Shape shape;
};

inline const std::vector<TensorSpec>& small_model() {
  static const std::vector<TensorSpec> specs{{"embed", DType::f32, {31, 8}},
                                             {"layers.0.experts.0.w1", DType::f32, {16, 8}},
                                             {"layers.0.experts.1.w1", DType::bf16, {16, 8}},
                                             {"layers.0.bias", DType::f64, {7}},
                                             {"scalar", DType::f32, {}},
                                             {"nothing", DType::f32, {0, 8}},
                                             {"counts", DType::i64, {3, 5}},
                                             {"ids", DType::i32, {13}},
                                             {"optim.m.embed", DType::f32, {31, 8}},
                                             {"bytes", DType::u8, {5}}};
  return specs;
}

// Bytes of all tensors as a function of (step, name): any copy can be checked without the original.
class State {
 public:
  explicit State(std::int64_t step, const std::vector<TensorSpec>& specs = small_model())
      : specs_(specs) {
    for (const TensorSpec& t : specs_) {
      std::vector<std::byte>& b = data_[t.name];
      b.resize(static_cast<std::size_t>(t.shape.numel()) * size_of(t.dtype));
      const Random random(static_cast<std::uint64_t>(step), t.name);
      for (std::size_t i = 0; i < b.size(); i += 8) {
        const std::uint64_t bits = random.bits(i);
        std::memcpy(&b[i], &bits, std::min<std::size_t>(8, b.size() - i));
      }
    }
  }
  const std::vector<TensorSpec>& specs() const { return specs_; }
  std::vector<std::byte>& bytes(const std::string& name) { return data_.at(name); }

  // Each tensor cut at even places into `shards` files, like ZeRO; small ones whole, on rank 0.
  std::vector<std::vector<TensorSlice>> slices(std::int64_t shards) {
    std::vector<std::vector<TensorSlice>> out(static_cast<std::size_t>(shards));
    for (const TensorSpec& t : specs_) {
      const std::int64_t n = t.shape.numel();
      const std::int64_t pieces = n < 10 ? 1 : shards;
      for (std::int64_t r = 0; r < pieces; ++r) {
        const std::int64_t begin = n * r / pieces, end = n * (r + 1) / pieces;
        out[static_cast<std::size_t>(r)].push_back(
            {.name = t.name,
             .dtype = t.dtype,
             .shape = t.shape,
             .part = {.begin = begin, .end = end},
             .data = data_[t.name].data() + static_cast<std::size_t>(begin) * size_of(t.dtype)});
      }
    }
    return out;
  }

  std::vector<TensorDestination> destinations() {
    std::vector<TensorDestination> out;
    for (const TensorSpec& t : specs_)
      out.push_back(whole_destination(t.name, {data_[t.name].data(), t.dtype, t.shape}));
    return out;
  }

  bool operator==(const State& other) const { return data_ == other.data_; }

 private:
  std::vector<TensorSpec> specs_;
  std::map<std::string, std::vector<std::byte>> data_;
};

inline SaveRequest request_of(State& state, std::int64_t step, std::int64_t shards) {
  Json s = Json::object();
  s.set("consumed_samples", step * 8);
  Json layout = Json::object();
  layout.set("world", shards);
  return {.step = step,
          .parent_step = step - 1,
          .layout = layout,
          .state = s,
          .shards = state.slices(shards),
          .texts = {{"config.yaml", "seed: " + std::to_string(step) + "\n"}, {"empty.txt", ""}}};
}

inline SavedStep save_step(CheckpointFolder& folder, std::int64_t step, std::int64_t shards = 2) {
  State state(step);
  return folder.save(request_of(state, step, shards));
}

// The step that loads, with its content compared to what was saved; -1: there is none.
inline std::int64_t loaded_step(const std::filesystem::path& folder) {
  State got(-1);
  const auto reader = load_newest(folder, got.destinations());
  if (!reader) return -1;
  EXPECT_TRUE(got == State(reader->step())) << "step " << reader->step() << " loaded other bytes";
  EXPECT_EQ(reader->state().at("consumed_samples").as_int(), reader->step() * 8);
  EXPECT_EQ(reader->text("config.yaml"), "seed: " + std::to_string(reader->step()) + "\n");
  return reader->step();
}

inline std::vector<std::int64_t> steps_in(const std::filesystem::path& folder) {
  std::vector<std::int64_t> out;
  for (const StepInfo& s : list_steps(folder)) out.push_back(s.step);
  return out;
}

inline ::testing::AssertionResult all_steps_verify(const std::filesystem::path& folder) {
  for (const StepInfo& s : list_steps(folder)) {
    const VerifyReport r = verify_step(s.folder);
    if (!r.ok()) return ::testing::AssertionFailure() << s.folder << ": " << r.damage.front().str();
  }
  return ::testing::AssertionSuccess();
}

// Code of the Error that f throws, ok when none; its text in *what.
template <class F> ExitCode code_of(F&& f, std::string* what = nullptr) {
  try {
    f();
  } catch (const Error& e) {
    if (what != nullptr) *what = e.what();
    return e.code();
  }
  return ExitCode::ok;
}

}  // namespace grist::test
