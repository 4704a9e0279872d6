#pragma once
// Errors as the CUDA runtime keeps them, with words that say more than its codes.
#include <driver_types.h>

#include <string>

namespace grist::emu {

// Keeps `what` as the last report and `code` as this thread's last error; returns code.
cudaError_t report(cudaError_t code, const std::string& what);
cudaError_t last_error(bool clear);
// The words of the last report if it had this code; null otherwise.
const char* words_of(cudaError_t code);
int current_device();

}  // namespace grist::emu
