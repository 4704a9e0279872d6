// Encoding speed on one thread and on all: MB of text a second.
//   tokenizer_bench TOKENIZER.json [TEXT_FILE] [THREADS]
// Without a file: English-like text generated from a fixed seed. Documents are cut at blank lines;
// the best of five passes, with encoders that have seen the text and with fresh ones. "a core"
// divides by CPU time, so a busy machine does not hide the speed of the code.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <thread>

#include "data/tokenizer/parity_text.h"
#include "grist/core/context.h"
#include "grist/core/error.h"
#include "grist/core/file.h"
#include "grist/data/tokenizer.h"

namespace grist {
namespace {

// Words of a made-up vocabulary by Zipf's law, with capitals, commas, full stops and paragraphs.
std::string english_like(std::size_t bytes) {
  test::Lcg r(2024);
  std::vector<std::string> words;
  static constexpr std::string_view kParts[] = {"th", "e",  "an", "in", "er", "re", "on", "at",
                                                "st", "en", "or", "ti", "es", "ar", "al", "ing"};
  for (int i = 0; i < 40000; ++i) {
    std::string word;
    const std::uint32_t parts = 1 + r.below(2) + (i > 200 ? r.below(3) : 0);
    for (std::uint32_t k = 0; k < parts; ++k) word += kParts[r.below(std::size(kParts))];
    words.push_back(word);
  }
  std::string out;
  bool capital = true;
  while (out.size() < bytes) {
    // Low ranks are far more frequent than high ones, as in real text.
    const double u = (1.0 + r.below(1U << 20U)) / (1U << 20U);
    std::string word =
        words[static_cast<std::size_t>(static_cast<double>(r.below(40000)) * u * u * u)];
    if (capital) word[0] = static_cast<char>(word[0] - 32);
    out += word;
    const std::uint32_t end = r.below(24);
    capital = end < 2;
    out += end == 0 ? ".\n\n" : end == 1 ? ". " : end == 2 ? ", " : end == 3 ? "'s " : " ";
  }
  return out;
}

std::vector<std::string_view> documents(std::string_view text) {
  std::vector<std::string_view> out;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = text.find("\n\n", begin + 2000);
    end = end == std::string_view::npos ? text.size() : end + 2;
    out.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return out;
}

void measure(const Tokenizer& tokenizer, const std::string& text, int threads, bool fresh) {
  const std::vector<std::string_view> docs = documents(text);
  ThreadPool pool(threads);
  double best = 1e30;
  double best_cpu = 1e30;
  std::size_t ids = 0;
  std::vector<Encoder> encoders;
  std::vector<std::vector<std::int32_t>> out(static_cast<std::size_t>(threads));
  std::vector<std::size_t> counts(static_cast<std::size_t>(threads));
  for (int pass = 0; pass < 5; ++pass) {
    if (fresh || pass == 0) {
      encoders.clear();
      for (int t = 0; t < threads; ++t) encoders.emplace_back(tokenizer);
    }
    counts.assign(counts.size(), 0);
    const std::clock_t cpu_start = std::clock();
    const auto start = std::chrono::steady_clock::now();
    pool.run(static_cast<std::int64_t>(docs.size()), [&](std::int64_t i, int worker) {
      out[worker].clear();
      encoders[worker].encode(docs[i], out[worker]);
      counts[worker] += out[worker].size();
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::min(best, seconds.count());
    best_cpu = std::min(best_cpu, static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC);
    ids = 0;
    for (const std::size_t c : counts) ids += c;
  }
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  std::printf("%2d thread%s  %-14s %8.1f MB/s  %8.1f MB/s a core  %.2f bytes a token\n", threads,
              threads == 1 ? " " : "s", fresh ? "cold cache" : "warm cache", megabytes / best,
              megabytes / best_cpu, static_cast<double>(text.size()) / static_cast<double>(ids));
}

int run(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: tokenizer_bench TOKENIZER.json [TEXT_FILE] [THREADS]\n");
    return static_cast<int>(ExitCode::usage);
  }
  const Tokenizer tokenizer = Tokenizer::load(argv[1]);
  const std::string text = argc > 2 ? read_text(argv[2]) : english_like(16U << 20U);
  const int threads =
      argc > 3 ? std::atoi(argv[3]) : static_cast<int>(std::thread::hardware_concurrency());
  std::printf("%.1f MB of %s\n", static_cast<double>(text.size()) / 1e6,
              argc > 2 ? argv[2] : "generated text");
  for (const bool fresh : {true, false}) {
    measure(tokenizer, text, 1, fresh);
    if (threads > 1) measure(tokenizer, text, threads, fresh);
  }
  return 0;
}

}  // namespace
}  // namespace grist

int main(int argc, char** argv) {
  try {
    return grist::run(argc, argv);
  } catch (const grist::Error& e) {
    std::fprintf(stderr, "tokenizer_bench: %s\n", e.what());
    return static_cast<int>(e.code());
  }
}
