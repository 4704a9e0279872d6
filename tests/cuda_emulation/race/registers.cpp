#include "registers.h"

#include <utility>

#include "../block.h"

namespace grist::emu {

namespace {
constexpr std::size_t kWord = 4;

// First word and the one behind the last, counted from the stack's bottom.
std::pair<std::size_t, std::size_t> words(const Stack& stack, const void* p, std::size_t bytes) {
  const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(p) -
                                               static_cast<const std::byte*>(stack.bottom()));
  return {offset / kWord, (offset + bytes + kWord - 1) / kWord};
}
}  // namespace

void Registers::block_begins(std::size_t threads) {
  if (threads_.size() < threads) threads_.resize(threads);
  for (Thread& t : threads_) {
    t.fence = 0;
    t.used.clear();
  }
}

void Registers::fence(int thread) {
  Thread& t = threads_[static_cast<std::size_t>(thread)];
  t.fence = ++now_;
  t.last.resize(find_this_block()->thread(thread).stack.size() / kWord);
}

void Registers::begin(int thread, const void* p, std::size_t bytes, Where where) {
  Thread& t = threads_[static_cast<std::size_t>(thread)];
  const auto* begin = static_cast<const std::byte*>(p);
  for (Used& u : t.used) {
    if (u.begin != begin) continue;
    ++u.products;  // nobody may have touched them since the product before
    return;
  }
  const auto [first, last] = words(find_this_block()->thread(thread).stack, p, bytes);
  for (std::size_t w = first; w < last; ++w) {
    if (t.fence == 0 || t.last[w] >= t.fence)
      fail("no wgmma.fence between this wgmma and the last access to its registers, by thread " +
               std::to_string(thread),
           where);
  }
  t.used.push_back({begin, begin + bytes, 1});
}

void Registers::end(int thread, const void* p) {
  std::vector<Used>& used = threads_[static_cast<std::size_t>(thread)].used;
  std::erase_if(used, [p](Used& u) { return u.begin == p && --u.products == 0; });
}

bool Registers::touch(int thread, const void* p, std::size_t bytes) {
  Thread& t = threads_[static_cast<std::size_t>(thread)];
  if (t.fence == 0) return true;
  const auto* begin = static_cast<const std::byte*>(p);
  for (const Used& u : t.used) {
    if (begin < u.end && u.begin < begin + bytes) return false;
  }
  const auto [first, last] = words(find_this_block()->thread(thread).stack, p, bytes);
  for (std::size_t w = first; w < last; ++w) t.last[w] = now_;
  return true;
}

}  // namespace grist::emu
