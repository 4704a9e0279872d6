// Tensor maps and the TMA: boxes of a tensor to and from shared memory.
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "block.h"
#include "device_memory.h"
#include "mbarrier.h"
#include "observer.h"
#include "state.h"

namespace grist::emu {

namespace {

constexpr std::uint64_t kMagic = 0x70616d726f736e74;
constexpr int kMaxRank = 5;
constexpr std::uint32_t kChunk = 16;  // bytes: what swizzling moves

// What the emulation keeps in a CUtensorMap. Extents innermost first.
struct Map {
  std::uint64_t magic = kMagic;
  std::byte* base = nullptr;
  std::array<std::uint64_t, kMaxRank> extents = {1, 1, 1, 1, 1};
  std::array<std::uint64_t, kMaxRank - 1> strides = {};  // bytes
  std::array<std::uint16_t, kMaxRank> box = {1, 1, 1, 1, 1};
  std::uint16_t rank = 0;
  std::uint16_t element_bytes = 0;
  std::uint16_t swizzle_bytes = 0;  // 0, 32, 64, 128
};
static_assert(sizeof(Map) <= sizeof(CUtensorMap), "a map fits in the driver's");

int element_bytes(CUtensorMapDataType type) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8: return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16: return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32: return 4;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64: return 8;
    default: return 0;
  }
}

// Empty: the map is as the driver wants it.
std::string problem(const Map& m) {
  if (reinterpret_cast<std::uintptr_t>(m.base) % 16 != 0) return "base not aligned to 16 bytes";
  std::uint64_t last = (m.extents[0] - 1) * m.element_bytes;
  for (std::size_t i = 0; i < m.rank; ++i) {
    if (m.extents[i] < 1 || m.extents[i] > std::uint64_t{1} << 32) return "an extent out of range";
    if (m.box[i] < 1 || m.box[i] > 256) return "a box not 1 to 256 wide";
    if (i == 0) continue;
    if (m.strides[i - 1] % 16 != 0) return "a stride not a multiple of 16 bytes";
    last += (m.extents[i] - 1) * m.strides[i - 1];
  }
  const int line = m.box[0] * m.element_bytes;
  if (line % static_cast<int>(kChunk) != 0) return "box lines not a multiple of 16 bytes";
  if (m.swizzle_bytes != 0 && line > m.swizzle_bytes) return "box lines wider than the swizzle";
  const Range r = find_range(m.base);
  if (r.place != Place::device) return "not device memory";
  if (m.base + last + m.element_bytes > r.begin + r.bytes) return "goes past its allocation";
  return "";
}

const Map& unpacked(const CUtensorMap* map, int rank, Where where) {
  if (reinterpret_cast<std::uintptr_t>(map) % 64 != 0)
    fail("a tensor map not aligned to 64 bytes", where);
  const Map& m = *reinterpret_cast<const Map*>(map);
  if (m.magic != kMagic) fail("not a tensor map", where);
  if (m.rank != rank) fail("a tensor map of rank " + std::to_string(m.rank), where);
  return m;
}

// Calls f(shared chunk, global address of its first element, elements) for each 16 bytes of the
// box; null and 0 .. the whole chunk lies outside. Elements before the tensor do not exist.
template <class F>
void for_chunks(const Map& m, std::byte* shared, const std::array<int, kMaxRank>& at, F&& f) {
  const std::uint32_t address = shared_address(shared, {});
  const std::uint32_t mask = m.swizzle_bytes == 0 ? 0 : m.swizzle_bytes / kChunk - 1;
  const std::int64_t per_chunk = kChunk / m.element_bytes;
  std::uint32_t offset = 0;
  std::array<int, kMaxRank> i = {};
  for (;;) {
    bool inside = true;
    std::byte* line = m.base;
    for (std::size_t d = 1; d < m.rank; ++d) {
      const std::int64_t c = std::int64_t{at[d]} + i[d];
      inside = inside && c >= 0 && c < static_cast<std::int64_t>(m.extents[d]);
      if (inside) line += static_cast<std::uint64_t>(c) * m.strides[d - 1];
    }
    for (std::int64_t x = at[0]; x < at[0] + m.box[0]; x += per_chunk, offset += kChunk) {
      const std::uint32_t plain = address + offset;
      const std::uint32_t swizzled = plain ^ ((plain >> 7 & mask) << 4);
      const std::int64_t left = static_cast<std::int64_t>(m.extents[0]) - x;
      const bool some = inside && x >= 0 && left > 0;
      f(shared + (std::int64_t{swizzled} - address), some ? line + x * m.element_bytes : nullptr,
        some ? static_cast<std::size_t>(std::min(left, per_chunk)) * m.element_bytes : 0);
    }
    std::size_t d = 1;
    while (d < m.rank && ++i[d] == m.box[d]) i[d++] = 0;
    if (d >= m.rank) return;
  }
}

std::uint32_t box_bytes(const Map& m) {
  std::uint32_t bytes = m.element_bytes;
  for (const std::uint16_t b : m.box) bytes *= b;
  return bytes;
}

const Map& checked(const CUtensorMap* map, int rank, const void* shared, int x, Where where) {
  const Map& m = unpacked(map, rank, where);
  if (!find_this_block()->shared().contains(shared, box_bytes(m)))
    fail("a TMA box that does not lie in shared memory", where);
  if (shared_address(shared, where) % 128 != 0)
    fail("a TMA box not aligned to 128 bytes of shared memory", where);
  if (std::int64_t{x} * m.element_bytes % kChunk != 0)  // for_chunks() wants it; hardware does not
    fail("the emulation has no TMA boxes that start inside 16 bytes", where);
  return m;
}

