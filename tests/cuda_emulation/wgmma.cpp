// What warpgroups do together: wgmma with operands in shared memory, and stmatrix of a warp.
#include <array>
#include <cstring>
#include <string>

#include "block.h"
#include "mbarrier.h"
#include "observer.h"

namespace grist::emu {

namespace {

constexpr int kRows = 64;
constexpr int kDepth = 16;
constexpr int kMaxColumns = 256;

// One operand: element (i, k) for row or column i.
class Matrix {
 public:
  Matrix(std::uint64_t descriptor, bool mn_major) : mn_major_(mn_major) {
    start_ = static_cast<std::uint32_t>(descriptor & 0x3fffU) << 4;
    block_ = static_cast<std::uint32_t>(descriptor >> 16 & 0x3fffU) << 4;
    group_ = static_cast<std::uint32_t>(descriptor >> 32 & 0x3fffU) << 4;
  }
  float at(const SharedMemory& shared, std::uint32_t i, std::uint32_t k) const {
    const std::byte* p = place(shared, i, k);
    if (!shared.contains(p, 2)) fail("wgmma reads outside shared memory", {});
    std::uint16_t bits = 0;
    std::memcpy(&bits, p, sizeof bits);
    return __uint_as_float(std::uint32_t{bits} << 16);
  }
  // Calls f(p) for all that a wgmma reads of an operand of `count` rows or columns, 16 bytes a
  // time.
  template <class F> void for_chunks(const SharedMemory& shared, int count, F&& f) const {
    const std::uint32_t n = static_cast<std::uint32_t>(count);
    for (std::uint32_t i = 0; i < n; i += mn_major_ ? 8 : 1) {
      for (std::uint32_t k = 0; k < kDepth; k += mn_major_ ? 1 : 8) f(place(shared, i, k));
    }
  }

 private:
  const std::byte* place(const SharedMemory& shared, std::uint32_t i, std::uint32_t k) const {
    const std::uint32_t plain =
        start_ + (mn_major_ ? i / 64 * block_ + i % 64 * 2 + k / 8 * group_ + k % 8 * 128
                            : i / 8 * group_ + i % 8 * 128 + k * 2);
    const std::uint32_t address = plain ^ ((plain >> 7 & 7U) << 4);
    return shared.data() + (std::int64_t{address} - shared.address(shared.data()));
  }
  std::uint32_t start_, block_, group_;
  bool mn_major_;
};

struct Product {
  Accumulators* d;
  Matrix a, b;
  int columns;
  bool add;
  int warpgroup;
  Where where;

  // Calls f(p) for each 16 bytes of the operands.
  template <class F> void for_chunks(F&& f) const {
    const SharedMemory& shared = find_this_block()->shared();
    a.for_chunks(shared, kRows, f);
    b.for_chunks(shared, columns, f);
  }
  void perform() const {
    const SharedMemory& shared = find_this_block()->shared();
    if (observer != nullptr)
      for_chunks([this](const std::byte* p) { observer->reads(p, 16, Proxy::async, where); });
    static thread_local std::vector<float> room(kRows * kMaxColumns + kDepth * kMaxColumns);
    float* sums = room.data();
    float* other = sums + kRows * kMaxColumns;
    for (int k = 0; k < kDepth; ++k) {
      for (int n = 0; n < columns; ++n)
        other[k * columns + n] =
            b.at(shared, static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(k));
    }
    for (int m = 0; m < kRows; ++m) {
      float* row = sums + m * columns;
      std::memset(row, 0, sizeof(float) * static_cast<std::size_t>(columns));
      for (int k = 0; k < kDepth; ++k) {
        const float x = a.at(shared, static_cast<std::uint32_t>(m), static_cast<std::uint32_t>(k));
        const float* y = other + k * columns;
        for (int n = 0; n < columns; ++n) row[n] += x * y[n];
      }
    }
    for (int t = 0; t < kWarpgroupThreads; ++t) hand_out(sums, t);
    find_this_block()->proxy().warpgroup(warpgroup).product_ends(*d, warpgroup);
  }

