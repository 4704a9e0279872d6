#pragma once
// Which key a written name means: other families' spellings, names that must have one value, names
// that are refused with a reason, and the nearest valid name of a misspelt one.
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace grist::config {

struct Alias {
  std::string_view spelled;  // full path as written
  std::string_view key;      // the key it means
  std::string_view note;     // said when used, because the meaning is close but not the same
};

// A key of other programs that is accepted only with the value that describes what grist does.
struct FixedKey {
  std::string_view spelled;  // in the model block; stands for the same name in model.moe too
  std::string_view values;   // as YAML text, ", " between them
  std::string_view why;
};

struct RefusedKey {
  std::string_view name;  // the last part, in any block
  std::string_view why;
};

// A name that other trainers have for a key, though not its meaning to the letter: said, not taken.
struct Hint {
  std::string_view written;
  std::string_view key;  // a key or a block
};

std::span<const Hint> hints();
std::string_view hinted_key(std::string_view spelled);  // empty: none

const Alias* find_alias(std::string_view spelled);
const FixedKey* find_fixed(std::string_view spelled);
const RefusedKey* find_refused(std::string_view spelled);
// What null means for a key whose other writers have it for "none"; empty: null is no value of it.
std::string_view meaning_of_null(std::string_view key);
bool is_alias_block(std::string_view path);  // a block that only aliases live in

// "unknown key; did you mean num_hidden_layers?"; `keys` are all valid paths without aliases.
std::string unknown_key(std::string_view spelled, const std::vector<std::string>& keys);

}  // namespace grist::config
