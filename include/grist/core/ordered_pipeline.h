#pragma once
// Read, work on all cores, write in order: a reading thread, workers, and the calling thread, which
// writes. Items are written in the order in which they were read, so what is written is the same
// for any number of threads.
//
// An item lies in a numbered slot from reading to writing; the slots are the caller's, one value
// each (options.slots() of them), and only one stage at a time touches one.
//
// - Order. Each item is worked on once. Which worker does it is chance: a worker may keep memory
//   and caches, but nothing that decides what it makes of an item.
// - Memory. The reader waits while items in flight hold max_bytes, unless there is none. So they
//   hold at most max_bytes, one item more, and what work adds to those that are already read.
// - Errors. An exception of the reader or of a worker is thrown by run_in_order at its item, when
//   all items before are written: the same writes and the same error for any number of threads. One
//   of the writer ends the run at once, one of make_worker as soon as it is noticed. Whatever
//   happens, no thread is left when run_in_order returns.
// - A stop signal is Error{preempted}.
#include <cstddef>
#include <functional>

namespace grist {

struct PipelineOptions {
  int threads = 0;            // workers; 0: one per available core
  std::size_t max_bytes = 0;  // in flight; 0: 16 MiB a worker, 256 MiB at least

  int workers() const;
  std::size_t slots() const;
};

struct PipelineStages {
  // Fills a slot; false: there are no more items. On the reading thread.
  std::function<bool(std::size_t slot)> read;
  // Called once on each worker's thread, with numbers from 0; what it returns is called there.
  std::function<std::function<void(std::size_t slot)>(int worker)> make_worker;
  // On the calling thread, in order. Leaves the slot ready to be filled again.
  std::function<void(std::size_t slot)> write;
  // Memory that a slot holds; asked when it has been read and when it has been worked on.
  std::function<std::size_t(std::size_t slot)> bytes;
};

void run_in_order(const PipelineOptions& options, const PipelineStages& stages);

}  // namespace grist
