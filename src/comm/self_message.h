#pragma once
// What a rank of a device communicator sends to itself: a copy on a stream.
#include "grist/comm/device.h"
#include "grist/core/check.h"
#include "grist/core/device.h"

namespace grist::comm {

inline void copy_to_self(const Communicator& c, const ComputeStream& on,
                         std::span<const Send> sends, std::span<const Receive> receives) {
  std::span<const std::byte> from;
  std::span<std::byte> to;
  for (const Send& s : sends)
    if (s.peer == c.rank()) from = s.bytes;
  for (const Receive& r : receives)
    if (r.peer == c.rank()) to = r.bytes;
  GRIST_CHECK(from.size() == to.size(), "rank {} sends {} bytes to itself, and expects {}",
              c.rank(), from.size(), to.size());
  if (!to.empty() && to.data() != from.data())
    runtime(on.device).copy(on.stream, to.data(), from.data(), to.size());
}

}  // namespace grist::comm
