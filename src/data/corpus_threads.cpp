// A corpus on many threads, in no particular order: for counting.
#include <algorithm>
#include <map>
#include <mutex>

#include "grist/core/check.h"
#include "grist/core/progress.h"
#include "grist/core/stop.h"
#include "grist/data/corpus.h"

namespace grist {

BadLines for_each_document(const CorpusOptions& options, ThreadPool& pool, std::string_view label,
                           const std::function<void(std::string_view, int)>& document) {
  CorpusReader reader(options);
  Progress progress(std::string(label), reader.total_input_bytes(), "MB", 1e6);
  std::mutex mutex;
  std::int64_t chunks = 0;
  std::uint64_t input_bytes = 0;
  bool refused = false, failed = false;
  std::map<std::int64_t, BadLines> bad_of_chunk;  // merged in the order of the input
  pool.run(pool.size(), [&](std::int64_t, int worker) {
    DocumentParser parser(options);
    CorpusChunk chunk;
    try {
      for (;;) {
        std::int64_t number = 0;
        bool count_only = false;
        {
          const std::lock_guard lock(mutex);
          if (stop_signal() != 0) fail(ExitCode::preempted, "stopped by signal {}", stop_signal());
          if (failed || !reader.next(chunk)) return;
          number = chunks++;
          input_bytes = chunk.input_bytes;
          if (!label.empty()) progress.update(input_bytes);
          count_only = refused;
        }
        BadLines bad;
        parser.parse(
            chunk,
            [&](std::string_view text) {
              if (!count_only) document(text, worker);
            },
            bad);
        if (bad.count == 0) continue;
        const std::lock_guard lock(mutex);
        refused = options.on_bad_line == OnBadLine::refuse;
        bad_of_chunk.emplace(number, std::move(bad));
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failed = true;
      throw;
    }
  });
  BadLines bad;
  for (const auto& [number, lines] : bad_of_chunk) bad.merge(lines);
  if (refused) refuse_bad_lines(bad);
  if (!label.empty()) progress.finish(input_bytes);
  return bad;
}

}  // namespace grist