 private:
  void hand_out(const float* sums, int t) const {
    const int lane = t % kWarpLanes;
    for (int i = 0; i < columns / 2; ++i) {
      const int row = 16 * (t / kWarpLanes) + lane / 4 + 8 * (i / 2 % 2);
      const int column = 8 * (i / 4) + 2 * (lane % 4) + i % 2;
      float& to = d->of(t)[i];
      to = (add ? to : 0.0F) + sums[row * columns + column];
    }
  }
};

struct ProductPayload {
  float* d;
  std::uint64_t a, b;
  int columns;
  bool mn_major_a, mn_major_b, add;
  Where where;
  bool same(const ProductPayload& o) const {
    return a == o.a && b == o.b && columns == o.columns && mn_major_a == o.mn_major_a &&
           mn_major_b == o.mn_major_b && add == o.add;
  }
};

int this_warpgroup() {
  return find_this_block()->current().number / kWarpgroupThreads;
}

void combine_product(void* const* payloads, unsigned) {
  const auto& first = *static_cast<const ProductPayload*>(payloads[0]);
  Accumulators::Places d;
  for (int t = 0; t < kWarpgroupThreads; ++t) {
    const auto& other = *static_cast<const ProductPayload*>(payloads[t]);
    if (!other.same(first)) fail("threads of a warpgroup disagree about a wgmma", first.where);
    d[static_cast<std::size_t>(t)] = other.d;
  }
  Block& block = *find_this_block();
  Warpgroup& group = block.proxy().warpgroup(this_warpgroup());
  if (!group.fenced)
    fail("the first wgmma of a warpgroup has no wgmma.fence before it", first.where);
  const Product p = {&group.product_begins(d, first.columns / 2, this_warpgroup(), first.where),
                     Matrix(first.a, first.mn_major_a),
                     Matrix(first.b, first.mn_major_b),
                     first.columns,
                     first.add,
                     this_warpgroup(),
                     first.where};
  if (observer != nullptr)
    p.for_chunks([&](const std::byte* c) { observer->hands_over(c, 16, first.where); });
  group.products.start([p] { p.perform(); }, block.grid().options.async, block.random());
}

void combine_nothing(void* const*, unsigned) {}

Warpgroup& this_group() {
  return find_this_block()->proxy().warpgroup(this_warpgroup());
}

void combine_fence(void* const*, unsigned) {
  this_group().fenced = true;
  if (observer == nullptr) return;
  for (int t = 0; t < kWarpgroupThreads; ++t)
    observer->register_fence(this_warpgroup() * kWarpgroupThreads + t);
}

void combine_commit(void* const*, unsigned) {
  this_group().products.commit();
}

void combine_wait(void* const* payloads, unsigned) {
  this_group().products.wait(*static_cast<const int*>(payloads[0]));
  if (observer != nullptr)
    observer->meet(this_warpgroup() * kWarpgroupThreads, kWarpgroupThreads, ~0U);
}

struct StmatrixPayload {
  std::byte* row;
  const std::uint32_t* r;
};

void combine_stmatrix(void* const* payloads, unsigned) {
  for (int m = 0; m < 4; ++m) {
    for (int l = 0; l < kWarpLanes; ++l) {
      const std::uint32_t pair = static_cast<const StmatrixPayload*>(payloads[l])->r[m];
      std::byte* row = static_cast<const StmatrixPayload*>(payloads[8 * m + l / 4])->row;
      std::memcpy(row + l % 4 * 4, &pair, sizeof pair);
    }
  }
}

}  // namespace
}  // namespace grist::emu

namespace grist::ptx {

std::uint64_t swizzled_matrix(const void* p, int group_bytes, int block_bytes, Where where) {
  const auto field = [](std::uint32_t bytes) {
    return static_cast<std::uint64_t>((bytes & 0x3ffffU) >> 4);
  };
  if (group_bytes % 1024 != 0 || block_bytes % 1024 != 0)
    emu::fail("parts of a swizzled matrix not a multiple of 1024 bytes apart", where);
  const std::uint32_t address = emu::shared_address(p, where);
  if (address % 32 != 0 || address / 128 % 8 != 0)
    emu::fail("a swizzled matrix that does not start in the first line of 1024 bytes", where);
  return field(address) | field(static_cast<std::uint32_t>(block_bytes)) << 16 |
         field(static_cast<std::uint32_t>(group_bytes)) << 32 | std::uint64_t{1} << 62;
}

void warpgroup_fence(Where where) {
  emu::warpgroup_collective("wgmma.fence", emu::combine_fence, nullptr, where);
}
void warpgroup_commit(Where where) {
  emu::warpgroup_collective("wgmma.commit_group", emu::combine_commit, nullptr, where);
}
void warpgroup_wait(int left, Where where) {
  emu::warpgroup_collective("wgmma.wait_group", emu::combine_wait, &left, where);
}
void warpgroup_mma(float* d, int N, bool mn_major_a, bool mn_major_b, std::uint64_t a,
                   std::uint64_t b, bool add, Where where) {
  emu::ProductPayload p = {d, a, b, N, mn_major_a, mn_major_b, add, where};
  emu::warpgroup_collective("wgmma", emu::combine_product, &p, where);
}

void stmatrix_x4(void* row, const std::uint32_t (&r)[4], Where where) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0)
    emu::fail("stmatrix to an address not aligned to 16 bytes", where);
  if (!emu::find_this_block()->shared().contains(row, 16))
    emu::fail("stmatrix to outside shared memory", where);
  if (emu::observer != nullptr) emu::observer->writes(row, 16, emu::Proxy::generic, where);
  emu::StmatrixPayload p = {static_cast<std::byte*>(row), r};
  emu::warp_collective("stmatrix", ~0U, emu::combine_stmatrix, &p, where);
}

bool elect_one(Where where) {
  emu::warp_collective("elect", ~0U, emu::combine_nothing, nullptr, where);
  return emu::lane() == 0;
}

void set_registers(int, Where where) {
  emu::warpgroup_collective("setmaxnreg", emu::combine_nothing, nullptr, where);
}

}  // namespace grist::ptx
