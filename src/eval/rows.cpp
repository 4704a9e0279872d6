#include "rows.h"

#include <algorithm>
#include <string_view>

#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/hash.h"

namespace grist::eval {

namespace {

namespace fs = std::filesystem;

// Python compares dicts without looking at the order of their keys.
void sort_keys(Json& value) {
  if (value.is_array()) {
    for (Json& v : value.as_array()) sort_keys(v);
  } else if (value.is_object()) {
    for (auto& [key, v] : value.as_object()) sort_keys(v);
    std::sort(value.as_object().begin(), value.as_object().end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
  }
}

std::string export_line(const fs::path& folder, const DataFile& f) {
  std::string call = "d(\"" + std::string(f.dataset) + '"';
  if (!f.config.empty()) call += ", \"" + std::string(f.config) + '"';
  return call + ", split=\"" + std::string(f.split) + "\").to_json(\"" +
         path_of(folder, f).string() + "\")";
}

}  // namespace

fs::path path_of(const fs::path& folder, const DataFile& file) {
  return folder / (std::string(file.stem) + ".jsonl");
}

void want_files(const fs::path& folder, std::span<const DataFile> files) {
  std::string names, lines;
  for (const DataFile& f : files) {
    const fs::path path = path_of(folder, f);
    if (fs::exists(path) || names.find(path.string()) != std::string::npos) continue;
    names += (names.empty() ? "" : ", ") + path.string();
    lines += "; " + export_line(folder, f);
  }
  if (!names.empty())
    fail(ExitCode::not_found,
         "{}: not there; where the hub can be reached, export with: python3 -c 'from datasets "
         "import load_dataset as d{}'",
         names, lines);
}

std::vector<Row> read_rows(const fs::path& path) {
  const std::string whole = read_text(path, std::uint64_t{4} << 30);
  std::vector<Row> rows;
  std::int64_t number = 0;
  for (std::size_t at = 0; at < whole.size();) {
    const std::size_t end = std::min(whole.find('\n', at), whole.size());
    const std::string_view line = std::string_view(whole).substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    Row row;
    row.line = number;
    row.value = Json::parse(line, path.string() + ":" + std::to_string(number));
    if (!row.value.is_object())
      fail(ExitCode::bad_data, "{}:{}: not an object; want a row as datasets' to_json writes it",
           path.string(), number);
    Json sorted = row.value;
    sort_keys(sorted);
    row.identity = hash64(sorted.dump());
    rows.push_back(std::move(row));
  }
  if (rows.empty()) fail(ExitCode::bad_data, "{}: no rows", path.string());
  return rows;
}

}  // namespace grist::eval
