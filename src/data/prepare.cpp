#include "grist/data/prepare.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/core/progress.h"
#include "grist/core/stop.h"

namespace grist {

namespace {

constexpr std::size_t kKeepBytes = std::size_t{8} << 20;  // capacity a slot keeps between chunks

struct Encoded {
  std::vector<std::int32_t> ids;
  std::vector<std::size_t> ends;  // of documents, in ids
  std::int64_t empty = 0;
  std::uint64_t text_bytes = 0;
  BadLines bad;

  void clear() {
    if (ids.capacity() * sizeof ids[0] > kKeepBytes) ids = {};
    ids.clear();
    ends.clear();
    empty = 0;
    text_bytes = 0;
    bad = {};
  }
};

// Chunk number s lives in slot s % size from reading to writing, which bounds the memory and keeps
// the order: the reader waits for a free slot, encoders take the next read chunk, the writer waits
// for the next number.
class Pipeline {
 public:
  Pipeline(const PrepareOptions& options, int threads)
      : options_(options),
        reader_(options.corpus),
        slots_(2 * static_cast<std::size_t>(threads) + 2) {
    threads_.emplace_back([this] { guard([this] { read(); }); });
    for (int t = 0; t < threads; ++t)
      threads_.emplace_back([this] { guard([this] { encode(); }); });
  }
  ~Pipeline() {
    stop(nullptr);
    for (std::thread& t : threads_) t.join();
  }
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  std::uint64_t total_input_bytes() const { return reader_.total_input_bytes(); }
  // Bad lines were seen and are refused: from here on chunks are only searched for more of them.
  void count_only() {
    const std::lock_guard lock(mutex_);
    count_only_ = true;
  }

  // Calls write(encoded, input bytes so far) for every chunk in order. Rethrows the first error of
  // any thread.
  template <class Write> void drain(const Write& write) {
    for (std::size_t s = 0;; ++s) {
      Slot& slot = slots_[s % slots_.size()];
      {
        std::unique_lock lock(mutex_);
        while (!(slot.phase == Phase::encoded || error_ || (all_read_ && s == chunks_read_))) {
          changed_.wait_for(lock, std::chrono::milliseconds(200));
          refuse_stop();
        }
        if (error_) std::rethrow_exception(error_);
        if (slot.phase != Phase::encoded) return;
      }
      refuse_stop();
      write(slot.out, slot.chunk.input_bytes);
      slot.out.clear();
      set(slot, Phase::free);
    }
  }

 private:
  enum class Phase { free, read, encoding, encoded };
  struct Slot {
    Phase phase = Phase::free;
    CorpusChunk chunk;
    Encoded out;
  };

  static void refuse_stop() {
    if (stop_signal() != 0)
      fail(ExitCode::preempted, "stopped by signal {}; no output was written", stop_signal());
  }

  void set(Slot& slot, Phase phase) {
    const std::lock_guard lock(mutex_);
    slot.phase = phase;
    changed_.notify_all();
  }

  void stop(std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = error;
    stopped_ = true;
    changed_.notify_all();
  }

  template <class Work> void guard(const Work& work) {
    try {
      work();
    } catch (...) {
      stop(std::current_exception());
    }
  }

