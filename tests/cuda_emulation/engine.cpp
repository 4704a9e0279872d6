// The functions of engine.h, for the block of this OS thread.
#include "emulation/engine.h"

#include "block.h"
#include "observer.h"

namespace grist::emu {

Observer* observer = nullptr;

namespace {
Block& block() {
  return *find_this_block();
}
}  // namespace

void fail(const std::string& what, Where where) {
  block().fail(what, where);
}
void warp_collective(const char* name, unsigned mask, Combine combine, void* payload, Where where) {
  block().warp_collective(name, mask, combine, payload, where);
}
void warpgroup_collective(const char* name, Combine combine, void* payload, Where where) {
  block().warpgroup_collective(name, combine, payload, where);
}
BarrierSums barrier_sync(int id, int threads, bool predicate, Where where) {
  return block().barrier(id, threads, predicate, true, where);
}
void barrier_arrive(int id, int threads, Where where) {
  block().barrier(id, threads, false, false, where);
}
void pause(Where where) {
  block().pause(where, false);
}
void pause_for_others(Where where) {
  block().pause(where, true);
}

void* dynamic_shared(std::size_t bytes, std::size_t alignment, Where where) {
  SharedMemory& shared = block().shared();
  if (bytes > shared.size())
    fail("the kernel uses " + std::to_string(bytes) +
             " bytes of dynamic shared memory, the launch gave " + std::to_string(shared.size()),
         where);
  if (alignment > kSharedAlignment) fail("shared memory is aligned to 1024 bytes at most", where);
  return shared.data();
}

std::uint32_t shared_address(const void* p, Where where) {
  const SharedMemory& shared = block().shared();
  if (!shared.contains(p, 0)) fail("not a pointer into dynamic shared memory", where);
  return shared.address(p);
}

int lane() {
  return block().current().lane();
}

}  // namespace grist::emu
