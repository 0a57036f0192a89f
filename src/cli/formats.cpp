// mxlm formats: the tables of formats, scale rules and roundings in the code.

#include <fmt/format.h>

#include <string>

#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "mx/quantize.hpp"

namespace mxlm::cli {
namespace {

std::string element_line(const mx::NamedElement& named) {
  const mx::ElementFormat& e = named.format;
  const bool integer = e.kind == mx::ElementKind::integer;
  const std::string layout =
      integer ? fmt::format("1+{}", e.bits() - 1) : fmt::format("1/{}/{}", e.exponent_bits, e.mantissa_bits);
  std::string aliases;
  for (const std::string_view alias : named.aliases) {
    if (!alias.empty()) aliases += fmt::format("{}{}", aliases.empty() ? "" : ", ", alias);
  }
  return fmt::format("{:<12}{:>5}  {:<7}{:>5}{:>12}{:>14}  {:<18}{}\n", named.name, e.bits(), layout, e.emax, e.max,
                     mx::decode(e, 1), aliases, named.note);
}

std::string table() {
  std::string text = fmt::format("{:<12}{:>5}  {:<7}{:>5}{:>12}{:>14}  {:<18}{}\n", "format", "bits", "layout", "emax",
                                 "largest", "smallest", "aliases", "note");
  for (const auto& e : mx::kElements) text += element_line(e);
  text += fmt::format(
      "mxeXmY      sign, X exponent bits (1 to {}), Y mantissa bits, at most {} bits in all; every code is a number\n"
      "mxintN      N bits (2 to {}), two's complement, N - 2 of them a fraction, clipped symmetrically\n",
      mx::kMaxExponentBits, mx::kMaxElementBits, mx::kMaxElementBits);
  text += "\nreference formats (they take no key except round, and round only where noted):\n";
  for (const auto& stage : mx::kReferenceFormats) {
    text += fmt::format("  {:<24}{}{}{}\n", stage.name, stage.note, stage.takes_rounding ? "; takes round" : "",
                        stage.alias.empty() ? "" : fmt::format("; also called {}", stage.alias));
  }
  text += fmt::format(
      "\nkeys (FORMAT@key=value):\n  block       values that share a scale: {} to {}, or 0 for the whole row (32)\n"
      "  scale_bits  4, 5, 6, 8 or 16 (8)\n  rule        how a block's scale exponent comes from its largest "
      "magnitude, "
      "amax (floor):\n",
      mx::kMinBlock, mx::kMaxBlock);
  for (const auto& r : mx::kScaleRules) text += fmt::format("    {:<10}{}\n", r.name, r.meaning);
  text += "  round       how a value becomes an element (even):\n";
  for (const auto& r : mx::kRoundings) text += fmt::format("    {:<10}{}\n", r.name, r.meaning);
  return text;
}

}  // namespace

void add_formats(CLI::App& app) {
  CLI::App* command = app.add_subcommand("formats", "List the element formats, scale rules and roundings");
  command->footer("Example: mxlm formats");
  command->callback([] { print_result(table()); });
}

}  // namespace mxlm::cli