  void read() {
    for (std::size_t s = 0;; ++s) {
      Slot& slot = slots_[s % slots_.size()];
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stopped_ || slot.phase == Phase::free; });
        if (stopped_) return;
      }
      if (slot.chunk.bytes.capacity() > kKeepBytes) slot.chunk.bytes = {};
      const bool more = reader_.next(slot.chunk);
      const std::lock_guard lock(mutex_);
      if (more) {
        slot.phase = Phase::read;
        chunks_read_ = s + 1;
      } else {
        all_read_ = true;
      }
      changed_.notify_all();
      if (!more) return;
    }
  }

  void encode() {
    DocumentParser parser(options_.corpus);
    const TextEncoder encoder = options_.make_encoder();
    for (;;) {
      Slot* slot = nullptr;
      bool count_only = false;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stopped_ || all_read_ || chunks_taken_ < chunks_read_; });
        if (stopped_ || chunks_taken_ == chunks_read_) return;
        slot = &slots_[chunks_taken_++ % slots_.size()];
        slot->phase = Phase::encoding;
        count_only = count_only_;
      }
      Encoded& out = slot->out;
      const auto document = [&](std::string_view text) {
        if (count_only) return;
        const std::size_t before = out.ids.size();
        encoder(text, out.ids);
        if (out.ids.size() == before) {
          ++out.empty;
          return;
        }
        if (options_.eod_id >= 0) out.ids.push_back(static_cast<std::int32_t>(options_.eod_id));
        out.ends.push_back(out.ids.size());
        out.text_bytes += text.size();
      };
      parser.parse(slot->chunk, document, out.bad);
      set(*slot, Phase::encoded);
    }
  }

  const PrepareOptions& options_;
  CorpusReader reader_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Slot> slots_;
  std::size_t chunks_read_ = 0, chunks_taken_ = 0;
  bool all_read_ = false, stopped_ = false, count_only_ = false;
  std::exception_ptr error_;
  std::vector<std::thread> threads_;  // last: started when the rest stands
};

void check_options(const PrepareOptions& options) {
  GRIST_CHECK(options.make_encoder != nullptr, "prepare needs an encoder");
  GRIST_CHECK(options.vocab_size > 0, "vocab_size = {}", options.vocab_size);
  GRIST_CHECK(options.eod_id < options.vocab_size, "eod_id {} of a vocabulary of {}",
              options.eod_id, options.vocab_size);
}

int available_cores() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

std::string PrepareSummary::line() const {
  const double mb = static_cast<double>(text_bytes) / 1e6;
  const auto count = static_cast<double>(std::max<std::int64_t>(tokens, 1));
  const double time = std::max(seconds, 1e-9);
  return fmt::format(
      "{} documents, {} tokens, {:.1f} MB of text ({:.3f} bytes a token), {} empty documents left "
      "out, {} bad lines skipped; {:.1f} s, {:.1f} MB/s, {:.0f} tokens/s",
      documents, tokens, mb, static_cast<double>(text_bytes) / count, empty_documents, bad.count,
      seconds, mb / time, static_cast<double>(tokens) / time);
}

PrepareSummary prepare(const PrepareOptions& options) {
  check_options(options);
  const auto start = std::chrono::steady_clock::now();
  const int threads = options.threads > 0 ? options.threads : available_cores();
  TokenFileWriter writer(options.output, options.vocab_size, options.overwrite);
  Pipeline pipeline(options, threads);
  Progress progress("prepare", pipeline.total_input_bytes(), "MB", 1e6);
  PrepareSummary summary;
  const bool refuse = options.corpus.on_bad_line == OnBadLine::refuse;
  pipeline.drain([&](const Encoded& chunk, std::uint64_t input_bytes) {
    if (chunk.bad.count > 0 && summary.bad.count == 0 && refuse) {
      log::warn("{}; nothing will be written, counting the other bad lines", chunk.bad.first[0]);
      pipeline.count_only();
    }
    summary.bad.merge(chunk.bad);
    std::size_t begin = 0;
    for (const std::size_t end : chunk.ends) {
      writer.add_document(std::span(chunk.ids).subspan(begin, end - begin));
      begin = end;
    }
    summary.empty_documents += chunk.empty;
    summary.text_bytes += chunk.text_bytes;
    summary.input_bytes = input_bytes;
    if (options.progress) progress.update(input_bytes);
  });
  if (summary.bad.count > 0 && refuse) refuse_bad_lines(summary.bad);
  if (summary.bad.count > 0 && writer.num_tokens() == 0)
    fail(ExitCode::bad_data, "{}: nothing is left to write: {}", options.output.string(),
         summary.bad.summary());
  writer.finish({.tokenizer_hash = options.tokenizer_hash,
                 .vocab_size = options.vocab_size,
                 .eod_id = options.eod_id,
                 .source_bytes = static_cast<std::int64_t>(summary.text_bytes)});
  summary.documents = writer.num_documents();
  summary.tokens = writer.num_tokens();
  summary.input_bytes = pipeline.total_input_bytes();
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (options.progress) progress.finish(summary.input_bytes);
  return summary;
}

}  // namespace grist
