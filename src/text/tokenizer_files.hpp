#pragma once

// The tokenizer of a folder, from whatever files the folder has.

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "text/special_tokens.hpp"
#include "text/tokenizer.hpp"

namespace mxlm {

/// The files of a folder that define its tokens: the bytes by name of those tokenizer_file_names() that exist.
struct TokenizerFiles {
  std::string folder;  // for messages
  std::map<std::string, std::string_view, std::less<>> files;
  std::vector<std::string> others;  // names of files for tokenizers of another kind, for messages
};

/// The names of the files that read_tokenizer reads, including config.json.
const std::vector<std::string>& tokenizer_file_names();

/// True if a file of that name holds a tokenizer of an unsupported kind (tiktoken, tekken...).
bool is_other_tokenizer_file(std::string_view name);

/// A tokenizer, and what else its files say.
struct FolderTokenizer {
  Tokenizer tokenizer;
  SpecialTokens special;
  /// "" or the sentence of a warning: how AutoTokenizer of transformers reads the same files differently.
  std::string difference;
};

/// The tokenizer of a folder with the ids of AutoTokenizer of transformers 5.23 (docs/numerics.md has the rules):
/// tokenizer.json, or else the vocabulary of the folder's tokenizer class, and what the files beside it add. If
/// transformers would build another tokenizer than tokenizer.json describes, tokenizer.json counts and `difference`
/// says so. Throws Error naming what is missing or unsupported.
FolderTokenizer read_tokenizer(const TokenizerFiles& files);

}  // namespace mxlm
