#pragma once
// Atomics on integers and fences. There are none on floating-point numbers, on purpose: their
// result would depend on the order of threads.
#include <type_traits>

namespace grist::emu {
template <class T>
concept AtomicInteger =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;

template <class T, class F> T atomic_update(T* p, F&& next) {
  T old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
  while (
      !__atomic_compare_exchange_n(p, &old, next(old), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
  }
  return old;
}
}  // namespace grist::emu

template <grist::emu::AtomicInteger T> T atomicAdd(T* p, std::type_identity_t<T> v) {
  return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}
template <grist::emu::AtomicInteger T> T atomicSub(T* p, std::type_identity_t<T> v) {
  return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);
}
template <grist::emu::AtomicInteger T> T atomicOr(T* p, std::type_identity_t<T> v) {
  return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST);
}
template <grist::emu::AtomicInteger T> T atomicAnd(T* p, std::type_identity_t<T> v) {
  return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST);
}
template <grist::emu::AtomicInteger T> T atomicXor(T* p, std::type_identity_t<T> v) {
  return __atomic_fetch_xor(p, v, __ATOMIC_SEQ_CST);
}
template <grist::emu::AtomicInteger T> T atomicExch(T* p, std::type_identity_t<T> v) {
  return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);
}
template <grist::emu::AtomicInteger T> T atomicMax(T* p, std::type_identity_t<T> v) {
  return grist::emu::atomic_update(p, [v](T old) { return old > v ? old : v; });
}
template <grist::emu::AtomicInteger T> T atomicMin(T* p, std::type_identity_t<T> v) {
  return grist::emu::atomic_update(p, [v](T old) { return old < v ? old : v; });
}
template <grist::emu::AtomicInteger T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return expected;
}
inline unsigned atomicInc(unsigned* p, unsigned limit) {
  return grist::emu::atomic_update(p, [limit](unsigned old) { return old >= limit ? 0 : old + 1; });
}

inline void __threadfence() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
inline void __threadfence_block() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
inline void __threadfence_system() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
