#pragma once
// Finds loads and stores of two threads that nothing orders, whatever the order in which they took
// place in this run. Vector clocks a block, a record of the last accesses every two bytes of
// memory. One OS thread.
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "../observer.h"
#include "registers.h"

namespace grist::emu {

class Block;

class RaceChecker final : public Observer {
 public:
  enum class Kind : std::uint8_t { read, write, atomic };

  void launch_begins() override { first_block_ = block_ + 1; }
  void block_begins(int threads) override;
  void release(int thread, const void* object) override;
  void acquire(int thread, const void* object) override;
  void forget(const void* object) override { objects_.erase(object); }
  void copy_begins(int thread, const void* to, std::size_t bytes, Proxy proxy,
                   Where where) override;
  void copy_ends(int thread, const void* to, std::size_t bytes, StoreAt at) override;
  void reads(const void* p, std::size_t bytes, Proxy proxy, Where where) override;
  void writes(const void* p, std::size_t bytes, Proxy proxy, Where where) override;
  void proxy_fence(int thread) override;
  void hands_over(const void* p, std::size_t bytes, Where where) override;
  void takes_back(const void* p, std::size_t bytes) override;
  void product_reads(int warpgroup, const void* p, std::size_t bytes, Where where) override;
  void products_waited(int warpgroup) override;
  void register_fence(int thread) override;
  void registers_begin(int thread, const void* p, std::size_t bytes, Where where) override;
  void registers_end(int thread, const void* p) override;

  // A load or store by the instruction `code`, if a kernel runs and the memory is shared or the
  // device's.
  void access(const void* p, std::size_t bytes, Kind kind, const void* code);

 private:
  // By thread; behind them the wgmmas of each warpgroup, which count as a thread of their own.
  using Clock = std::vector<std::uint32_t>;
  struct Moment {
    Clock seen;    // of each thread, what is before this moment
    Clock fenced;  // of that, what its threads made known to the async proxy; empty: nothing
  };
  struct Access {
    const void* code = nullptr;  // the instruction, or with a line the file's name
    int line = 0;
    std::uint32_t block = 0;  // number since the program began; 0: none
    std::uint32_t clock = 0;
    std::uint16_t thread = 0;
    Kind kind = Kind::read;
    Proxy proxy = Proxy::generic;
  };
  struct Cell {
    Access write;
    std::array<Access, 2> reads;
    Access handed_over;         // to the async proxy, last
    std::uint16_t readers = 0;  // asynchronous, that have it now
    bool in_flight = false;     // a copy writes it
  };
  static constexpr std::uintptr_t kCellBytes = 2;
  static constexpr std::uintptr_t kPageBytes = 4096;
  using Page = std::array<Cell, kPageBytes / kCellBytes>;

  enum class Memory { other, stack, shared, global };
  Memory memory_of(const void* p, std::size_t bytes);
  Cell& cell(std::uintptr_t address);
  template <class F> void for_cells(const void* p, std::size_t bytes, F&& f);
  bool conflict(const Access& before, const Access& now, Memory memory) const;
  void visit(Cell& c, const Access& now, Memory memory, const void* p);
  const Moment& present() const;  // of the running thread
  std::string name_of(const Access& a) const;
  [[noreturn]] void report(const char* rule, const char* what, const Access& before,
                           const Access& now, const void* p);
  void keep_read(Cell& c, const Access& now, Memory memory) const;
  Access access_now(Kind kind, Proxy proxy, const void* code, int line = 0) const;
  void engine_access(const void* p, std::size_t bytes, Kind kind, Proxy proxy, Where where);
  void check_order(const Cell& c, const Access& now, Memory memory, const void* p);
  void check_handed_over(const Cell& c, const Access& now, Memory memory, const void* p);

  std::uint32_t block_ = 0;        // the running one
  std::uint32_t first_block_ = 1;  // of this launch
  std::vector<Moment> moments_;    // by thread
  Clock product_clocks_;           // by warpgroup
  std::unordered_map<const void*, Moment> objects_;
  Registers registers_;
  std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages_;
  std::uintptr_t last_page_number_ = 0;
  Page* last_page_ = nullptr;
  std::uintptr_t range_begin_ = 0;  // of device memory, met last
  std::uintptr_t range_end_ = 0;
};

RaceChecker& race_checker();

}  // namespace grist::emu
