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
  // What a wgmma reads of an operand of `count` rows or columns: to (kDepth, count).
  void read(const SharedMemory& shared, int count, float* to) const {
    for_chunks(shared, count, [&](const std::byte* p, std::uint32_t i, std::uint32_t k) {
      if (!shared.contains(p, 16)) fail("wgmma reads outside shared memory", {});
      std::array<std::uint16_t, 8> bits{};
      std::memcpy(bits.data(), p, sizeof bits);
      float* first = to + static_cast<std::size_t>(k) * static_cast<std::size_t>(count) + i;
      for (std::size_t j = 0; j < bits.size(); ++j)
        first[mn_major_ ? j : j * static_cast<std::size_t>(count)] =
            __uint_as_float(std::uint32_t{bits[j]} << 16);
    });
  }
  // Calls f(p, i, k) for all that a wgmma reads of an operand of `count` rows or columns, 16 bytes
  // a time: eight elements that begin with (i, k).
  template <class F> void for_chunks(const SharedMemory& shared, int count, F&& f) const {
    const std::uint32_t n = static_cast<std::uint32_t>(count);
    for (std::uint32_t i = 0; i < n; i += mn_major_ ? 8 : 1) {
      for (std::uint32_t k = 0; k < kDepth; k += mn_major_ ? 1 : 8) f(place(shared, i, k), i, k);
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

// The left operand (64, 16) where it lies in registers: four of each thread.
using Fragments = std::array<const std::uint32_t*, kWarpgroupThreads>;

float element(const Fragments& a, int i, int k) {
  const auto thread = static_cast<std::size_t>(i / 16 * kWarpLanes + i % 8 * 4 + k % 8 / 2);
  const std::uint32_t pair = a[thread][i % 16 / 8 + k / 8 * 2];
  return __uint_as_float(k % 2 == 0 ? pair << 16 : pair & 0xffff0000U);
}

struct Product {
  Accumulators* d;
  Fragments fragments;  // null: a lies in shared memory
  Matrix a, b;
  int columns;
  bool add;
  int warpgroup;
  Where where;

  // Tells the observer what it will read, and what registers nobody may touch until the end.
  void begin() const {
    if (observer == nullptr) return;
    for_chunks([this](const std::byte* p) { observer->hands_over(p, 16, where); });
    for_registers([this](int thread, const void* p, std::size_t bytes) {
      observer->registers_begin(thread, p, bytes, where);
    });
  }
  void perform() const {
    if (observer != nullptr)
      for_chunks([this](const std::byte* p) {
        observer->takes_back(p, 16);
        observer->product_reads(warpgroup, p, 16, where);
      });
    multiply();
    if (observer != nullptr)
      for_registers(
          [](int thread, const void* p, std::size_t) { observer->registers_end(thread, p); });
    find_this_block()->proxy().warpgroup(warpgroup).product_ends(*d);
  }

 private:
  // Calls f(p) for each 16 bytes of the operands in shared memory.
  template <class F> void for_chunks(F&& f) const {
    const SharedMemory& shared = find_this_block()->shared();
    const auto place = [&f](const std::byte* p, std::uint32_t, std::uint32_t) { f(p); };
    if (fragments[0] == nullptr) a.for_chunks(shared, kRows, place);
    b.for_chunks(shared, columns, place);
  }
  // Calls f(thread, p, bytes) for the operands in registers.
  template <class F> void for_registers(F&& f) const {
    for (int t = 0; t < kWarpgroupThreads; ++t) {
      const int thread = warpgroup * kWarpgroupThreads + t;
      const auto i = static_cast<std::size_t>(t);
      f(thread, d->places()[i], static_cast<std::size_t>(columns / 2) * sizeof(float));
      if (fragments[i] != nullptr) f(thread, fragments[i], 4 * sizeof(std::uint32_t));
    }
  }
  void multiply() const {
    const SharedMemory& shared = find_this_block()->shared();
    struct Room {
      alignas(16) std::array<float, kDepth * kRows> left;
      alignas(16) std::array<float, kDepth * kMaxColumns> right;
      alignas(16) std::array<float, kRows * kMaxColumns> sums;
    };
    static thread_local Room room;
    if (fragments[0] == nullptr) {
      a.read(shared, kRows, room.left.data());
    } else {
      for (int k = 0; k < kDepth; ++k) {
        for (int m = 0; m < kRows; ++m)
          room.left[static_cast<std::size_t>(k * kRows + m)] = element(fragments, m, k);
      }
    }
    b.read(shared, columns, room.right.data());
    for (int m = 0; m < kRows; m += 2) {
      for (int n = 0; n < columns; n += 8)
        corner(room.left.data() + m, room.right.data() + n, room.sums.data() + m * columns + n);
    }
    for (int t = 0; t < kWarpgroupThreads; ++t) hand_out(room.sums.data(), t);
  }
  // Two rows of eight sums, each in the order of k. The larger part of an emulated bf16 step was
  // spent here.
  void corner(const float* left, const float* right, float* sums) const {
    using Four = float __attribute__((vector_size(16)));
    Four a0{}, a1{}, b0{}, b1{};
    for (int k = 0; k < kDepth; ++k) {
      const float x = left[k * kRows], y = left[k * kRows + 1];
      const float* from = right + k * columns;
      const Four r0 = *reinterpret_cast<const Four*>(from);
      const Four r1 = *reinterpret_cast<const Four*>(from + 4);
      a0 += x * r0;
      a1 += x * r1;
      b0 += y * r0;
      b1 += y * r1;
    }
    *reinterpret_cast<Four*>(sums) = a0;
    *reinterpret_cast<Four*>(sums + 4) = a1;
    *reinterpret_cast<Four*>(sums + columns) = b0;
    *reinterpret_cast<Four*>(sums + columns + 4) = b1;
  }
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
  const std::uint32_t* fragment;
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

Warpgroup& this_group() {
  return find_this_block()->proxy().warpgroup(this_warpgroup());
}

void combine_product(void* const* payloads, unsigned) {
  const auto& first = *static_cast<const ProductPayload*>(payloads[0]);
  Accumulators::Places d;
  Fragments fragments;
  for (std::size_t t = 0; t < kWarpgroupThreads; ++t) {
    const auto& other = *static_cast<const ProductPayload*>(payloads[t]);
    if (!other.same(first)) fail("threads of a warpgroup disagree about a wgmma", first.where);
    d[t] = other.d;
    fragments[t] = other.fragment;
  }
  Block& block = *find_this_block();
  Warpgroup& group = this_group();
  if (!group.fenced)
    fail("the first wgmma of a warpgroup has no wgmma.fence before it", first.where);
  const Product p = {&group.product_begins(d, first.columns / 2, first.where),
                     fragments,
                     Matrix(first.a, first.mn_major_a),
                     Matrix(first.b, first.mn_major_b),
                     first.columns,
                     first.add,
                     this_warpgroup(),
                     first.where};
  p.begin();
  group.products.start([p] { p.perform(); }, block.grid().options.async, block.random());
}

void combine_nothing(void* const*, unsigned) {}

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
  Block& block = *find_this_block();
  this_group().products.wait(*static_cast<const int*>(payloads[0]), block.grid().options.async,
                             block.random());
  if (observer != nullptr) observer->products_waited(this_warpgroup());
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
  emu::ProductPayload p = {d, nullptr, a, b, N, mn_major_a, mn_major_b, add, where};
  emu::warpgroup_collective("wgmma", emu::combine_product, &p, where);
}
void warpgroup_mma_registers(float* d, int N, bool mn_major_b, const std::uint32_t* a,
                             std::uint64_t b, bool add, Where where) {
  emu::ProductPayload p = {d, a, 0, b, N, false, mn_major_b, add, where};
  emu::warpgroup_collective("wgmma with registers", emu::combine_product, &p, where);
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
