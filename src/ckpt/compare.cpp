// Comparing what a model asks for with what a step holds.
#include <algorithm>
#include <set>

#include "grist/ckpt/checkpoint.h"
#include "grist/core/check.h"

namespace grist {

namespace {

constexpr std::size_t kNamed = 3;  // differences of one kind that a message spells out

std::string named(const std::vector<std::string>& items) {
  std::string out;
  for (std::size_t i = 0; i < items.size() && i < kNamed; ++i)
    out += (i == 0 ? "" : ", ") + items[i];
  if (items.size() > kNamed) out += fmt::format(", and {} more", items.size() - kNamed);
  return out;
}

}  // namespace

void CheckpointReader::check(std::span<const TensorDestination> wanted,
                             const ReadOptions& options) const {
  std::set<std::string_view> asked;
  std::set<std::string_view> reported;
  std::vector<std::string> missing, different, extra;
  for (const TensorDestination& w : wanted) {
    GRIST_CHECK(fits(w.part, w.shape), "{}: elements [{}, {}) of {}", w.name, w.part.begin,
                w.part.end, w.shape.str());
    if (!asked.insert(w.name).second && reported.contains(w.name)) continue;
    const TensorRecord* t = manifest_.find_tensor(w.name);
    if (t != nullptr && t->dtype == w.dtype && t->shape == w.shape) continue;
    reported.insert(w.name);
    if (t == nullptr)
      missing.push_back(fmt::format("{} {}", w.name, w.shape.str()));
    else
      different.push_back(fmt::format("{} (checkpoint {} {}, model {} {})", w.name,
                                      name_of(t->dtype), t->shape.str(), name_of(w.dtype),
                                      w.shape.str()));
  }
  for (const TensorRecord& t : manifest_.tensors) {
    const bool ignored =
        std::any_of(options.ignore_prefixes.begin(), options.ignore_prefixes.end(),
                    [&](const std::string& prefix) { return t.name.starts_with(prefix); });
    if (!ignored && !asked.contains(t.name))
      extra.push_back(fmt::format("{} {}", t.name, t.shape.str()));
  }
  if (missing.empty() && different.empty() && extra.empty()) return;
  std::string text;
  const auto add = [&text](const std::vector<std::string>& items, std::string_view what) {
    if (!items.empty())
      text +=
          fmt::format("{}{} {}: {}", text.empty() ? "" : "; ", items.size(), what, named(items));
  };
  add(different, "of another shape or type");
  add(missing, "not in the checkpoint");
  add(extra, "not in the model");
  fail(ExitCode::bad_data, "{}: a checkpoint of another architecture; tensors {}", folder_.string(),
       text);
}

}  // namespace grist
