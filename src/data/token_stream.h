#pragma once
// One token file as a stream: its documents in a drawn order, epoch after epoch without end, or in
// the order of the file, once. Random access: the position of every 64th document of an epoch is
// kept, the ones between are walked.
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "grist/core/random.h"
#include "grist/data/token_file.h"

namespace grist {

class TokenStream {
 public:
  enum class Order { file, drawn };
  // `key` names the random numbers of the drawn order, with the seed. bad_data: no tokens.
  TokenStream(const std::string& path, Order order);
  void draw_with(std::uint64_t seed, std::string key);  // before the first read of a drawn order

  const TokenFile& file() const { return file_; }
  std::int64_t tokens_an_epoch() const { return file_.num_tokens(); }
  // Tokens [position, position + out.size()) of the stream; starts[i] is 1 where a document begins.
  void read(std::int64_t position, std::int64_t vocab_size, std::span<std::int32_t> out,
            std::span<std::uint8_t> starts) const;
  // Sample j of the drawn order, as a position: the samples that start in one epoch are permuted.
  std::int64_t sample_position(std::int64_t j, std::int64_t seq_length) const;

 private:
  static constexpr std::int64_t kStride = 64;
  struct Epoch;  // the order of documents in one epoch
  struct Cursor;
  std::shared_ptr<const Epoch> epoch(std::int64_t number) const;
  std::vector<std::int64_t> marks_of(const Epoch& e) const;
  Cursor find(std::int64_t position) const;

  TokenFile file_;
  Order order_;
  std::uint64_t seed_ = 0;
  std::string key_;
  mutable std::unique_ptr<std::mutex> mutex_;
  mutable std::vector<std::shared_ptr<const Epoch>> recent_;  // newest last; a handful
};

}  // namespace grist
