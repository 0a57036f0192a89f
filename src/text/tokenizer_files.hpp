#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "text/special_tokens.hpp"
#include "text/tokenizer.hpp"

namespace mxlm {

/// The files of a folder that say what its tokens are: bytes by name, for those of tokenizer_file_names() that are
/// there.
struct TokenizerFiles {
  std::string folder;  // for messages
  std::map<std::string, std::string_view, std::less<>> files;
  std::vector<std::string> others;  // names of files for tokenizers of another kind, for messages
};

/// The names of the files that read_tokenizer looks at, config.json among them.
const std::vector<std::string>& tokenizer_file_names();

/// Whether a file of that name holds a tokenizer of a kind that is not read (tiktoken, tekken...).
bool is_other_tokenizer_file(std::string_view name);

/// A tokenizer and what else its files say.
struct FolderTokenizer {
  Tokenizer tokenizer;
  SpecialTokens special;
  /// "" or a sentence for a warning: how AutoTokenizer of transformers reads the same files otherwise.
  std::string difference;
};

/// The tokenizer of a folder with the ids that AutoTokenizer of transformers 5.23 gives (docs/numerics.md has the
/// rules): tokenizer.json, or else the vocabulary that the folder's tokenizer class calls for, and what the files
/// beside it add. Where transformers would build another tokenizer than tokenizer.json says, tokenizer.json holds and
/// `difference` says so. Throws Error with what is missing or not supported.
FolderTokenizer read_tokenizer(const TokenizerFiles& files);

}  // namespace mxlm
