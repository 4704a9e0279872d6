#pragma once
// Functions that nvcc knows without an include: arithmetic, bits, cached loads. Where hardware
// approximates, the host's function of the same name without underscores stands in.
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace grist::emu {
template <class To, class From> inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace grist::emu

// ---- min, max ---------------------------------------------------------------------------------
#define GRIST_EMU_MIN_MAX(A, B, R)                                                        \
  constexpr R min(A a, B b) {                                                             \
    return static_cast<R>(b) < static_cast<R>(a) ? static_cast<R>(b) : static_cast<R>(a); \
  }                                                                                       \
  constexpr R max(A a, B b) {                                                             \
    return static_cast<R>(a) < static_cast<R>(b) ? static_cast<R>(b) : static_cast<R>(a); \
  }
GRIST_EMU_MIN_MAX(int, int, int)
GRIST_EMU_MIN_MAX(unsigned, unsigned, unsigned)
GRIST_EMU_MIN_MAX(int, unsigned, unsigned)
GRIST_EMU_MIN_MAX(unsigned, int, unsigned)
GRIST_EMU_MIN_MAX(long, long, long)
GRIST_EMU_MIN_MAX(unsigned long, unsigned long, unsigned long)
GRIST_EMU_MIN_MAX(long, unsigned long, unsigned long)
GRIST_EMU_MIN_MAX(unsigned long, long, unsigned long)
GRIST_EMU_MIN_MAX(long long, long long, long long)
GRIST_EMU_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
GRIST_EMU_MIN_MAX(long long, unsigned long long, unsigned long long)
GRIST_EMU_MIN_MAX(unsigned long long, long long, unsigned long long)
#undef GRIST_EMU_MIN_MAX
// As fminf and fmaxf: of a NaN and a number, the number.
inline float min(float a, float b) {
  return fminf(a, b);
}
inline float max(float a, float b) {
  return fmaxf(a, b);
}
inline double min(double a, double b) {
  return fmin(a, b);
}
inline double max(double a, double b) {
  return fmax(a, b);
}
inline double min(float a, double b) {
  return fmin(a, b);
}
inline double min(double a, float b) {
  return fmin(a, b);
}
inline double max(float a, double b) {
  return fmax(a, b);
}
inline double max(double a, float b) {
  return fmax(a, b);
}

// ---- floating point ---------------------------------------------------------------------------
inline float rsqrtf(float x) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x)));
}
inline double rsqrt(double x) {
  return 1.0 / std::sqrt(x);
}
inline float __expf(float x) {
  return expf(x);
}
inline float __exp10f(float x) {
  return powf(10.0F, x);
}
inline float __logf(float x) {
  return logf(x);
}
inline float __log2f(float x) {
  return log2f(x);
}
inline float __log10f(float x) {
  return log10f(x);
}
inline float __powf(float x, float y) {
  return powf(x, y);
}
inline float __sinf(float x) {
  return sinf(x);
}
inline float __cosf(float x) {
  return cosf(x);
}
inline void __sincosf(float x, float* s, float* c) {
  *s = sinf(x);
  *c = cosf(x);
}
inline float __tanhf(float x) {
  return tanhf(x);
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline float __fdiv_rn(float x, float y) {
  return x / y;
}
inline float __frcp_rn(float x) {
  return 1.0F / x;
}
inline float __fsqrt_rn(float x) {
  return sqrtf(x);
}
inline float __frsqrt_rn(float x) {
  return rsqrtf(x);
}
inline float __fadd_rn(float x, float y) {
  return x + y;
}
inline float __fsub_rn(float x, float y) {
  return x - y;
}
inline float __fmul_rn(float x, float y) {
  return x * y;
}
inline float __fmaf_rn(float x, float y, float z) {
  return fmaf(x, y, z);
}
inline double __dadd_rn(double x, double y) {
  return x + y;
}
inline double __dsub_rn(double x, double y) {
  return x - y;
}
inline double __dmul_rn(double x, double y) {
  return x * y;
}
inline double __ddiv_rn(double x, double y) {
  return x / y;
}
inline double __dsqrt_rn(double x) {
  return std::sqrt(x);
}
inline double __fma_rn(double x, double y, double z) {
  return fma(x, y, z);
}
inline float __saturatef(float x) {
  return x > 0.0F ? (x < 1.0F ? x : 1.0F) : 0.0F;
}

// ---- conversions ------------------------------------------------------------------------------
inline int __float_as_int(float x) {
  return grist::emu::bits_as<int>(x);
}
inline unsigned __float_as_uint(float x) {
  return grist::emu::bits_as<unsigned>(x);
}
inline float __int_as_float(int x) {
  return grist::emu::bits_as<float>(x);
}
inline float __uint_as_float(unsigned x) {
  return grist::emu::bits_as<float>(x);
}
inline long long __double_as_longlong(double x) {
  return grist::emu::bits_as<long long>(x);
}
inline double __longlong_as_double(long long x) {
  return grist::emu::bits_as<double>(x);
}
inline int __float2int_rn(float x) {
  return static_cast<int>(nearbyintf(x));
}
inline int __float2int_rz(float x) {
  return static_cast<int>(x);
}
inline int __float2int_rd(float x) {
  return static_cast<int>(floorf(x));
}
inline int __float2int_ru(float x) {
  return static_cast<int>(ceilf(x));
}
inline float __int2float_rn(int x) {
  return static_cast<float>(x);
}
inline float __uint2float_rn(unsigned x) {
  return static_cast<float>(x);
}
inline float __ll2float_rn(long long x) {
  return static_cast<float>(x);
}
inline float __ull2float_rn(unsigned long long x) {
  return static_cast<float>(x);
}
inline double __ll2double_rn(long long x) {
  return static_cast<double>(x);
}
inline double __ull2double_rn(unsigned long long x) {
  return static_cast<double>(x);
}
inline float __double2float_rn(double x) {
  return static_cast<float>(x);
}

// ---- bits -------------------------------------------------------------------------------------
inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
  return __builtin_popcountll(x);
}
inline int __clz(int x) {
  return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x));
}
inline int __clzll(long long x) {
  return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
  return __builtin_ffsll(x);
}
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= ((x >> i) & 1U) << (31 - i);
  return r;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32);
}
inline int __mulhi(int a, int b) {
  return static_cast<int>((static_cast<long long>(a) * b) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const unsigned long long both = (static_cast<unsigned long long>(y) << 32) | x;
  unsigned r = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned s = (selector >> (4 * i)) & 0xfU;
    unsigned byte = static_cast<unsigned>(both >> (8 * (s & 7U))) & 0xffU;
    if ((s & 8U) != 0) byte = (byte & 0x80U) != 0 ? 0xffU : 0U;  // its sign, repeated
    r |= byte << (8 * i);
  }
  return r;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  const unsigned long long both = (static_cast<unsigned long long>(high) << 32) | low;
  return static_cast<unsigned>((both << (shift & 31U)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  const unsigned long long both = (static_cast<unsigned long long>(high) << 32) | low;
  return static_cast<unsigned>(both >> (shift & 31U));
}

// ---- loads and stores with a cache hint ---------------------------------------------------------
#define GRIST_EMU_LOAD(name)                     \
  template <class T> inline T name(const T* p) { \
    return *p;                                   \
  }
GRIST_EMU_LOAD(__ldg)
GRIST_EMU_LOAD(__ldca)
GRIST_EMU_LOAD(__ldcg)
GRIST_EMU_LOAD(__ldcs)
GRIST_EMU_LOAD(__ldlu)
GRIST_EMU_LOAD(__ldcv)
#undef GRIST_EMU_LOAD
#define GRIST_EMU_STORE(name)                          \
  template <class T> inline void name(T* p, T value) { \
    *p = value;                                        \
  }
GRIST_EMU_STORE(__stwb)
GRIST_EMU_STORE(__stcg)
GRIST_EMU_STORE(__stcs)
GRIST_EMU_STORE(__stwt)
#undef GRIST_EMU_STORE

// ---- clocks -----------------------------------------------------------------------------------
inline long long clock64() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}
inline unsigned long long __globaltimer() {
  return static_cast<unsigned long long>(clock64());
}
