// Bodies of grist_ptx.cuh that sm_80 has: ldmatrix, mma, cp.async.
#include <grist_ptx.cuh>

#include <cstring>

#include "block.h"
#include "observer.h"

namespace grist::ptx {

namespace {

emu::Block& block() {
  return *emu::find_this_block();
}

bool in_shared(const void* p, std::size_t bytes) {
  return block().shared().contains(p, bytes) || emu::in_static_shared(p, bytes);
}

bool aligned(const void* p, std::uintptr_t to) {
  return reinterpret_cast<std::uintptr_t>(p) % to == 0;
}

float bf16_bits_to_float(std::uint32_t bits) {
  return __uint_as_float(bits << 16);
}
float low(std::uint32_t pair) {
  return bf16_bits_to_float(pair & 0xffffU);
}
float high(std::uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000U);
}

struct MatrixPayload {
  const std::uint16_t* row;
  std::uint32_t* r;
  int count;
  bool transposed;
};

void combine_ldmatrix(void* const* payloads, unsigned) {
  auto row = [&](int matrix, int i) {
    return static_cast<const MatrixPayload*>(payloads[8 * matrix + i])->row;
  };
  for (int l = 0; l < emu::kWarpLanes; ++l) {
    const auto& p = *static_cast<const MatrixPayload*>(payloads[l]);
    const int g = l / 4;
    const int t = l % 4;
    for (int m = 0; m < p.count; ++m) {
      const std::uint32_t first = p.transposed ? row(m, 2 * t)[g] : row(m, g)[2 * t];
      const std::uint32_t second = p.transposed ? row(m, 2 * t + 1)[g] : row(m, g)[2 * t + 1];
      p.r[m] = first | second << 16;
    }
  }
}

struct MmaPayload {
  float* d;
  const std::uint32_t* a;
  const std::uint32_t* b;
};

void combine_mma(void* const* payloads, unsigned) {
  float a[16][16];
  float b[8][16];  // by column
  for (int l = 0; l < emu::kWarpLanes; ++l) {
    const auto& p = *static_cast<const MmaPayload*>(payloads[l]);
    const int g = l / 4;
    const int t = l % 4;
    for (int i = 0; i < 4; ++i) {
      a[g + 8 * (i % 2)][2 * t + 8 * (i / 2)] = low(p.a[i]);
      a[g + 8 * (i % 2)][2 * t + 8 * (i / 2) + 1] = high(p.a[i]);
    }
    for (int i = 0; i < 2; ++i) {
      b[g][2 * t + 8 * i] = low(p.b[i]);
      b[g][2 * t + 8 * i + 1] = high(p.b[i]);
    }
  }
  for (int l = 0; l < emu::kWarpLanes; ++l) {
    float* d = static_cast<const MmaPayload*>(payloads[l])->d;
    for (int i = 0; i < 4; ++i) {
      const float* x = a[l / 4 + 8 * (i / 2)];
      const float* y = b[2 * (l % 4) + i % 2];
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += x[k] * y[k];
      d[i] += sum;
    }
  }
}

}  // namespace

void ldmatrix(std::uint32_t* r, int count, const void* row, bool transposed, Where where) {
  MatrixPayload p = {static_cast<const std::uint16_t*>(row), r, count, transposed};
  if (emu::lane() < 8 * count) {  // the other lanes' addresses are not used
    if (!aligned(row, 16)) emu::fail("ldmatrix from an address not aligned to 16 bytes", where);
    if (!in_shared(row, 16)) emu::fail("ldmatrix from outside shared memory", where);
    if (emu::observer != nullptr) emu::observer->reads(row, 16, emu::Proxy::generic, where);
  }
  emu::warp_collective("ldmatrix", ~0U, combine_ldmatrix, &p, where);
}

void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                  Where where) {
  MmaPayload p = {d, a, b};
  emu::warp_collective("mma", ~0U, combine_mma, &p, where);
}

void cp_async_16(void* shared, const void* global, bool valid, Where where) {
  if (!aligned(shared, 16) || (valid && !aligned(global, 16)))
    emu::fail("cp.async with an address not aligned to 16 bytes", where);
  if (!in_shared(shared, 16)) emu::fail("cp.async to outside shared memory", where);
  emu::start_copy({shared, valid ? global : nullptr, 16}, where);
}

void cp_async_commit() {
  block().current().copies.commit();
}

void cp_async_wait_groups(int left) {
  emu::Block& b = block();
  b.current().copies.wait(left, b.grid().options.async, b.random());
}

}  // namespace grist::ptx
