#pragma once
// Every document of a corpus through one pipeline (core/ordered_pipeline.h): a thread reads,
// workers cut pieces of the corpus into documents and work on them, the calling thread writes what
// they made of each piece, in the order of the input. `prepare` and `tokenizer train` are two
// makers of workers.
//
// - What is written is the same for any number of threads.
// - An error of a worker is thrown as "FILE:LINE: ..." of the document it was given; errors of the
//   reader name the file; those of the writer are its own.
// - Bad lines are counted and named in order. With OnBadLine::refuse, from the first one on nothing
//   more is worked on or written, the rest is searched for more of them, and the end is
//   refuse_bad_lines().
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "grist/core/ordered_pipeline.h"
#include "grist/data/corpus.h"

namespace grist {

struct DocumentPipelineOptions {
  CorpusOptions corpus;
  PipelineOptions pipeline{};
  std::string label{};  // of the progress line; empty: none
};

struct CorpusSummary {
  BadLines bad;                   // that were skipped
  std::uint64_t input_bytes = 0;  // as stored on disk
};

// The same over slots, without types; for_each_in_order is what callers want.
struct DocumentStages {
  std::function<std::function<void(const Document&, std::size_t slot)>(int worker)> make_worker;
  std::function<void(std::size_t slot)> write;  // leaves the slot empty
  std::function<std::size_t(std::size_t slot)> bytes;
};
CorpusSummary run_documents(const DocumentPipelineOptions& options, const DocumentStages& stages);

// Out is what is made of a piece of the corpus (about a MiB: many documents, or a long one):
//   void clear();                  // before it is used again; keeps little memory
//   std::size_t bytes() const;     // memory that it holds
// make_worker(int number) is called on each worker's thread and returns what is called there:
//   void(const Document&, Out&)    // appends to Out
// write(Out&) is called on this thread.
template <class Out, class MakeWorker, class Write>
CorpusSummary for_each_in_order(const DocumentPipelineOptions& options,
                                const MakeWorker& make_worker, const Write& write) {
  std::vector<Out> outs(options.pipeline.slots());
  return run_documents(options, {.make_worker =
                                     [&](int number) {
                                       return
                                           [&outs, work = make_worker(number)](
                                               const Document& document, std::size_t slot) mutable {
                                             work(document, outs[slot]);
                                           };
                                     },
                                 .write =
                                     [&](std::size_t slot) {
                                       write(outs[slot]);
                                       outs[slot].clear();
                                     },
                                 .bytes = [&](std::size_t slot) { return outs[slot].bytes(); }});
}

}  // namespace grist
