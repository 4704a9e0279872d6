#pragma once
// All layers of a pass whose queries read other keys and values than those of the same tokens: what
// generation and scoring share.
#include <functional>

#include "block.h"

namespace grist::nn {

struct KeysValues {
  TensorView k, v;  // (Nk, Hkv, Dh), as in.cu_seqlens_k cuts them
};
// Called when layer `layer` has its own tokens' keys and values in `a`.
using KeysOfLayer = std::function<KeysValues(std::size_t layer, const LayerActivations& a)>;

// From act.layers[0].h_in to what final_norm takes. Dropless. `router_values`:
// Model::router_values_.
Residual run_cached_layers(const Context& ctx, const Model& model, const TensorView& router_values,
                           Activations& act, const AttentionInput& in, const KeysOfLayer& keys);

}  // namespace grist::nn
