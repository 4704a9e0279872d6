#pragma once
// Reads the next batch on a thread of its own while the current one is used, so that a slow file
// system does not stall a step. Which batches are read, and what is in them, does not depend on it.
#include <cstdint>
#include <functional>
#include <memory>

#include "grist/data/dataset.h"

namespace grist {

class BatchLoader {
 public:
  // read(first, batch) fills a batch; it is called from the loader's thread, one call at a time.
  using Read = std::function<void(std::int64_t first, Batch& batch)>;
  explicit BatchLoader(Read read);
  // Batches of `count` samples of a stream, which must outlive the loader.
  BatchLoader(const SampleStream& stream, std::int64_t count);
  ~BatchLoader();  // waits for a read in progress
  BatchLoader(const BatchLoader&) = delete;
  BatchLoader& operator=(const BatchLoader&) = delete;

  // The batch that begins at sample `first`, at once if it was the `next` of the call before. Then
  // starts to read the one at `next` (negative: none). The reference is valid until the next call.
  // An error of reading a batch is thrown by the call that asks for it.
  const Batch& get(std::int64_t first, std::int64_t next);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace grist
