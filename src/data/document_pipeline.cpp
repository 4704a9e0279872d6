#include "grist/data/document_pipeline.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <new>

#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/core/progress.h"

namespace grist {

namespace {

constexpr std::size_t kKeepBytes = std::size_t{4} << 20;  // capacity a slot keeps between chunks

struct Piece {
  CorpusChunk chunk;
  BadLines bad;
};

[[noreturn]] void rethrow_from(const Document& document) {
  const std::string place = fmt::format("{}:{}", document.file, document.line);
  try {
    throw;
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}", place, e.what()));
  } catch (const std::bad_alloc&) {
    fail(ExitCode::out_of_memory, "{}: out of memory", place);
  } catch (const std::exception& e) {
    fail(ExitCode::internal, "{}: {}", place, e.what());
  }
}

class DocumentPipeline {
 public:
  DocumentPipeline(const DocumentPipelineOptions& options, const DocumentStages& stages)
      : options_(options),
        stages_(stages),
        reader_(options.corpus),
        pieces_(options.pipeline.slots()),
        progress_(options.label, reader_.total_input_bytes(), "MB", 1e6) {}

  CorpusSummary run() {
    run_in_order(options_.pipeline,
                 {.read = [this](std::size_t slot) { return read(slot); },
                  .make_worker = [this](int worker) { return make_worker(worker); },
                  .write = [this](std::size_t slot) { write(slot); },
                  .bytes =
                      [this](std::size_t slot) {
                        return pieces_[slot].chunk.bytes.capacity() + stages_.bytes(slot);
                      }});
    if (refused_) refuse_bad_lines(bad_);
    const std::uint64_t bytes = std::max(reader_.total_input_bytes(), input_bytes_);
    if (!options_.label.empty()) progress_.finish(bytes);
    return {.bad = std::move(bad_), .input_bytes = bytes};
  }

 private:
  bool read(std::size_t slot) {
    CorpusChunk& chunk = pieces_[slot].chunk;
    if (chunk.bytes.capacity() > kKeepBytes) chunk.bytes = {};
    return reader_.next(chunk);
  }

  std::function<void(std::size_t)> make_worker(int worker) {
    // Shared because std::function must be copyable; no copy is ever used by two threads.
    const auto parser = std::make_shared<DocumentParser>(options_.corpus);
    return [this, parser, work = stages_.make_worker(worker)](std::size_t slot) {
      const auto document = [&](const Document& d) {
        if (refused_) return;
        try {
          work(d, slot);
        } catch (...) {
          rethrow_from(d);
        }
      };
      parser->parse(pieces_[slot].chunk, document, pieces_[slot].bad);
    };
  }

  void write(std::size_t slot) {
    Piece& piece = pieces_[slot];
    if (piece.bad.count > 0 && !refused_ && options_.corpus.on_bad_line == OnBadLine::refuse) {
      log::warn("{}; nothing will be written, counting the other bad lines", piece.bad.first[0]);
      refused_ = true;
    }
    bad_.merge(piece.bad);
    piece.bad = {};
    if (!refused_) stages_.write(slot);
    input_bytes_ = piece.chunk.input_bytes;
    if (!options_.label.empty()) progress_.update(input_bytes_);
  }

  const DocumentPipelineOptions& options_;
  const DocumentStages& stages_;
  CorpusReader reader_;
  std::vector<Piece> pieces_;
  Progress progress_;
  BadLines bad_;
  std::uint64_t input_bytes_ = 0;      // read so far, of pipes too
  std::atomic<bool> refused_ = false;  // a bad line was seen and is refused
};

}  // namespace

CorpusSummary run_documents(const DocumentPipelineOptions& options, const DocumentStages& stages) {
  return DocumentPipeline(options, stages).run();
}

}  // namespace grist
