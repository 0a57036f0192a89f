#pragma once

// The encodings of values in Parquet files.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// The encodings of values in Parquet's pages, as Encodings.md of Apache Parquet's format defines them. All readers
/// take the decompressed bytes of a page, which must outlive them, and return one value at a time, so that no claimed
/// count ever asks for memory. `file` is a quoted name, for messages.
namespace mxlm::parquet {

/// RLE / bit-packing hybrid: levels, and indices into a dictionary.
class HybridIntegers {
 public:
  /// A value has `width` bits, at most 32.
  HybridIntegers(std::span<const std::byte> bytes, unsigned width, const std::string& file)
      : bytes_(bytes), file_(file), width_(width) {}
  /// Returns the next value. Throws Error if there is none.
  uint32_t next();

 private:
  void next_run();

  std::span<const std::byte> bytes_, packed_;
  const std::string& file_;
  unsigned width_;
  bool is_packed_ = false;
  uint32_t value_ = 0;  // of a run that repeats one
  uint64_t left_ = 0;   // values in the run
  uint64_t bit_ = 0;    // of the next value in packed_
};

/// DELTA_BINARY_PACKED of 32-bit numbers.
class DeltaIntegers {
 public:
  DeltaIntegers(std::span<const std::byte> bytes, const std::string& file);
  /// Returns the next value, which must not be negative: all values are lengths here. Throws Error if there is none.
  uint32_t next();
  /// The bytes after the numbers. Call it before the first next().
  [[nodiscard]] std::span<const std::byte> after() const;

 private:
  void next_block();
  void next_miniblock();

  std::span<const std::byte> bytes_, widths_, packed_;
  const std::string& file_;
  uint64_t miniblocks_ = 0, miniblock_size_ = 0;  // of a block; values
  uint64_t left_ = 0;                             // values not yet returned
  uint64_t value_ = 0, least_delta_ = 0;          // in arithmetic modulo 2^64
  uint64_t deltas_ = 0;                           // left in the miniblock
  uint64_t bit_ = 0;
  unsigned width_ = 0;
  bool first_ = true;
};

/// The strings of a page.
class StringValues {
 public:
  StringValues() = default;
  virtual ~StringValues() = default;
  StringValues(const StringValues&) = delete;
  StringValues& operator=(const StringValues&) = delete;
  /// Returns the next string, valid until the next call. Throws Error if there is none.
  virtual std::string_view next() = 0;
};

/// The strings of a dictionary page.
class Dictionary {
 public:
  /// Takes ownership of `bytes`, which hold `values` strings in the encoding PLAIN. Throws Error.
  Dictionary(std::vector<std::byte> bytes, uint32_t values, const std::string& file);
  /// Throws Error if no string has the index.
  [[nodiscard]] std::string_view at(uint32_t index, const std::string& file) const;

 private:
  std::vector<std::byte> bytes_;
  std::vector<uint32_t> offsets_;  // the offsets in bytes_ of each string's length
};

/// The strings of a data page in one of the encodings of byte arrays; `dictionary` may be nullptr. Throws Error for
/// another encoding and for a missing dictionary.
std::unique_ptr<StringValues> decode_strings(int encoding, std::span<const std::byte> bytes,
                                             const Dictionary* dictionary, const std::string& file);

}  // namespace mxlm::parquet
