#pragma once
// What a rank holds, as text for the other ranks: names, dtypes, shapes and ranges, not the data.
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grist/ckpt/checkpoint.h"

namespace grist::ckpt {

std::string encode_slices(std::span<const TensorSlice> slices);
std::vector<TensorSlice> decode_slices(std::string_view text);  // `data` is null

}  // namespace grist::ckpt
