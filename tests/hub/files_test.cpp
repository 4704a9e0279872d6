// Safetensors files of others: number formats, several files with an index, and every way in which
// they can be wrong.
#include <bit>
#include <cmath>

#include "grist/core/random.h"
#include "grist/hub/hub_files.h"
#include "hub/support.h"
#include "support/scale.h"

namespace grist::test {
namespace {

TEST(HubFiles, HalfPrecisionNumbersAreWidenedExactly) {
  EXPECT_EQ(hub::from_f16(0x0000), 0.0F);
  EXPECT_TRUE(std::signbit(hub::from_f16(0x8000)));
  EXPECT_EQ(hub::from_f16(0x3C00), 1.0F);
  EXPECT_EQ(hub::from_f16(0xC000), -2.0F);
  EXPECT_EQ(hub::from_f16(0x7BFF), 65504.0F);
  EXPECT_EQ(hub::from_f16(0x0400), std::ldexp(1.0F, -14));
  EXPECT_EQ(hub::from_f16(0x0001), std::ldexp(1.0F, -24));
  EXPECT_EQ(hub::from_f16(0x83FF), -std::ldexp(1023.0F, -24));
  EXPECT_TRUE(std::isinf(hub::from_f16(0x7C00)));
  EXPECT_TRUE(std::isnan(hub::from_f16(0x7E00)));
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float wide = hub::from_bf16(half);
    ASSERT_TRUE(std::isnan(wide) || hub::to_bf16(wide) == half);
  }
}

TEST(HubFiles, RoundingToBf16IsToTheNearestTiesToEven) {
  const auto rounded = [](std::uint32_t bits) { return hub::to_bf16(std::bit_cast<float>(bits)); };
  EXPECT_EQ(rounded(0x3F808000), 0x3F80);  // tie, even below
  EXPECT_EQ(rounded(0x3F818000), 0x3F82);  // tie, even above
  EXPECT_EQ(rounded(0x3F808001), 0x3F81);
  EXPECT_EQ(rounded(0x3F807FFF), 0x3F80);
  EXPECT_EQ(rounded(0x7F7FFFFF), 0x7F80);  // beyond the largest
  EXPECT_TRUE(std::isnan(hub::from_bf16(rounded(0x7F800001))));
}

TEST(HubFiles, SeveralFilesAreOneModel) {
  const hub::HubFiles files(golden("mixtral"));
  ASSERT_TRUE(fs::exists(golden("mixtral") / "model.safetensors.index.json"));
  EXPECT_EQ(files.names().size(), 53U);
  std::vector<float> gate(6 * 16);
  files.read("model.layers.1.block_sparse_moe.gate.weight", 0, gate);
  std::vector<float> tail(5);
  files.read("model.layers.1.block_sparse_moe.gate.weight", 91, tail);
  EXPECT_TRUE(std::equal(tail.begin(), tail.end(), gate.end() - 5));
}

struct Spoilt {
  const char* what;
  std::function<void(const fs::path&)> spoil;
  ExitCode code;
  const char* says;
};

void edit_index(const fs::path& folder, const std::function<void(Json& map)>& edit) {
  const fs::path path = folder / "model.safetensors.index.json";
  Json index = Json::parse(read_text(path), "index");
  Json map = index.at("weight_map");
  edit(map);
  index.set("weight_map", map);
  write_text_atomically(path, index.dump());
}

TEST(HubFiles, WrongIndexesAndFilesAreRefused) {
  const char* norm = "model.norm.weight";
  const std::vector<Spoilt> all = {
      {"a file is missing",
       [](const auto& f) { fs::remove(f / "model-00002-of-00005.safetensors"); },
       ExitCode::not_found, "model-00002-of-00005.safetensors"},
      {"no weights", [](const auto& f) { fs::remove(f / "model.safetensors.index.json"); },
       ExitCode::not_found, "holds neither"},
      {"both forms",
       [](const auto& f) {
         fs::copy(f / "model-00001-of-00005.safetensors", f / "model.safetensors");
       },
       ExitCode::bad_data, "holds both"},
      {"outside the folder",
       [&](const auto& f) { edit_index(f, [&](Json& m) { m.set(norm, "../model.safetensors"); }); },
       ExitCode::bad_data, "want a file beside the index"},
      {"no file name", [&](const auto& f) { edit_index(f, [&](Json& m) { m.set(norm, 3); }); },
       ExitCode::bad_data, "is in 3"},
      {"another file",
       [&](const auto& f) {
         edit_index(f, [&](Json& m) { m.set(norm, "model-00001-of-00005.safetensors"); });
       },
       ExitCode::bad_data, "\"model.norm.weight\" is not in"},
      {"a name too many",
       [&](const auto& f) {
         edit_index(f, [&](Json& m) { m.set("x", "model-00001-of-00005.safetensors"); });
       },
       ExitCode::bad_data, "\"x\" is not in"},
      {"a name too few",
       [&](const auto& f) {
         edit_index(f, [&](Json& m) {
           std::erase_if(m.as_object(), [&](const auto& e) { return e.first == norm; });
         });
       },
       ExitCode::bad_data, "lacks \"model.norm.weight\""},
      {"no map",
       [](const auto& f) { write_text_atomically(f / "model.safetensors.index.json", "{}"); },
       ExitCode::bad_data, "weight_map: missing"},
      {"a tensor in two files",
       [&](const auto& f) {
         Tensors a(f / "model-00001-of-00005.safetensors");
         Tensors b(f / "model-00005-of-00005.safetensors");
         a.entries.push_back(b.at("model.norm.weight"));
         a.write(f / "model-00001-of-00005.safetensors");
       },
       ExitCode::bad_data, "is in model-00001-of-00005.safetensors too"},
  };
  for (const Spoilt& s : all) {
    const TemporaryFolder temp;
    const fs::path folder = copy_of(temp, "mixtral");
    s.spoil(folder);
    const Refusal r = refusal([&] { hub::HubFiles files(folder); });
    EXPECT_EQ(r.code, s.code) << s.what << ": " << r.what;
    EXPECT_SAYS(r, s.says);
  }
}

// One to three edits of a whole file: header, data, length.
std::string mutate(std::string s, const Random& random, std::uint64_t n) {
  std::uint64_t draw = n * 32;
  const auto below = [&](std::size_t bound) {
    return static_cast<std::size_t>(random.below(draw++, std::max<std::size_t>(bound, 1)));
  };
  for (std::size_t edits = 1 + below(3); edits > 0 && s.size() > 8; --edits) {
    const std::size_t at = below(below(4) == 0 ? s.size() : std::min<std::size_t>(s.size(), 3000));
    switch (below(7)) {
      case 0: s[at] = static_cast<char>(s[at] ^ (1 << below(8))); break;
      case 1: s[at] = static_cast<char>('0' + below(10)); break;
      case 2: s.erase(at, 1 + below(30)); break;
      case 3: s.insert(at, s.substr(below(s.size()), 1 + below(80))); break;
      case 4: s.resize(at); break;
      case 5: s.replace(at, 1, "BF16"); break;
      default: s[below(8)] = static_cast<char>(below(256)); break;
    }
  }
  return s;
}

// Opened, and every tensor read: a mutation is an error with a name, or a file.
TEST(HubFiles, MutationsAreReadOrRefusedNeverWorse) {
  const Random random(4, "hub file mutations");
  const TemporaryFolder temp;
  const fs::path folder = copy_of(temp, "qwen3_moe");
  const std::string good = read_text(folder / "model.safetensors");
  int refused = 0, count = scaled(1500);
  for (int n = 0; n < count; ++n) {
    File file = File::create(folder / "model.safetensors");
    file.append(mutate(good, random, static_cast<std::uint64_t>(n)));
    const Refusal r = refusal([&] {
      const hub::HubFiles files(folder);
      for (const std::string& name : files.names()) {
        std::vector<float> x(static_cast<std::size_t>(files.find(name)->shape.numel()));
        files.read(name, 0, x);
      }
    });
    ASSERT_TRUE(r.code == ExitCode::ok || r.code == ExitCode::bad_data) << r.what;
    refused += r.code == ExitCode::ok ? 0 : 1;
  }
  tally(count, "mutated safetensors files of a model");
  EXPECT_GT(refused, count / 3);
  EXPECT_LT(refused, count);
}

TEST(HubFiles, MutatedIndexesAreReadOrRefusedNeverWorse) {
  const Random random(5, "hub index mutations");
  const TemporaryFolder temp;
  const fs::path folder = copy_of(temp, "mixtral");
  const fs::path path = folder / "model.safetensors.index.json";
  const std::string good = read_text(path);
  int refused = 0, count = scaled(400);
  for (int n = 0; n < count; ++n) {
    File::create(path).append(mutate(good, random, static_cast<std::uint64_t>(n)));
    const Refusal r = refusal([&] { hub::HubFiles files(folder); });
    ASSERT_TRUE(r.code == ExitCode::ok || r.code == ExitCode::bad_data ||
                r.code == ExitCode::not_found)
        << r.what;
    refused += r.code == ExitCode::ok ? 0 : 1;
  }
  tally(count, "mutated indexes");
  EXPECT_GT(refused, count / 3);
}

}  // namespace
}  // namespace grist::test
