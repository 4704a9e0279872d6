#pragma once
// Folders of the hub to work on: the goldens that transformers made, and copies that may be spoilt.
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "grist/ckpt/safetensors.h"
#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/json.h"
#include "grist/hub/import.h"
#include "support/temporary_folder.h"

namespace grist::test {

namespace fs = std::filesystem;

inline const std::vector<std::string> kGoldens = {"glm4_moe",  "granitemoeshared", "llama",
                                                  "mixtral",   "qwen2_moe",        "qwen3",
                                                  "qwen3_moe", "qwen3_moe_fused"};

inline fs::path golden(const std::string& name) {
  return fs::path(GRIST_TESTS_DIR) / "golden" / "hub" / name;
}

// A copy without its logits.
inline fs::path copy_of(const TemporaryFolder& temp, const std::string& name) {
  fs::path to = temp / name;
  fs::copy(golden(name), to);
  fs::remove(to / "logits.safetensors");
  return to;
}

inline Json config_of(const fs::path& folder) {
  return Json::parse(read_text(folder / "config.json"), "config.json");
}

inline void write_config(const fs::path& folder, const Json& config) {
  write_text_atomically(folder / "config.json", config.dump(2));
}

inline void set_config(const fs::path& folder, const char* key, Json value) {
  Json config = config_of(folder);
  config.set(key, std::move(value));
  write_config(folder, config);
}

// The tensors of one file, to be changed and written again.
struct Tensors {
  struct Entry {
    std::string name;
    DType dtype;
    Shape shape;
    std::vector<std::byte> bytes;
  };
  std::vector<Entry> entries;

  explicit Tensors(const fs::path& file) {
    const SafetensorsReader reader(file);
    for (const SafetensorsEntry& e : reader.header().entries) {
      entries.push_back({e.name, e.dtype.value(), e.shape, {}});
      entries.back().bytes.resize(e.end - e.begin);
      reader.read(e, entries.back().bytes);
    }
  }
  Entry& at(const std::string& name) {
    for (Entry& e : entries)
      if (e.name == name) return e;
    throw std::runtime_error("no tensor " + name);
  }
  void write(const fs::path& file) const {
    std::vector<SafetensorsTensor> all;
    for (const Entry& e : entries) all.push_back({e.name, {e.bytes.data(), e.dtype, e.shape}});
    write_safetensors(file, all, {{"format", "pt"}});
  }
};

// What an Error says, and its code; ok when there is none.
struct Refusal {
  ExitCode code = ExitCode::ok;
  std::string what;
};
inline Refusal refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return {e.code(), e.what()};
  }
  return {};
}
#define EXPECT_SAYS(refused, words) \
  EXPECT_NE((refused).what.find(words), std::string::npos) << (refused).what

}  // namespace grist::test