void load(void* shared, const CUtensorMap* map, int rank, ptx::Barrier* b,
          const std::array<int, kMaxRank>& at, Where where) {
  const Map m = checked(map, rank, shared, at[0], where);
  auto* to = static_cast<std::byte*>(shared);
  Block& block = *find_this_block();
  const int thread = block.current().number;
  if (block.proxy().barrier_is_new(b))
    fail("a TMA load to an mbarrier with no fence after its initialisation", where);
  if (observer != nullptr) {
    for_chunks(m, to, at, [&](std::byte*, const std::byte* from, std::size_t bytes) {
      if (bytes == 0) return;
      observer->hands_over(from, bytes, where);
      observer->reads(from, bytes, Proxy::async, where);
    });
    observer->copy_begins(thread, to, box_bytes(m), Proxy::async, where);
    observer->release(thread, b);  // whom the barrier lets go on sees the bytes
  }
  std::memset(to, 0xff, box_bytes(m));
  block.proxy().load(
      [=] {
        for_chunks(m, to, at, [](std::byte* chunk, const std::byte* from, std::size_t bytes) {
          std::memset(chunk, 0, kChunk);
          if (bytes == 0) return;
          if (observer != nullptr) observer->takes_back(from, bytes);
          std::memcpy(chunk, from, bytes);
        });
        if (observer != nullptr)
          observer->copy_ends(thread, to, box_bytes(m), Observer::StoreAt::begin);
        complete_bytes(b, box_bytes(m), where);
      },
      block.grid().options.async, block.random());
}

void store(const CUtensorMap* map, int rank, const void* shared,
           const std::array<int, kMaxRank>& at, Where where) {
  const Map m = checked(map, rank, shared, at[0], where);
  auto* from = static_cast<std::byte*>(const_cast<void*>(shared));
  Block& block = *find_this_block();
  if (observer != nullptr) {
    for_chunks(m, from, at, [&](const std::byte* chunk, std::byte*, std::size_t bytes) {
      if (bytes > 0) observer->hands_over(chunk, bytes, where);
    });
  }
  block.proxy()
      .stores(block.current().number)
      .start(
          [=] {
            for_chunks(m, from, at,
                       [where](const std::byte* chunk, std::byte* to, std::size_t bytes) {
                         if (bytes == 0) return;
                         if (observer != nullptr) {
                           observer->takes_back(chunk, bytes);
                           observer->reads(chunk, bytes, Proxy::async, where);
                           observer->writes(to, bytes, Proxy::async, where);
                         }
                         std::memcpy(to, chunk, bytes);
                       });
          },
          block.grid().options.async, block.random());
}

}  // namespace
}  // namespace grist::emu

namespace grist::ptx {

void tma_prefetch_map(const CUtensorMap* map, Where where) {
  if (reinterpret_cast<std::uintptr_t>(map) % 64 != 0)
    emu::fail("a tensor map not aligned to 64 bytes", where);
}
void tma_load_2d(void* shared, const CUtensorMap* map, Barrier* b, int x, int y, Where where) {
  emu::load(shared, map, 2, b, {x, y}, where);
}
void tma_load_3d(void* shared, const CUtensorMap* map, Barrier* b, int x, int y, int z,
                 Where where) {
  emu::load(shared, map, 3, b, {x, y, z}, where);
}
void tma_store_2d(const CUtensorMap* map, const void* shared, int x, int y, Where where) {
  emu::store(map, 2, shared, {x, y}, where);
}
void tma_store_3d(const CUtensorMap* map, const void* shared, int x, int y, int z, Where where) {
  emu::store(map, 3, shared, {x, y, z}, where);
}
void bulk_commit() {
  emu::Block& b = *emu::find_this_block();
  b.proxy().stores(b.current().number).commit();
}
void bulk_wait_groups(int left) {
  emu::Block& b = *emu::find_this_block();
  b.proxy().stores(b.current().number).wait(left, b.grid().options.async, b.random());
}

}  // namespace grist::ptx

// ---- the driver's functions ---------------------------------------------------------------------

CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank,
                                void* base, const cuuint64_t* extents, const cuuint64_t* strides,
                                const cuuint32_t* box, const cuuint32_t* steps,
                                CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  using namespace grist::emu;
  Map m;
  m.base = static_cast<std::byte*>(base);
  m.rank = static_cast<std::uint16_t>(rank);
  m.element_bytes = static_cast<std::uint16_t>(element_bytes(type));
  m.swizzle_bytes = swizzle == CU_TENSOR_MAP_SWIZZLE_NONE  ? 0
                    : swizzle == CU_TENSOR_MAP_SWIZZLE_32B ? 32
                    : swizzle == CU_TENSOR_MAP_SWIZZLE_64B ? 64
                                                           : 128;
  std::string wrong;
  if (rank < 1 || rank > kMaxRank || m.element_bytes == 0 || swizzle > CU_TENSOR_MAP_SWIZZLE_128B ||
      interleave != CU_TENSOR_MAP_INTERLEAVE_NONE || fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) {
    wrong = "of a kind that the emulation lacks";
  } else {
    for (std::size_t i = 0; i < rank; ++i) {
      m.extents[i] = extents[i];
      m.box[i] = static_cast<std::uint16_t>(std::min(box[i], 0xffffU));
      if (i > 0) m.strides[i - 1] = strides[i - 1];
      if (steps[i] != 1) wrong = "with steps";
    }
    if (wrong.empty()) wrong = problem(m);
  }
  if (!wrong.empty()) {
    report(cudaErrorInvalidValue, "a tensor map: " + wrong);
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::memset(map, 0, sizeof *map);
  std::memcpy(static_cast<void*>(map), &m, sizeof m);
  return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** entry, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  const bool known = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
  *entry = known ? reinterpret_cast<void*>(&cuTensorMapEncodeTiled) : nullptr;
  if (found != nullptr)
    *found = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
