#pragma once
// Memory for arrays with one entry a row, where the number of rows is known only when they come.
#include <cstdint>
#include <string>
#include <vector>

#include "grist/core/memory.h"

namespace grist::parallel {

class RowSpace {
 public:
  // ledger may be null.
  RowSpace(std::string label, Device device, MemoryLedger* ledger)
      : label_(std::move(label)), device_(device), ledger_(ledger) {}
  // An array of (rows, columns), or (rows) where columns is 0; returns its number. Before
  // allocate().
  std::size_t add(DType dtype, std::int64_t columns);
  // Room for so many rows. What was there is lost. Throws Error{out_of_memory}, and then there is
  // room for none.
  void allocate(std::int64_t rows);
  std::int64_t capacity() const { return capacity_; }
  // All rows there is room for.
  TensorView array(std::size_t number) const;

 private:
  struct Array {
    DType dtype;
    std::int64_t columns;
    std::size_t offset;
    Shape shape(std::int64_t rows) const {
      return columns == 0 ? Shape{rows} : Shape{rows, columns};
    }
  };
  std::string label_;
  Device device_;
  MemoryLedger* ledger_;
  std::vector<Array> arrays_;
  std::int64_t capacity_ = 0;
  Buffer buffer_;
};

}  // namespace grist::parallel
