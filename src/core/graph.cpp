#include "grist/core/graph.h"

#include <algorithm>

#include "grist/core/device.h"
#include "grist/core/error.h"
#include "grist/core/log.h"

namespace grist {

namespace {
constexpr std::size_t kMostEntries = 16;
}  // namespace

GraphCache::~GraphCache() {
  for (const Entry& e : entries_) destroy(e.parts);
}

// After their launches, which nobody may have waited for.
void GraphCache::destroy(const Parts& parts) noexcept {
  if (parts.empty()) return;
  try {
    wait(ctx_);
  } catch (const Error&) {  // the device failed: whoever waited for it was told
  }
  for (CUgraphExec_st* graph : parts)
    if (graph != nullptr) runtime(ctx_.device).destroy_graph(graph);
}

// Moves it to the front; null: it was not there, and is now.
GraphCache::Entry* GraphCache::find(const Key& key) {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.key == key; });
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
    return &entries_.front();
  }
  entries_.push_front({key, {}});
  if (entries_.size() > kMostEntries) {
    destroy(entries_.back().parts);
    entries_.pop_back();
  }
  return nullptr;
}

// False: it could not be done. Nothing has run then, whatever was recorded.
bool GraphCache::record(const Work& work, Parts& parts) {
  DeviceRuntime& device = runtime(ctx_.device);
  try {
    device.begin_capture(ctx_.stream);
    work([&] {
      parts.push_back(device.end_capture(ctx_.stream));
      device.begin_capture(ctx_.stream);
    });
    parts.push_back(device.end_capture(ctx_.stream));
    return true;
  } catch (const Error& e) {
    device.abandon_capture(ctx_.stream);
    log::warn("CUDA graphs: {}; steps go on without them", e.what());
  } catch (...) {
    device.abandon_capture(ctx_.stream);
    destroy(parts);
    throw;
  }
  destroy(parts);
  parts.clear();
  return false;
}

void GraphCache::run(const Key& key, const Work& work, const AtCut& at_cut) {
  Entry* entry = works_ ? find(key) : nullptr;
  if (entry != nullptr && entry->parts.empty()) {
    works_ = record(work, entry->parts);
    if (works_) ++counts_.recorded;
  }
  if (entry == nullptr || !works_) {
    std::size_t cut = 0;
    work([&] { at_cut(cut++); });
    ++counts_.direct;
    return;
  }
  for (std::size_t i = 0; i < entry->parts.size(); ++i) {
    if (i > 0) at_cut(i - 1);
    if (entry->parts[i] != nullptr) runtime(ctx_.device).launch(entry->parts[i], ctx_.stream);
  }
  ++counts_.launched;
}

}  // namespace grist
