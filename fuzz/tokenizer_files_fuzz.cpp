// Input: files of a folder, each as the index of its name in tokenizer_file_names(), its length as three bytes, the
// lowest first, and its bytes.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "text/tokenizer_files.hpp"
#include "text/unicode.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<unsigned char>(rest[i])); };
  mxlm::TokenizerFiles files{.folder = "fuzz", .files = {}, .others = {}};
  while (rest.size() >= 4) {
    const std::string& name = mxlm::tokenizer_file_names()[byte(0) % mxlm::tokenizer_file_names().size()];
    const size_t length = byte(1) | byte(2) << 8 | byte(3) << 16;
    rest.remove_prefix(4);
    files.files[name] = rest.substr(0, length);
    rest.remove_prefix(files.files[name].size());
  }
  try {
    const auto read = mxlm::read_tokenizer(files);
    constexpr std::string_view kText = "<s>the fox</s> caf\xc3\xa9 12<pad>";
    for (const int32_t id : read.tokenizer.encode(kText, false)) {
      if (id < 0 || id >= read.tokenizer.size()) std::abort();
    }
    // A template may name ids that no token has, as in the tokenizers library.
    const auto ids = read.tokenizer.encode(kText, true);
    if (!mxlm::text::valid_utf8(read.tokenizer.decode(ids))) std::abort();
  } catch (const mxlm::Error&) {
    // a sentence for the user
  }
  return 0;
}
