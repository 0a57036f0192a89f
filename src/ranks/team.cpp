#include "ranks/team.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <iterator>
#include <map>
#include <set>
#include <thread>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "base/quote.hpp"
#include "journal/records.hpp"
#include "rounds/round_queue.hpp"

namespace mxlm {
namespace {

using Clock = std::chrono::steady_clock;

// mpirun gives its processes about a second between SIGTERM and SIGKILL, and rank 0 has to collect all results by then.
constexpr auto kGoodbye = std::chrono::milliseconds(300);

/// Counts the models and jobs of the program, so that late answers to an earlier one can be dropped.
uint32_t g_number = 0;

std::string rank_on_host(int rank, const std::string& host) { return fmt::format("rank {} on {}", rank, host); }

}  // namespace

Team::Team(Ranks& ranks, const LoadedModel& model, DType compute) : ranks_(ranks), model_(model) {
  ++g_number;
  tell_all(TeamTalk::model);
  std::vector<std::byte> news = encode(ModelNews{
      .name = model.asked, .adapter = model.adapter ? model.adapter->name() : "", .float32 = compute == DType::f32});
  ranks_.broadcast(news);
}

void Team::tell_all(TeamTalk kind) {
  for (int rank = 1; rank < ranks_.size(); ++rank) say(ranks_, rank, kind, {.job = g_number});
}

void Team::gather(const std::string& model_sha256, const BackendKind& own, bool mixed) {
  members_.resize(static_cast<size_t>(ranks_.size() - 1));
  for (size_t there = 0; there < members_.size();) {
    throw_if_interrupted();
    auto message = hear(ranks_);
    if (!message) {
      std::this_thread::sleep_for(kPoll);
      continue;
    }
    if (message->kind != TeamTalk::ready || message->envelope.job != g_number) continue;
    decode(message->body, members_[static_cast<size_t>(message->from - 1)]);
    ++there;
  }
  std::set<std::string> kinds{own.description}, libraries{own.libraries};
  for (size_t m = 0; m < members_.size(); ++m) {
    const ReadyNews& member = members_[m];
    const std::string who = rank_on_host(static_cast<int>(m + 1), member.host);
    if (!member.error.empty()) fail("{}: {}", who, member.error);
    if (member.config_sha256 != model_.config_sha256 || (!member.sha256.empty() && member.sha256 != model_sha256)) {
      fail("The model {} of {} differs from the model of rank 0 on {}; give every host the same files.",
           quote(model_.name), who, ranks_.host());
    }
    kinds.insert(member.backend.description);
    libraries.insert(member.backend.libraries);
    if (member.backend != own && !mixed) {
      fail(
          "Rank 0 on {} computes with {}, {} with {}, whose digits differ; start ranks of one kind, or allow it with "
          "--mixed-ranks.",
          ranks_.host(), quote(own.text()), who, quote(member.backend.text()));
    }
  }
  backends_ = {.description = fmt::format("{}", fmt::join(kinds, " beside ")),
               .libraries = fmt::format("{}", fmt::join(libraries, " beside "))};
}

size_t Team::workers() const {
  size_t sum = 0;
  for (const ReadyNews& member : members_) sum += member.workers;
  return sum;
}

uint64_t Team::memory_limit(uint64_t own) const {
  for (const ReadyNews& member : members_) own = std::min(own, member.memory_limit);
  return own;
}

uint64_t Team::device_limit(uint64_t own) const {
  for (const ReadyNews& member : members_) {
    // With --mixed-ranks, ranks on CPUs report 0, which does not limit the GPUs.
    if (member.device_limit > 0) own = own > 0 ? std::min(own, member.device_limit) : own;
  }
  return own;
}

void Team::begin(const JobNews& job, std::span<const Window> windows) {
  ++g_number;
  devices_.clear();
  tell_all(TeamTalk::job);
  std::vector<std::byte> news = encode(job, windows);
  ranks_.broadcast(news);
}

/// The conversation with the other ranks about one job.
class Team::Serving {
 public:
  Serving(Team& team, const EngineJob& job, RoundQueue& rounds)
      : team_(team), job_(job), rounds_(rounds), members_(team.members_.size()) {}

  std::vector<WorkerOutcome> run() {
    auto left_alone = Clock::time_point::max();
    while (reports_ < members_.size() && Clock::now() < left_alone) {
      const bool heard = listen();
      answer();
      if (!cancelled_ && (interrupt_requested() || rounds_.interrupted())) {
        cancelled_ = true;
        request_interrupt();  // the first signal may have reached another rank
        rounds_.interrupt();
        left_alone = Clock::now() + kGoodbye;
        team_.tell_all(TeamTalk::cancel);
      }
      if (!heard) std::this_thread::sleep_for(kPoll);
    }
    std::vector<WorkerOutcome> out;
    for (Member& member : members_) {
      std::move(member.report.outcomes.begin(), member.report.outcomes.end(), std::back_inserter(out));
      std::move(member.report.devices.begin(), member.report.devices.end(), std::back_inserter(team_.devices_));
    }
    return out;
  }

