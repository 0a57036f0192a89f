#include "io/sha256.hpp"

#include <openssl/evp.h>

#include <array>
#include <stdexcept>

#include "io/file.hpp"

namespace mxlm {

struct Digest::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_MD_CTX_free(context); }
};

namespace {

// libcrypto fails here only for lack of memory, or if its build lacks an algorithm.
void check(int result) {
  if (result != 1) throw std::runtime_error("libcrypto cannot compute a hash");
}

}  // namespace

Digest::Digest(Algorithm algorithm) : state_(std::make_unique<State>()) {
  const EVP_MD* method = algorithm == Algorithm::sha1 ? EVP_sha1() : EVP_sha256();
  check(state_->context != nullptr ? EVP_DigestInit_ex(state_->context, method, nullptr) : 0);
}

Digest::~Digest() = default;

void Digest::update(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()));
}

std::string Digest::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  check(EVP_DigestFinal_ex(state_->context, digest.data(), &size));
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (unsigned int i = 0; i < size; ++i) {
    out += kDigits[digest[i] >> 4];
    out += kDigits[digest[i] & 15];
  }
  return out;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.hex();
}

}  // namespace mxlm
