#pragma once

// Settings of the hub and its cache, from the environment.

#include <chrono>
#include <filesystem>
#include <string>

namespace mxlm::hub {

/// Where the hub and its cache are, and how requests behave.
struct Options {
  std::filesystem::path cache;                      // the folder of models--ORG--NAME/ and datasets--ORG--NAME/
  std::string endpoint = "https://huggingface.co";  // without a slash at its end
  std::string token;                                // "" = none; sent to the endpoint only, never printed
  bool offline = false;
  std::string certificates;                     // a file of certificate authorities; "" = the system's
  int connections = 4;                          // files at a time
  int retries = 5;                              // of a request that makes no progress
  std::chrono::milliseconds first_delay{1000};  // before the first retry; doubles with each
  std::chrono::seconds longest_delay{300};      // a server that asks for a longer delay is given up
  std::chrono::seconds stall{30};               // a connection without progress for this long is dropped

  /// Reads the variables that huggingface_hub reads: HF_HUB_CACHE (or HUGGINGFACE_HUB_CACHE), HF_HOME, XDG_CACHE_HOME,
  /// HOME, HF_ENDPOINT, HF_TOKEN (or HUGGING_FACE_HUB_TOKEN), HF_TOKEN_PATH or the file $HF_HOME/token, HF_HUB_OFFLINE
  /// (or TRANSFORMERS_OFFLINE), HF_HUB_DISABLE_IMPLICIT_TOKEN; and CURL_CA_BUNDLE, REQUESTS_CA_BUNDLE or SSL_CERT_FILE.
  /// Throws Error if HF_ENDPOINT is not an http or https address, or if the token cannot be part of a header.
  static Options from_environment();
};

/// An address in a form for messages: without user, password and query (a signed address is a secret).
std::string printable_url(const std::string& url);

}  // namespace mxlm::hub
