// What -fsanitize=thread makes the compiler call at every load and store of the kernels; here in
// place of that sanitizer's own library.
#include <cstddef>
#include <cstdint>

#include "race_checker.h"

using grist::emu::race_checker;
using Kind = grist::emu::RaceChecker::Kind;

// The line is that of the access itself: one byte before where the call returns to.
#define HERE (static_cast<const char*>(__builtin_return_address(0)) - 1)

#define ACCESS(name, bytes, kind)                      \
  void __tsan_##name(void* p) {                        \
    race_checker().access(p, bytes, Kind::kind, HERE); \
  }
#define ACCESSES(bytes)                        \
  ACCESS(read##bytes, bytes, read)             \
  ACCESS(write##bytes, bytes, write)           \
  ACCESS(unaligned_read##bytes, bytes, read)   \
  ACCESS(unaligned_write##bytes, bytes, write) \
  ACCESS(volatile_read##bytes, bytes, read)    \
  ACCESS(volatile_write##bytes, bytes, write)

#define ATOMIC_UPDATE(bits, name, op)                                                         \
  std::uint##bits##_t __tsan_atomic##bits##_##name(volatile std::uint##bits##_t* p,           \
                                                   std::uint##bits##_t v, int) {              \
    race_checker().access(const_cast<std::uint##bits##_t*>(p), bits / 8, Kind::atomic, HERE); \
    return op(p, v, __ATOMIC_SEQ_CST);                                                        \
  }
#define ATOMIC_COMPARE(bits, name)                                                                \
  int __tsan_atomic##bits##_compare_exchange_##name(volatile std::uint##bits##_t* p,              \
                                                    std::uint##bits##_t* expected,                \
                                                    std::uint##bits##_t v, int, int) {            \
    race_checker().access(const_cast<std::uint##bits##_t*>(p), bits / 8, Kind::atomic, HERE);     \
    return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) \
               ? 1                                                                                \
               : 0;                                                                               \
  }
#define ATOMICS(bits)                                                                             \
  std::uint##bits##_t __tsan_atomic##bits##_load(const volatile std::uint##bits##_t* p, int) {    \
    race_checker().access(const_cast<std::uint##bits##_t*>(p), bits / 8, Kind::atomic, HERE);     \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                  \
  }                                                                                               \
  void __tsan_atomic##bits##_store(volatile std::uint##bits##_t* p, std::uint##bits##_t v, int) { \
    race_checker().access(const_cast<std::uint##bits##_t*>(p), bits / 8, Kind::atomic, HERE);     \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                                     \
  }                                                                                               \
  ATOMIC_UPDATE(bits, fetch_add, __atomic_fetch_add)                                              \
  ATOMIC_UPDATE(bits, fetch_sub, __atomic_fetch_sub)                                              \
  ATOMIC_UPDATE(bits, fetch_and, __atomic_fetch_and)                                              \
  ATOMIC_UPDATE(bits, fetch_or, __atomic_fetch_or)                                                \
  ATOMIC_UPDATE(bits, fetch_xor, __atomic_fetch_xor)                                              \
  ATOMIC_UPDATE(bits, exchange, __atomic_exchange_n)                                              \
  ATOMIC_COMPARE(bits, strong)                                                                    \
  ATOMIC_COMPARE(bits, weak)

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_atomic_thread_fence(int) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void* p, std::size_t bytes) {
  race_checker().access(p, bytes, Kind::read, HERE);
}
void __tsan_write_range(void* p, std::size_t bytes) {
  race_checker().access(p, bytes, Kind::write, HERE);
}
ATOMICS(8)
ATOMICS(32)
ATOMICS(64)

}  // extern "C"
