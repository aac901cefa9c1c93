// The weft command: parses the command line, runs one subcommand, turns every failure into one line and an exit code.
#include <CLI/Config.hpp>
#include <CLI/Error.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>

#include "commands.h"
#include "weft/weft.h"

namespace weft::cli {
namespace {

constexpr std::size_t kHelpWidth = 112;
constexpr std::size_t kHelpColumn = 32;

// Breaks a text between words; CLI11 indents the lines.
std::string wrapped(const std::string& text, std::size_t width) {
  std::string out;
  std::size_t column = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string_view word = std::string_view(text).substr(begin, end - begin);
    const auto letters = static_cast<std::size_t>(
        std::ranges::count_if(word, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
    if (column > 0 && column + 1 + letters > width) {
      out += '\n';
      column = 0;
    } else if (column > 0) {
      out += ' ';
      ++column;
    }
    out += word;
    column += letters;
    begin = end + 1;
  }
  return out;
}

void lay_out_help(CLI::App& app) {
  app.get_formatter()->column_width(kHelpColumn);
  for (CLI::Option* option : app.get_options()) {
    option->description(wrapped(option->get_description(), kHelpWidth - kHelpColumn));
  }
}

void declare(CLI::App& app, Action& action) {
  app.set_version_flag("--version", fmt::format("weft {}", version()));
  app.require_subcommand(1);
  app.footer(
      "Results go to stdout, everything else to stderr. Exit code: 0 success, 1 failure, 2 wrong usage.\n"
      "`weft COMMAND --help` tells the options and gives examples.\n\n"
      "Examples:\n"
      "  weft classify photo.jpg\n"
      "  weft features --out embedding.npy photo.jpg\n"
      "  weft info vrwkv_tiny\n"
      "  weft convert vrwkv_t_in1k_224.pth vrwkv_t.safetensors");
  for (const auto add : kCommands) add(app, action);
  lay_out_help(app);
  for (CLI::App* command : app.get_subcommands([](CLI::App*) { return true; })) lay_out_help(*command);
}

// What was wrong, and where to read about it.
std::string usage_message(CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  for (const CLI::App* command : app.get_subcommands()) {
    return fmt::format("{}; see `weft {} --help`", error.what(), command->get_name());
  }
  std::string names;
  for (const CLI::App* command : app.get_subcommands([](CLI::App*) { return true; })) {
    names += fmt::format(" {}", command->get_name());
  }
  return fmt::format("{}; the commands are:{}; see `weft --help`",
                     argc > 1 ? fmt::format("{} is no command", argv[1]) : "a command is required", names);
}

int parse_and_run(int argc, char** argv) {
  CLI::App app("Linear-time vision backbones on plain CPU: classify pictures, extract features, measure.", "weft");
  Action action;
  declare(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    app.exit(success, std::cout, std::cerr);
    return kOk;
  } catch (const CLI::ParseError& error) {
    print_error(usage_message(app, error, argc, argv));
    return kUsage;
  }
  return action();
}

int run(int argc, char** argv) {
  try {
    return parse_and_run(argc, argv);
  } catch (const UsageError& error) {
    print_error(error.what());
    return kUsage;
  } catch (const std::bad_alloc&) {
    print_error("out of memory");
  } catch (const std::exception& error) {
    if (std::ferror(stdout) == 0) print_error(error.what());  // main tells that of all commands
  }
  return kFailure;
}

}  // namespace
}  // namespace weft::cli

int main(int argc, char** argv) {
  const int code = weft::cli::run(argc, argv);
  std::cout.flush();
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0 || std::cout.fail()) {
    weft::cli::print_error("cannot write to the standard output");
    return weft::cli::kFailure;
  }
  return code;
}
