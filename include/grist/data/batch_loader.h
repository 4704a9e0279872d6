#pragma once
// Reads the micro-batches of the next step on a thread of its own while the current step runs, so
// that a slow file system does not stall training. Which samples are read, and what is in them,
// does not depend on it.
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "grist/data/dataset.h"

namespace grist {

// Samples [first, first + count) of a run.
struct SampleRange {
  std::int64_t first = 0;
  std::int64_t count = 0;  // 0: none
  bool operator==(const SampleRange&) const = default;
};

class BatchLoader {
 public:
  // read(range, batches) fills in batches; it is called from the loader's thread, one call at a
  // time.
  using Read = std::function<void(const SampleRange& range, std::vector<Batch>& batches)>;
  explicit BatchLoader(Read read);
  // Ranges of a stream, which must outlive the loader, cut into batches of `micro_batch_size`
  // samples. Every range must be a multiple of it.
  BatchLoader(const SampleStream& stream, std::int64_t micro_batch_size);
  ~BatchLoader();  // waits for a read in progress
  BatchLoader(const BatchLoader&) = delete;
  BatchLoader& operator=(const BatchLoader&) = delete;

  // The batches of `now`, at once if it was the `next` of the call before. Then starts to read
  // `next`. The reference is valid until the next call. An error of reading a range is thrown by
  // the call that asks for it.
  const std::vector<Batch>& get(const SampleRange& now, const SampleRange& next);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace grist
