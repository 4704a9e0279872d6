#include "vocabulary.h"

#include "grist/core/file.h"

namespace grist::train {

std::optional<Tokenizer> resolve_vocabulary(LoadedConfig& loaded) {
  const std::string& path = loaded.config.data.tokenizer;
  if (path.empty()) return std::nullopt;
  Tokenizer tokenizer = Tokenizer::load(path);
  resolve_vocab_size(loaded, tokenizer.vocab_size(), path);
  return tokenizer;
}

std::vector<TextFile> tokenizer_texts(const std::filesystem::path& path) {
  const bool folder = std::filesystem::is_directory(path);
  const std::filesystem::path file = folder ? path / "tokenizer.json" : path;
  std::vector<TextFile> texts = {{"tokenizer.json", read_text(file)}};
  const std::filesystem::path beside = file.parent_path() / "tokenizer_config.json";
  if (std::filesystem::exists(beside))
    texts.push_back({"tokenizer_config.json", read_text(beside)});
  return texts;
}

}  // namespace grist::train
