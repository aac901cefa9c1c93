// What the subcommands share: how they are added, the way from a name to a model, values of options, and how results
// are printed. The options themselves: arguments.h.
#pragma once

#include <CLI/App.hpp>
#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/format.h"
#include "core/json.h"
#include "models/architecture.h"
#include "weft/model.h"

namespace weft::cli {

constexpr int kOk = 0;
constexpr int kFailure = 1;
constexpr int kUsage = 2;

/// The command line asks for something that makes no sense: exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> message, Args&&... args) {
  throw UsageError(fmt::format(message, std::forward<Args>(args)...));
}

/// What main runs once the command line is understood; the result is the exit code.
using Action = std::function<int()>;

/// Adds a subcommand that runs `run(options)`. `declare(app, options)` adds its options.
template <class Options>
void add_command(CLI::App& app, Action& action, std::string name, std::string description,
                 void (*declare)(CLI::App&, Options&), int (*run)(const Options&)) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(std::move(name), std::move(description));
  declare(*command, *options);
  command->callback([&action, options, run] { action = [options, run] { return run(*options); }; });
}

/// Where what comes with weft may lie: share/weft/INSTALLED beside an installed command (bin/), SOURCE in the source
/// tree that it was built in (build/bin or build/<preset>/bin).
std::vector<std::filesystem::path> folders_of_weft(std::string_view installed, std::string_view source);

/// --model when it is given, else $WEFT_MODEL, else the model that comes with weft. Throws Error where there is none.
std::filesystem::path model_path(const std::string& argument);
/// Model::load, with a remedy in the message where the file is missing or a preset was named.
Model load_model(const std::filesystem::path& path, const LoadOptions& options);

/// The model in a file, or a preset with random weights, always the same.
Model load_or_create(const std::string& file_or_preset, const LoadOptions& options);

/// True for the name of an existing file, false for a preset. Throws ConfigError that lists what there is otherwise.
bool is_file(const std::string& file_or_preset);
/// A preset's architecture with these options over its own; no weights are made.
std::unique_ptr<const Architecture> configure_preset(const std::string& preset, const LoadOptions& options);

struct Size {
  std::int64_t height = 0;
  std::int64_t width = 0;
  bool operator==(const Size&) const = default;
};

/// The options for pictures of `size` (--size; empty: the usual): with img_size where they lack it and a new model of
/// this preset takes pictures of one size only.
LoadOptions for_size(const std::string& file_or_preset, LoadOptions options, const std::optional<Size>& size);
/// The size in --size; nothing where it is empty.
std::optional<Size> given_size(const std::string& text);

/// "a,b,c" in its parts. Throws UsageError (naming `option`) when there is no part or an empty one.
std::vector<std::string> split_list(std::string_view text, std::string_view option);
std::vector<int> parse_ints(std::string_view text, std::string_view option, int low, int high);
/// "f32", "bf16", "int8", or "auto" for best_dtype(): what products multiply. Throws UsageError.
DType parse_dtype(std::string_view text, std::string_view option);
std::string_view dtype_text(DType dtype);
/// " (int8)" behind the name of what was computed, nothing for f32.
std::string dtype_note(DType dtype);
/// Exactly three numbers.
std::array<float, 3> parse_triple(std::string_view text, std::string_view option);

/// The size that an architecture's published figures are for; where there are none, the one that it was made for.
Size usual_size(const PictureArchitecture& architecture);
/// "224" or "480x640" (height first), sides of 1 … 65536. Throws UsageError.
Size parse_size(std::string_view text, std::string_view option);

/// "600M", "1.5G" or a plain number of bytes; K, M and G are powers of 1024. Throws UsageError.
std::int64_t parse_bytes(std::string_view text, std::string_view option);
/// "6,155,176"
std::string grouped(std::int64_t number);
/// "1.169 G", "189.3 G": with an SI prefix.
std::string si(double number);
/// "24.6 MiB"
std::string bytes_text(double bytes);

/// JSON on one line of stdout. Text that is no UTF-8 is made so.
void print_json(const Json& json);
/// "weft: message" on one line of stderr, whatever the message holds.
void print_error(std::string_view message);
/// Text of the user's or a file's on one line, never cut short.
std::string one_line(std::string_view text);

}  // namespace weft::cli
