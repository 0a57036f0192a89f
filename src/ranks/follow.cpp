#include "ranks/follow.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/error.hpp"
#include "base/interrupt.hpp"
#include "base/memory.hpp"
#include "journal/records.hpp"
#include "load/load.hpp"
#include "ranks/messages.hpp"
#include "rounds/scheduler.hpp"

namespace mxlm {
namespace {

using Clock = std::chrono::steady_clock;

// As kPoll, but between jobs, where an answer is not urgent.
constexpr auto kIdlePoll = std::chrono::milliseconds(5);
constexpr auto kTellWork = std::chrono::milliseconds(200);

/// The shards that rank 0 gives to this rank. Workers put their messages into an outbox; only the thread that runs
/// speak() talks to rank 0.
class HandedRounds final : public RoundSource {
 public:
  HandedRounds(Ranks& ranks, uint32_t job, const Plan& plan, bool reversed)
      : ranks_(ranks), job_(job), plan_(plan), reversed_(reversed) {}

  std::optional<size_t> take() override {
    std::unique_lock lock(mutex_);
    if (over_) return std::nullopt;
    outbox_.push_back({.kind = TeamTalk::ask, .envelope = {.job = job_}, .body = {}});
    changed_.wait(lock, [&] { return over_ || !handed_.empty(); });
    // A shard that arrived together with the end stays here; rank 0 gives it back to the queue when it gets the report.
    if (over_) return std::nullopt;
    const size_t round = handed_.front();
    handed_.pop_front();
    return round;
  }

  void finish(size_t round, RoundResult result) override {
    std::vector<uint32_t> windows;
    for (const auto& [begin, end] : plan_.rounds[round]) {
      for (size_t w = begin; w < end; ++w) windows.push_back(static_cast<uint32_t>(w));
    }
    std::vector<Mail> mails;
    each_record(0, reversed_, windows, result, [&](std::span<const std::byte> record) {
      mails.push_back({.kind = TeamTalk::result,
                       .envelope = {.job = job_, .round = static_cast<uint32_t>(round), .more = 1},
                       .body = {record.begin(), record.end()}});
    });
    mails.back().envelope.more = 0;
    const std::lock_guard lock(mutex_);
    std::move(mails.begin(), mails.end(), std::back_inserter(outbox_));
  }

  void add_work(size_t /*device*/, double node_tokens) override {
    const std::lock_guard lock(mutex_);
    work_ += node_tokens;
  }

  void give_back(size_t round) override {
    post({.kind = TeamTalk::give_back, .envelope = {.job = job_, .round = static_cast<uint32_t>(round)}, .body = {}});
  }

  bool leave(const OutOfDeviceMemory& why) override {
    // Only rank 0 knows whether this was the last worker.
    const std::string text = why.what();
    const auto bytes = bytes_of(text);
    post({.kind = TeamTalk::leave, .envelope = {.job = job_}, .body = {bytes.begin(), bytes.end()}});
    return true;
  }

  void end(std::exception_ptr error) override {
    std::string text = "it failed";
    try {
      std::rethrow_exception(std::move(error));
    } catch (const std::exception& e) {
      text = e.what();
    } catch (...) {
    }
    const auto bytes = bytes_of(text);
    post({.kind = TeamTalk::failed, .envelope = {.job = job_}, .body = {bytes.begin(), bytes.end()}});
    stop();
  }

  void interrupt() override {
    post({.kind = TeamTalk::interrupted, .envelope = {.job = job_}, .body = {}});
    stop();
  }

  void stop_early(const Error& why) override { end(std::make_exception_ptr(Error(why.what()))); }

  /// The exit code if rank 0 has ended; callers ask only after speak() has returned.
  [[nodiscard]] const std::optional<int>& dismissed() const { return dismissed_; }

  /// Exchanges messages with rank 0 until `done` is true and the outbox is empty.
  void speak(const std::atomic<bool>& done) {
    auto told = Clock::now();
    while (true) {
      const bool last = done;
      bool heard = false;
      while (const auto message = hear(ranks_)) {
        heard = true;
        listen(*message);
      }
      std::deque<Mail> mails;
      double work = 0;
      {
        const std::lock_guard lock(mutex_);
        mails.swap(outbox_);
        if (last || Clock::now() - told > kTellWork) work = std::exchange(work_, 0.0);
      }
      if (work != 0) {
        told = Clock::now();
        say(ranks_, 0, TeamTalk::work, {.job = job_, .work = work});
      }
      for (const Mail& mail : mails) say(ranks_, 0, mail.kind, mail.envelope, mail.body);
      if (last) return;
      if (!heard && mails.empty()) std::this_thread::sleep_for(kPoll);
    }
  }

 private:
  struct Mail {
    TeamTalk kind;
    Envelope envelope;
    std::vector<std::byte> body;
  };

  void post(Mail mail) {
    const std::lock_guard lock(mutex_);
    outbox_.push_back(std::move(mail));
  }

  void stop() {
    const std::lock_guard lock(mutex_);
    over_ = true;
    changed_.notify_all();
  }

  void listen(const TeamMessage& message) {
    if (message.kind == TeamTalk::stop) {
      // Rank 0 ends and does not wait for this rank.
      dismissed_ = static_cast<int>(message.envelope.round);
      request_interrupt();
      stop();
    }
    if (message.envelope.job != job_) return;
    if (message.kind == TeamTalk::cancel) request_interrupt();
    if (message.kind == TeamTalk::over || message.kind == TeamTalk::cancel) stop();
    if (message.kind != TeamTalk::round || message.envelope.round >= plan_.rounds.size()) return;
    const std::lock_guard lock(mutex_);
    handed_.push_back(message.envelope.round);
    changed_.notify_one();
  }

