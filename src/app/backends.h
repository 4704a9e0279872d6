#pragma once
// The backends that this binary was built with; src/app/backends.cpp is compiled once a binary.

namespace grist::app {

// Makes the backends that this program was built with known to the rest (core/device.h).
void offer_backends();

}  // namespace grist::app
