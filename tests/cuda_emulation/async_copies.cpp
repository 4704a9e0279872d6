#include "async_copies.h"

#include <cstring>

#include "block.h"
#include "observer.h"

namespace grist::emu {

void Copy::operator()() const {
  if (observer != nullptr)
    observer->copy_ends(find_this_block()->current().number, to, bytes, Observer::StoreAt::end);
  if (from == nullptr)
    std::memset(to, 0, bytes);
  else
    std::memcpy(to, from, bytes);
}

void start_copy(const Copy& copy, Where where) {
  Block& block = *find_this_block();
  Thread& thread = block.current();
  if (observer != nullptr) {
    if (copy.from != nullptr) observer->reads(copy.from, copy.bytes, Proxy::generic, where);
    observer->copy_begins(thread.number, copy.to, copy.bytes, Proxy::generic, where);
  }
  std::memset(copy.to, 0xff, copy.bytes);
  thread.copies.start(copy, block.grid().options.async, block.random());
}

}  // namespace grist::emu
