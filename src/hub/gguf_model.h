#pragma once
// A model as llama.cpp has it: which of its architectures, tensors by name, hyperparameters.
// Sources: llama.cpp's gguf-py constants and conversion scripts.
#include <vector>

#include "gguf_file.h"
#include "grist/hub/families.h"

namespace grist::hub {

// How the rows of a query or key projection lie: llama.cpp's `llama` graph rotates neighbours,
// grist and the others rotate halves of a head.
struct HeadRows {
  std::int64_t heads = 0;  // 0: as they are
};

struct GgufTensor {
  std::string name;
  Shape shape;
  std::vector<Part> parts;  // one behind the other
  GgufType type = GgufType::f32;
  HeadRows rows{};
};

// Error{config} that names the key where none of llama.cpp's architectures computes this model.
const char* gguf_architecture(const ModelConfig& model);
// Matrices in `type`; norms and routers stay fp32, as llama.cpp wants them.
std::vector<GgufTensor> gguf_tensors(const ModelConfig& model, GgufType type);
void add_hyperparameters(GgufHeader& header, const ModelConfig& model, GgufType type);

}  // namespace grist::hub
