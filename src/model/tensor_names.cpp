#include "model/tensor_names.hpp"

namespace mxlm {
namespace {

/// True if `name` begins with PART and a dot.
bool begins(std::string_view name, std::string_view part) {
  return name.size() > part.size() && name.starts_with(part) && name[part.size()] == '.';
}

}  // namespace

std::string prefixed(std::string_view name, std::string_view prefix, std::string_view head) {
  if (begins(name, head)) return std::string(name);
  // transformers 5 gives every LM head this name.
  constexpr std::string_view kHead = "lm_head";
  if (begins(name, kHead)) return std::string(head).append(name.substr(kHead.size()));
  if (!begins(name, prefix)) return std::string(prefix).append(".").append(name);
  const std::string_view rest = name.substr(prefix.size() + 1);
  return std::string(begins(rest, prefix) || begins(rest, head) ? rest : name);
}

}  // namespace mxlm
