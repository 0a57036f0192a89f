#pragma once

// What the ranks of a run say to one another. Rank 0 tells the others of a model, then of one job after the other; they
// ask it for rounds and send what they finish. docs/architecture.md draws the conversation.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cluster/ranks.hpp"
#include "devices/devices.hpp"
#include "devices/records.hpp"
#include "engine/plan.hpp"
#include "engine/round.hpp"
#include "protocols/protocol.hpp"

namespace mxlm {

enum class TeamTalk : uint8_t {
  // From rank 0. Of the first two a broadcast follows.
  model,   // which model, and what to compute in: ModelNews
  job,     // variants, windows and rounds: JobNews
  round,   // run this one
  over,    // no more of them
  cancel,  // let go of the round at hand: the run is interrupted
  stop,    // the program ends; `round` is its exit code
  // To rank 0.
  ready,        // has the model: ReadyNews
  ask,          // for a round more
  result,       // one record of a finished round; `more` follow
  give_back,    // cannot run a round
  leave,        // a worker has gone for want of memory; text
  failed,       // an Error that ends the run; text
  interrupted,  // a signal that ends the run
  work,         // done since the last time: `work`
  report,       // all workers are done: ReportNews
};

/// What each message begins with.
struct Envelope {
  uint32_t job = 0;  // of which job; what belongs to an earlier one is dropped
  uint32_t round = 0;
  uint32_t more = 0;
  uint32_t padding = 0;
  double work = 0;
};

struct TeamMessage {
  int from = 0;
  TeamTalk kind = TeamTalk::stop;
  Envelope envelope;
  std::vector<std::byte> body;
};

void say(Ranks& ranks, int to, TeamTalk kind, const Envelope& envelope, std::span<const std::byte> body = {});
/// The next message, if one is there. Throws std::runtime_error on one that is none.
std::optional<TeamMessage> hear(Ranks& ranks);

std::span<const std::byte> bytes_of(const std::string& text);
std::string text_of(std::span<const std::byte> bytes);

/// Bodies. `decode` throws std::exception on what is none.
struct ModelNews {
  std::string name, adapter;  // as the user gave them
  bool float32 = false;
};
struct ReadyNews {
  std::string error;  // why it cannot take part, "" if it can
  std::string host, config_sha256;
  BackendKind backend;
  std::string sha256;  // of the weights, by the first rank of each host but rank 0's; else ""
  uint64_t memory_limit = 0, device_limit = 0;
  size_t workers = 0;
};
struct JobNews {
  std::vector<std::string> variants;  // canonical, the baseline ("") first
  bool reversed = false;
  ScoreKind kind = ScoreKind::next_token;
  bool jensen_shannon = false;
  KeptForm kept = KeptForm::nothing;
  std::vector<std::vector<Plan::Range>> rounds;
  std::vector<Window> windows;  // without documents and notes
};
struct ReportNews {
  std::vector<WorkerOutcome> outcomes;
  std::vector<DeviceUse> devices;
};
std::vector<std::byte> encode(const ModelNews& news);
std::vector<std::byte> encode(const ReadyNews& news);
/// The windows are given apart, so that they need not be copied.
std::vector<std::byte> encode(const JobNews& news, std::span<const Window> windows);
std::vector<std::byte> encode(const ReportNews& news);
void decode(std::span<const std::byte> bytes, ModelNews& news);
void decode(std::span<const std::byte> bytes, ReadyNews& news);
void decode(std::span<const std::byte> bytes, JobNews& news);
void decode(std::span<const std::byte> bytes, ReportNews& news);

}  // namespace mxlm