 private:
  struct Member {
    std::set<size_t> rounds;                 // shards that the rank computes
    std::map<size_t, RoundResult> arriving;  // shards with some records still to come
    size_t asks = 0;
    bool done = false;
    ReportNews report;
  };

  /// Handles all messages that have arrived. Returns false if no message has arrived.
  bool listen() {
    bool heard = false;
    while (auto message = hear(team_.ranks_)) {
      heard = true;
      if (message->envelope.job == g_number) take(*message);
    }
    return heard;
  }

  void take(const TeamMessage& message) {
    Member& member = members_[static_cast<size_t>(message.from - 1)];
    const size_t round = message.envelope.round;
    switch (message.kind) {
      case TeamTalk::ask:
        ++member.asks;
        break;
      case TeamTalk::result:
        if (member.rounds.contains(round)) take_record(member, message);
        break;
      case TeamTalk::give_back:
        if (member.rounds.erase(round) > 0) rounds_.give_back(round);
        break;
      case TeamTalk::leave: {
        const OutOfDeviceMemory why(text_of(message.body));
        if (rounds_.leave(why)) {
          log_warn("{}: {} Its worker ends, and the other workers compute the rest.", who(message.from), why.what());
        } else {
          rounds_.end(std::make_exception_ptr(why));
        }
        break;
      }
      case TeamTalk::failed:
        rounds_.end(std::make_exception_ptr(Error(fmt::format("{}: {}", who(message.from), text_of(message.body)))));
        break;
      case TeamTalk::interrupted:
        rounds_.interrupt();
        break;
      case TeamTalk::work:
        rounds_.add_work(kElsewhere, message.envelope.work);
        break;
      case TeamTalk::report:
        decode(message.body, member.report);
        // A worker that asked just before the end may have got a shard and not computed it.
        for (const size_t had : member.rounds) rounds_.give_back(had);
        member.rounds.clear();
        member.asks = 0;
        member.done = true;
        ++reports_;
        break;
      default:
        break;
    }
  }

  void take_record(Member& member, const TeamMessage& message) {
    const size_t round = message.envelope.round;
    auto record = decode_record(message.body);
    const size_t variants = job_.tree.leaf.size();
    if (!record || record->result.seconds.size() != variants) {
      fail("{} sent a damaged result.", who(message.from));
    }
    RoundResult& result = member.arriving[round];
    result.positions += record->result.positions;
    result.seconds.resize(variants);
    for (size_t v = 0; v < variants; ++v) result.seconds[v] += record->result.seconds[v];
    std::move(record->result.windows.begin(), record->result.windows.end(), std::back_inserter(result.windows));
    if (message.envelope.more > 0) return;
    size_t expected = 0;
    for (const auto& [begin, end] : job_.plan.rounds[round]) expected += end - begin;
    if (result.windows.size() != expected) fail("{} sent an incomplete result.", who(message.from));
    member.rounds.erase(round);
    rounds_.finish(round, std::move(result));
    member.arriving.erase(round);
  }

  void answer() {
    for (size_t m = 0; m < members_.size(); ++m) {
      Member& member = members_[m];
      const int rank = static_cast<int>(m + 1);
      while (member.asks > 0) {
        const RoundQueue::Offer offer = rounds_.try_take();
        if (offer.answer == RoundQueue::Answer::later) break;
        if (offer.answer == RoundQueue::Answer::over) {
          say(team_.ranks_, rank, TeamTalk::over, {.job = g_number});
          member.asks = 0;
          break;
        }
        --member.asks;
        member.rounds.insert(offer.round);
        say(team_.ranks_, rank, TeamTalk::round, {.job = g_number, .round = static_cast<uint32_t>(offer.round)});
      }
    }
  }

  [[nodiscard]] std::string who(int rank) const {
    return rank_on_host(rank, team_.members_[static_cast<size_t>(rank - 1)].host);
  }

  Team& team_;
  const EngineJob& job_;
  RoundQueue& rounds_;
  std::vector<Member> members_;  // [rank - 1]
  size_t reports_ = 0;
  bool cancelled_ = false;
};

std::vector<WorkerOutcome> Team::serve(const EngineJob& job, RoundQueue& rounds) {
  Serving serving(*this, job, rounds);
  while (true) {
    try {
      return serving.run();
    } catch (...) {
      // No rank gets another shard; the conversation goes on until all ranks know this and have reported.
      rounds.end(std::current_exception());
    }
  }
}

void dismiss(Ranks& ranks, int code) {
  for (int rank = 1; rank < ranks.size(); ++rank) {
    say(ranks, rank, TeamTalk::stop, {.job = 0, .round = static_cast<uint32_t>(code)});
  }
}

}  // namespace mxlm
