#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace mxlm {

inline const std::string kModel = MXLM_SOURCE_DIR "/models/booklet-7m";
inline const std::string kSmall = " --max-windows 2 --context 64 --quiet ";
/// The same, far from one another, so that each is a cluster of its own.
inline const std::string kSpread = " --windows 2 --context 64 --quiet ";

inline constexpr const char* kToken = "hf_aVerySecretToken";

inline std::string quoted(const std::string& path) { return "'" + path + "'"; }

/// A folder of its own for a test, removed at the end.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "mxlm_cli_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string file(const std::string& name, std::string_view content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
    return *this / name;
  }

 private:
  std::filesystem::path path_;
};

inline std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

struct Outcome {
  int code = -1;  // exit code; 128 + signal if one ended the program
  std::string out, err;
};

/// Runs `ENVIRONMENT mxlm ARGUMENTS` in a shell (so that arguments may redirect and pipe) and waits for it.
inline Outcome run_mxlm(const std::string& arguments, const std::string& environment = "") {
  const Folder folder;
  // Journals of runs that are not named go where the test's other files are.
  const std::string command = "set -o pipefail; export XDG_STATE_HOME='" + folder / "state" + "'; " + environment +
                              " '" MXLM_BINARY "' " + arguments;
  const std::string quoted_out = folder / "out", quoted_err = folder / "err";
  const std::string script = folder.file("run.sh", command);
  const int status = std::system(("bash '" + script + "' >'" + quoted_out + "' 2>'" + quoted_err + "'").c_str());
  Outcome outcome;
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.out = slurp(quoted_out);
  outcome.err = slurp(quoted_err);
  return outcome;
}

/// For a shell: goes on once `condition` holds, or after so many fiftieths of a second.
inline std::string wait_until(const std::string& condition, int tries = 1500) {
  return "for i in {1.." + std::to_string(tries) + "}; do " + condition + " && break; sleep 0.02; done; ";
}

/// For a shell: a journal's file of records, which may hold wildcards, has more than its header.
inline std::string a_record_in(const std::string& file) {
  return "[[ $(cat " + file + " 2>/dev/null | wc -c) -gt 8 ]]";
}

}  // namespace mxlm
