#pragma once

// The restricted reader of pickles that torch.save wrote.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.hpp"

namespace mxlm {

/// A tensor as a pickle of torch.save describes it. The numbers come from the pickle and are not yet checked against
/// the storage; shape and strides have the same length.
struct PickledTensor {
  std::string name;
  DType type = DType::f32;
  std::string storage;        // its key: the file data/KEY of the archive
  int64_t storage_bytes = 0;  // at least 0
  int64_t offset = 0;         // of the first element, in elements
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // in elements
};

/// Reads the tensors of a state dict that torch.save pickled (protocols 2 to 5): a dict or OrderedDict from names to
/// tensors, or a dict whose only member `state_dict` is such a dict. This is not a general unpickler: it knows the
/// opcodes and the few globals that build tensors. Any other opcode or global throws Error naming `file`, the opcode or
/// global, and its byte in the pickle. Nothing is ever imported or called.
std::vector<PickledTensor> read_state_dict(std::string_view pickle, const std::string& file);

}  // namespace mxlm
