#pragma once

// Where block-scaled products of cuBLASLt look for the scale of a block (its documentation, "1D Block Scaling Factors
// Layout"): tiles of 128 rows by 4 blocks, 512 bytes each, those of the same rows one after the other.

#include <cstdint>

#include "mx/format.hpp"

namespace mxlm::cuda {

/// Values that share a scale.
constexpr int64_t kScaledBlock = 32;
constexpr int64_t kScaleTileRows = 128, kScaleTileBlocks = 4;

/// Blocks to a row of scales, those that fill the last tile included.
MXLM_HOST_DEVICE constexpr int64_t scale_row(int64_t blocks) {
  return (blocks + kScaleTileBlocks - 1) / kScaleTileBlocks * kScaleTileBlocks;
}
/// Bytes of the scales of a matrix of `rows` rows of `blocks` blocks.
MXLM_HOST_DEVICE constexpr int64_t scale_bytes(int64_t rows, int64_t blocks) {
  return (rows + kScaleTileRows - 1) / kScaleTileRows * kScaleTileRows * scale_row(blocks);
}
/// The byte of the scale of block `block` of row `row`. In a tile four rows, 32 apart, share 16 bytes.
MXLM_HOST_DEVICE constexpr int64_t scale_index(int64_t row, int64_t block, int64_t blocks) {
  const int64_t in_tile = row % 32 * 16 + row % kScaleTileRows / 32 * 4 + block % kScaleTileBlocks;
  return row / kScaleTileRows * kScaleTileRows * scale_row(blocks) +
         block / kScaleTileBlocks * kScaleTileBlocks * kScaleTileRows + in_tile;
}

}  // namespace mxlm::cuda
