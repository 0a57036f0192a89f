#pragma once

// Checkpoints that torch.save wrote.

#include "io/checkpoint.hpp"

namespace mxlm {

/// True if the file begins like the zip archive that torch.save writes, or like its format before PyTorch 1.6.
bool looks_like_pytorch(const FileView& file);

/// The tensors of a file that torch.save wrote from a state dict, PyTorch 1.6 or later. A tensor that is contiguous and
/// aligned in its storage refers to the file; any other tensor (a transposed one) is copied. Tensors may share a
/// storage. Throws Error naming the file and what is wrong: see read_zip and read_state_dict; also for storages that
/// are missing or differ in size from the pickle, tensors that reach outside their storage, and the older format.
TensorMap read_pytorch(const FileView& file);

}  // namespace mxlm
