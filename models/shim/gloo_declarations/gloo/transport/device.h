// Declarations of what torch's ProcessGroupGloo.hpp names of gloo, whose headers libtorch does not carry. Only pointers to these types occur in
// the layout of its classes, so their sizes never matter; the code is in libtorch.
#pragma once

namespace gloo::transport {
class Device;
class UnboundBuffer;
} // namespace gloo::transport
