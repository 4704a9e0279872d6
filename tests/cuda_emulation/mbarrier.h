#pragma once
// mbarriers: arrivals and bytes that end a phase.
#include <grist_ptx_sm90.cuh>

namespace grist::emu {

// Bytes of a TMA load have come.
void complete_bytes(ptx::Barrier* b, std::uint32_t bytes, Where where);

}  // namespace grist::emu
