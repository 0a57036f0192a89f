#pragma once

// The messages between the ranks of a run. Rank 0 announces a model and then one job after the other. The other ranks
// ask rank 0 for shards and send their results. docs/architecture.md draws the conversation.

#include <chrono>
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

/// How long a rank sleeps between looks for messages during a job, which is short beside the seconds of a shard.
constexpr auto kPoll = std::chrono::milliseconds(1);

enum class TeamTalk : uint8_t {
  // From rank 0. A broadcast follows the first two.
  model,   // the model and the dtype: ModelNews
  job,     // variants, windows and shards: JobNews
  round,   // compute the shard `round`
  over,    // the job has no more shards
  cancel,  // the run is interrupted: leave the current shard
  stop,    // the program ends; `round` is its exit code
  // To rank 0.
  ready,        // the rank has loaded the model or failed: ReadyNews
  ask,          // a worker asks for a shard
  result,       // a record of a finished shard; `more` is 0 for its last record
  give_back,    // the rank cannot compute the shard `round`
  leave,        // a worker has ended because its device lacks memory; the body is the reason
  failed,       // an Error ends the run; the body is its text
  interrupted,  // a signal ends the run
  work,         // `work` was done since the last such message
  report,       // all workers have ended: ReportNews
};

/// The first bytes of each message.
struct Envelope {
  uint32_t job = 0;  // messages of an earlier job are dropped
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
/// The next message; nullopt if none has arrived. Throws std::runtime_error if the message is incomplete.
std::optional<TeamMessage> hear(Ranks& ranks);

std::span<const std::byte> bytes_of(const std::string& text);
std::string text_of(std::span<const std::byte> bytes);

// Bodies of messages. `decode` throws std::exception if the bytes are not such a body.

struct ModelNews {
  std::string name, adapter;  // as given by the user
  bool float32 = false;
};
struct ReadyNews {
  std::string error;  // why the rank cannot take part, "" if it can
  std::string host, config_sha256;
  BackendKind backend;
  std::string sha256;  // of the weights, from the first rank of each host other than rank 0's; "" from other ranks
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
/// Takes the windows separately, because a copy into `news` would be large.
std::vector<std::byte> encode(const JobNews& news, std::span<const Window> windows);
std::vector<std::byte> encode(const ReportNews& news);
void decode(std::span<const std::byte> bytes, ModelNews& news);
void decode(std::span<const std::byte> bytes, ReadyNews& news);
void decode(std::span<const std::byte> bytes, JobNews& news);
void decode(std::span<const std::byte> bytes, ReportNews& news);

}  // namespace mxlm
