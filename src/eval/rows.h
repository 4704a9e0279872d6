#pragma once
// The rows of a benchmark's JSONL files, as `datasets` exports them.
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "tasks.h"

namespace grist::eval {

struct Row {
  Json value{};
  std::int64_t line = 0;
  std::uint64_t identity = 0;  // equal for rows that Python finds equal as dicts
};

std::filesystem::path path_of(const std::filesystem::path& folder, const DataFile& file);

// Throws Error{not_found} when one is missing: all that are, and the Python that exports them.
void want_files(const std::filesystem::path& folder, std::span<const DataFile> files);

// Blank lines are passed over. Throws Error{bad_data} naming file and line; a file without rows is
// one.
std::vector<Row> read_rows(const std::filesystem::path& path);

}  // namespace grist::eval
