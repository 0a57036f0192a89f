#include "base/log.hpp"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>
#include <vector>

#include "base/error.hpp"
#include "base/quote.hpp"

namespace mxlm {
namespace {

using Handler = std::function<void(spdlog::level::level_enum, std::string_view)>;

class HandlerSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit HandlerSink(Handler handler) : handler_(std::move(handler)) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    handler_(message.level, {message.payload.data(), message.payload.size()});
  }
  void flush_() override {}

 private:
  Handler handler_;
};

std::shared_ptr<spdlog::logger> make_log(const std::vector<spdlog::sink_ptr>& sinks) {
  auto log = std::make_shared<spdlog::logger>("mxlm", sinks.begin(), sinks.end());
  log->flush_on(spdlog::level::info);
  return log;
}

struct Current {
  std::mutex mutex;
  std::shared_ptr<spdlog::logger> log = make_log({});
};

Current& current() {
  static Current it;
  return it;
}

void replace(std::shared_ptr<spdlog::logger> log) {
  const std::lock_guard lock(current().mutex);
  current().log.swap(log);
}

}  // namespace

void configure_logging(bool quiet, const std::string& file) {
  std::vector<spdlog::sink_ptr> sinks;
  auto terminal = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  terminal->set_pattern("mxlm: %l: %v");
  terminal->set_level(quiet ? spdlog::level::warn : spdlog::level::info);
  sinks.push_back(terminal);
  if (!file.empty()) {
    try {
      auto log = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file, /*truncate=*/true);
      log->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
      sinks.push_back(log);
    } catch (const spdlog::spdlog_ex& e) {
      fail("The log file '{}' cannot be written ({}); name another with --log-file.", file, e.what());
    }
  }
  auto log = make_log(sinks);
  if (!file.empty()) {
    // Only the file can fail: lines to a broken stderr are lost without an error.
    log->set_error_handler(
        [name = quote(file), told = std::make_shared<std::atomic<bool>>(false)](const std::string& why) {
          if (told->exchange(true)) return;
          const std::string line =
              fmt::format("mxlm: warning: the log file {} misses lines from here on ({})\n", name, quote(why));
          std::fputs(line.c_str(), stderr);
        });
  }
  replace(std::move(log));
}

void send_log_to(Handler handler) {
  replace(make_log(handler ? std::vector<spdlog::sink_ptr>{std::make_shared<HandlerSink>(std::move(handler))}
                           : std::vector<spdlog::sink_ptr>{}));
}

std::shared_ptr<spdlog::logger> current_log() {
  const std::lock_guard lock(current().mutex);
  return current().log;
}

void write_log(spdlog::level::level_enum level, std::string_view line) {
  const auto log = current_log();
  if (log->should_log(level)) log->log(level, message_text(line));
}

}  // namespace mxlm
