// Any bytes as a journal. As its file: what is found is written and found again to the bit. As the payloads of records
// with right checksums (which a fuzzer hardly guesses; a byte 0xff 0xfe ends each): all of them are found or named, and
// one more record after them, and after a torn one, is not lost. As plan.json: an Error or texts.
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "journal/identity.hpp"
#include "journal/records.hpp"

namespace {

using Bytes = std::vector<std::byte>;

void require(bool holds) {
  if (!holds) std::abort();
}

void append(Bytes& out, std::span<const std::byte> more) { out.insert(out.end(), more.begin(), more.end()); }

/// A record as the file has it, made without the code under test.
void append_record(Bytes& out, std::span<const std::byte> payload) {
  const uint32_t frame[] = {
      0x524a584d, static_cast<uint32_t>(payload.size()),
      static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(payload.data()), payload.size()))};
  append(out, std::as_bytes(std::span(frame)));
  append(out, payload);
}

/// What is read is written in one way alone, and that is read again.
void check_again(const mxlm::JournalScan& scan) {
  Bytes file = mxlm::journal_header();
  for (const mxlm::JournalRound& round : scan.rounds) {
    require(round.windows.size() == round.result.windows.size() && !round.result.seconds.empty());
    const Bytes record = mxlm::encode_record(round);
    require(record.size() == mxlm::record_size(round));
    append(file, record);
  }
  const mxlm::JournalScan again = mxlm::scan_journal(file);
  require(again.rounds.size() == scan.rounds.size() && !again.torn && again.damaged.empty() && !again.foreign);
  require(again.end == file.size());
  Bytes twice = mxlm::journal_header();
  for (const mxlm::JournalRound& round : again.rounds) append(twice, mxlm::encode_record(round));
  require(twice == file);
}

mxlm::JournalRound small_round() {
  mxlm::JournalRound round;
  round.windows = {7};
  round.result.seconds.resize(1);
  round.result.windows.resize(1);
  round.result.windows[0].scores.resize(1);
  round.result.windows[0].layer_errors.resize(1);
  return round;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data + 1, size - 1));
  if (data[0] % 3 == 0) {
    const mxlm::JournalScan scan = mxlm::scan_journal(bytes);
    require(scan.end <= bytes.size() && (!scan.foreign || scan.rounds.empty()));
    check_again(scan);
    return 0;
  }
  if (data[0] % 3 == 1) {
    Bytes file = mxlm::journal_header();
    size_t records = 0;
    for (auto rest = bytes; !rest.empty(); ++records) {
      const std::byte cut[] = {std::byte{0xff}, std::byte{0xfe}};
      const auto end = std::search(rest.begin(), rest.end(), std::begin(cut), std::end(cut));
      append_record(file, rest.first(static_cast<size_t>(end - rest.begin())));
      rest = end == rest.end() ? rest.last(0) : rest.subspan(static_cast<size_t>(end - rest.begin()) + 2);
    }
    append(file, mxlm::encode_record(small_round()));
    mxlm::JournalScan scan = mxlm::scan_journal(file);
    require(!scan.torn && scan.end == file.size() && scan.rounds.size() + scan.damaged.size() == records + 1);
    check_again(scan);
    // Torn at its end, it loses the last record and no other.
    const size_t whole = scan.rounds.size();
    scan = mxlm::scan_journal(std::span(file).first(file.size() - 1));
    require(scan.torn && scan.rounds.size() + 1 == whole);
    return 0;
  }
  try {
    const mxlm::JournalPlan plan =
        mxlm::parse_journal_plan({reinterpret_cast<const char*>(data) + 1, size - 1}, "fuzz");
    for (const auto& pass : plan.passes) require(!pass.empty() && pass.front().empty());
  } catch (const mxlm::Error&) {
    return 0;
  }
  return 0;
}