  Ranks& ranks_;
  const uint32_t job_;
  const Plan& plan_;
  const bool reversed_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<size_t> handed_;
  std::deque<Mail> outbox_;
  double work_ = 0;
  bool over_ = false;
  std::optional<int> dismissed_;
};

class Follower {
 public:
  Follower(Ranks& ranks, const std::function<DeviceSet()>& choose) : ranks_(ranks), choose_(choose) {}

  int run() {
    while (true) {
      // This rank leaves a signal to rank 0, which gets the signal too. A second signal of mpirun ends all ranks.
      const auto message = hear(ranks_);
      if (!message) {
        std::this_thread::sleep_for(kIdlePoll);
        continue;
      }
      const uint32_t number = message->envelope.job;
      if (message->kind == TeamTalk::stop) return static_cast<int>(message->envelope.round);
      if (message->kind == TeamTalk::model) take_model(number);
      if (message->kind == TeamTalk::job) {
        if (const auto code = take_job(number)) return *code;
      }
    }
  }

 private:
  void take_model(uint32_t number) {
    std::vector<std::byte> bytes;
    ranks_.broadcast(bytes);
    ReadyNews ready;
    ready.host = ranks_.host();
    try {
      ModelNews news;
      decode(bytes, news);
      if (!devices_) devices_ = choose_();
      const bool same =
          model_ && model_->asked == news.name && (model_->adapter ? model_->adapter->name() : "") == news.adapter;
      if (!same) {
        model_.reset();
        model_.emplace(load_model(news.name, /*with_tokenizer=*/false, {}, news.adapter));
        sha256_.clear();
        // Only the first rank of a host hashes the weights for all ranks there. Rank 0 hashes the weights of its host.
        if (ranks_.first_here() == ranks_.rank()) sha256_ = model_->checkpoint.sha256();
      }
      compute_ = news.float32 ? DType::f32 : DType::bf16;
      ready.backend = backend_kind(*devices_);
      ready.config_sha256 = model_->config_sha256;
      ready.sha256 = sha256_;
      ready.memory_limit = memory_budget_bytes() / static_cast<uint64_t>(ranks_.ranks_here());
      ready.device_limit = devices_->worker_limit();
      ready.workers = devices_->workers();
    } catch (const std::exception& error) {
      model_.reset();
      ready.error = error.what();
    }
    say(ranks_, 0, TeamTalk::ready, {.job = number}, encode(ready));
  }

  /// Returns the exit code if rank 0 has ended.
  std::optional<int> take_job(uint32_t number) {
    std::vector<std::byte> bytes;
    ranks_.broadcast(bytes);
    JobNews news;
    decode(bytes, news);
    bytes = {};
    Plan plan;
    plan.rounds = news.rounds;
    plan.kept = news.kept;
    HandedRounds rounds(ranks_, number, plan, news.reversed);
    std::atomic<bool> done = false;
    std::thread speaker([&] { rounds.speak(done); });
    ReportNews report;
    try {
      report = run_job(news, plan, rounds);
    } catch (const Interrupted&) {
      rounds.interrupt();
    } catch (...) {
      rounds.end(std::current_exception());
    }
    done = true;
    speaker.join();
    if (!rounds.dismissed()) say(ranks_, 0, TeamTalk::report, {.job = number}, encode(report));
    return rounds.dismissed();
  }

  ReportNews run_job(const JobNews& news, const Plan& plan, RoundSource& rounds) {
    const DeviceSet& devices = *devices_;
    Worker first(devices.make_backend(0, news.reversed), model_->spec, compute_);
    std::vector<std::function<std::unique_ptr<Worker>()>> others;
    for (size_t w = 1; w < devices.workers(); ++w) {
      others.emplace_back([&, w] {
        return std::make_unique<Worker>(devices.make_backend(w, news.reversed), model_->spec, compute_,
                                        devices.device_of(w));
      });
    }
    std::vector<Variant> variants(news.variants.size());
    std::transform(news.variants.begin(), news.variants.end(), variants.begin(), Variant::parse_or_baseline);
    const VariantTree tree = build_tree(model_->spec, resolve(model_->spec, variants));
    const DeviceMonitor monitor(devices);
    ReportNews report;
    report.outcomes = work_on({.model = model_->spec,
                               .tree = tree,
                               .plan = plan,
                               .windows = news.windows,
                               .kind = news.kind,
                               .jensen_shannon = news.jensen_shannon},
                              first, others, rounds);
    std::vector<WorkerReport> reports(report.outcomes.size());
    std::transform(report.outcomes.begin(), report.outcomes.end(), reports.begin(),
                   [](const WorkerOutcome& outcome) { return outcome.report; });
    report.devices = monitor.use(reports);
    return report;
  }

  Ranks& ranks_;
  const std::function<DeviceSet()>& choose_;
  std::optional<DeviceSet> devices_;
  std::optional<LoadedModel> model_;
  std::string sha256_;
  DType compute_ = DType::f32;
};

}  // namespace

int follow(Ranks& ranks, const std::function<DeviceSet()>& choose) { return Follower(ranks, choose).run(); }

}  // namespace mxlm
