#pragma once

// The bytes of a journal's file: records, each with a length and a checksum. Readers expect that the last record may be
// torn and that any record may be damaged.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/round.hpp"

namespace mxlm {

/// A finished shard, or a part of it, as one record of a journal.
struct JournalRound {
  uint32_t pass = 0;              // the index of the list of variants
  bool reversed = false;          // float32 sums in the other order, for --noise
  std::vector<uint32_t> windows;  // window ids of the run
  RoundResult result;             // of these windows
};

/// The first bytes of a journal's file. A new layout of records increases the digit.
inline constexpr std::string_view kJournalHeader = "MXLMJRN2";
std::vector<std::byte> journal_header();

/// The number of bytes of a shard's record, and of a window in it. Records of more than kMostRecordBytes cannot be read
/// again, because their length does not fit.
size_t record_size(const JournalRound& round);
size_t record_size(const WindowResult& window);
inline constexpr size_t kMostRecordBytes = 0xffffffff;

/// A record: magic, length, CRC-32 of the payload, payload. Little-endian.
std::vector<std::byte> encode_record(const JournalRound& round);

/// Calls `take` with the records of a finished shard, one after the other. A long shard has several records. `windows`
/// are the window ids of `result`.
void each_record(uint32_t pass, bool reversed, std::span<const uint32_t> windows, const RoundResult& result,
                 const std::function<void(std::span<const std::byte>)>& take);

/// Decodes one whole record with nothing after it; nullopt if the bytes are not a record.
std::optional<JournalRound> decode_record(std::span<const std::byte> record);

/// Decodes a payload; nullopt if the bytes are not a payload. Every length is checked against the remaining bytes.
std::optional<JournalRound> decode_payload(std::span<const std::byte> payload);

struct JournalScan {
  std::vector<JournalRound> rounds;
  size_t end = 0;                    // the byte where the last whole record ends
  bool torn = false;                 // the bytes after `end` are not a record
  std::vector<std::string> damaged;  // the places of unusable records, as "record 3 (byte 4711)"
  bool foreign = false;              // the file is not a journal's
};

/// Reads all usable records, those before and those after a damaged record.
JournalScan scan_journal(std::span<const std::byte> file);

}  // namespace mxlm
