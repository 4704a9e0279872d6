#pragma once
// cuBLAS, the yardstick of the products: loaded when the program runs, so that nothing needs it.
#include <memory>
#include <string>

#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist::bench {

// The three products of y = x W^T, for x (N, I), W (O, I), y (N, O); bf16 operands, fp32 sums.
struct Products {
  std::int64_t N, I, O;
};

class Cublas {
 public:
  // Null where no libcublas.so can be loaded or used; `why` says so in one line.
  static std::unique_ptr<Cublas> load(const Context& ctx, std::string& why);
  ~Cublas();
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;

  void use(CUstream_st* stream);
  void forward(void* y, const void* x, const void* w, const Products& p);
  void backward_input(void* dx, const void* dy, const void* w, const Products& p);
  void backward_weight(float* dw, const void* dy, const void* x, const Products& p);  // added to

 private:
  struct Library;
  explicit Cublas(std::unique_ptr<Library> library);
  std::unique_ptr<Library> library_;
};

}  // namespace grist::bench
