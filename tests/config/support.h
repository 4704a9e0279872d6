#pragma once
// A small valid config as text, and what loading a changed one says.
#include <string>
#include <string_view>
#include <vector>

#include "grist/config/load.h"
#include "grist/core/error.h"

namespace grist::test {

// Line numbers matter to the tests.
inline constexpr std::string_view kSmall = R"(run: {dir: runs/small}
model:
  num_hidden_layers: 2
  hidden_size: 64
  num_attention_heads: 4
  intermediate_size: 256
  vocab_size: 512
  moe:
    expansion_rate: 8
    granularity: 4
    flops_multiplier: 1
    router: {pre_softmax: false}
data:
  train: [{path: data/a}]
  seq_length: 32
train:
  micro_batch_size: 2
  global_batch_size: 4
  train_iters: 10
optim:
  lr: 1.0e-3
)";

// `text` with the one place where `from` stands replaced.
inline std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out(text);
  const auto at = out.find(from);
  if (at == std::string::npos || out.find(from, at + 1) != std::string::npos)
    return "test: '" + std::string(from) + "' is not there exactly once";
  return out.replace(at, from.size(), to);
}

// The message of the Error{config}; "loaded" when there was none.
inline std::string message_of(const std::string& text, const std::vector<std::string>& sets = {}) {
  try {
    parse_config(text, "f.yaml", sets);
  } catch (const Error& e) {
    return e.code() == ExitCode::config ? e.what() : std::string("other code: ") + e.what();
  }
  return "loaded";
}

}  // namespace grist::test
