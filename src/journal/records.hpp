#pragma once

// The bytes of a journal: a file of records, each with its length and a checksum, of which the last may be torn and any
// may be damaged.

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

/// A finished round as it stands in a journal.
struct JournalRound {
  uint32_t pass = 0;              // which list of variants
  bool reversed = false;          // sums in the other order, for --noise
  std::vector<uint32_t> windows;  // of all windows of the run
  RoundResult result;             // of these windows
};

/// The first bytes of a journal's file. The digit grows with the layout of the records.
inline constexpr std::string_view kJournalHeader = "MXLMJRN2";
std::vector<std::byte> journal_header();

/// Bytes of a round's record, and what a window adds to it. Records of more than kMostRecordBytes cannot be read again.
size_t record_size(const JournalRound& round);
size_t record_size(const WindowResult& window);
inline constexpr size_t kMostRecordBytes = 0xffffffff;

/// A record: magic, length, CRC-32 of the payload, payload. Little-endian.
std::vector<std::byte> encode_record(const JournalRound& round);

/// The records of a finished round one after the other; several where one would be very long. `windows` are those of
/// `result`.
void each_record(uint32_t pass, bool reversed, std::span<const uint32_t> windows, const RoundResult& result,
                 const std::function<void(std::span<const std::byte>)>& take);

/// One whole record, with nothing after it; nullopt if it is none.
std::optional<JournalRound> decode_record(std::span<const std::byte> record);

/// A payload; nullopt if it is none. Every length is checked against the bytes that are there.
std::optional<JournalRound> decode_payload(std::span<const std::byte> payload);

struct JournalScan {
  std::vector<JournalRound> rounds;
  size_t end = 0;                    // where the last whole record ends
  bool torn = false;                 // bytes after that are no record
  std::vector<std::string> damaged;  // where records cannot be used, "record 3 (byte 4711)"
  bool foreign = false;              // no journal at all
};

/// Reads what can be read. Nothing before a damaged record is lost, and what follows it is found again.
JournalScan scan_journal(std::span<const std::byte> file);

}  // namespace mxlm
